"""TIFF as a file format of the registry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from lib.bytesource.base import ByteSource
from lib.errors import FormatError, NotFoundError, UnsupportedFormatError
from lib.formats.format import FileFormatBase, Handle, Options, VolumeDescription
from lib.formats.tiff.reader import TiffFile, TiffReader, open_tiff

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0")
_PATH = re.compile(r"(?P<series>\d+)(?:/c(?P<channel>\d+))?(?:/t(?P<time>\d+))?")
_MOST_VOLUMES = 1000

Plane = tuple[int, int | None, int | None]
"""Series, channel and time point; None where there is only one."""


class TiffFormat(FileFormatBase):
    """A volume for each series, channel and time point; ``|tiff:1/c0/t2`` names one of them."""

    name: ClassVar[str] = "tiff"
    title: ClassVar[str] = "TIFF, BigTIFF, OME-TIFF, ImageJ"
    suffixes: ClassVar[tuple[str, ...]] = (".tif", ".tiff", ".btf", ".tf8", ".tf2")
    sections: ClassVar[bool] = True

    def fits(self, head: bytes, name: str) -> bool:
        return head.startswith(_MAGIC)

    def describe(self, source: ByteSource, path: str, options: Options) -> list[VolumeDescription]:
        file = TiffFile(source)
        planes = [*_planes(file, options)]
        if len(planes) > _MOST_VOLUMES:
            raise UnsupportedFormatError(
                f"the file holds {len(planes)} volumes", location=source.name
            )
        if path:
            planes = [plane for plane in planes if _matches(plane, path)]
        if not planes:
            raise NotFoundError(
                f"the file has no volume {path!r}",
                location=source.name,
                advice="There are: " + ", ".join(_path(p) for p in _planes(file, Options())),
            )
        return [_described(file, plane, only=len(planes) == 1 and not path) for plane in planes]

    def open(self, source: ByteSource, handle: Handle, scratch: Path | None = None) -> TiffReader:
        chosen = {key: handle[key] for key in ("series", "channel", "time")}
        return TiffReader(open_tiff(source, **chosen))


def _planes(file: TiffFile, options: Options) -> Iterator[Plane]:
    for number, series in enumerate(file.series):
        times, _, channels = series.size_tzc
        for time in range(times):
            for channel in range(channels):
                chosen = (options.channel in (None, channel)) and (options.time in (None, time))
                if chosen or (channels == times == 1):
                    yield (
                        number,
                        channel if channels > 1 else None,
                        time if times > 1 else None,
                    )


def _path(plane: Plane) -> str:
    series, channel, time = plane
    marks = [str(series)]
    marks += [f"{letter}{n}" for letter, n in (("c", channel), ("t", time)) if n is not None]
    return "/".join(marks)


def _matches(plane: Plane, path: str) -> bool:
    match = _PATH.fullmatch(path)
    if match is None:
        return False
    wanted = (match["series"], match["channel"], match["time"])
    return all(w is None or int(w) == (p or 0) for w, p in zip(wanted, plane, strict=True))


def _described(file: TiffFile, plane: Plane, *, only: bool) -> VolumeDescription:
    series, channel, time = plane
    handle: dict[str, Any] = {"series": series, "channel": channel, "time": time}
    path = "" if only else _path(plane)
    try:
        volume = file.volume(series, channel, time)
    except FormatError as error:
        if only:
            raise
        return VolumeDescription(path, handle, (0, 0, 0), "uint8", refused=error.message)
    return VolumeDescription(
        path=path,
        handle=handle,
        shape_zyx=volume.shape_zyx,
        dtype=volume.dtype.name,
        voxel=volume.voxel,
        origin=volume.origin if volume.origin.stated else None,
        extra={"microscope": volume.facts} if volume.facts else {},
        acquired=volume.acquired,
        about={"title": volume.series[volume.index]} if len(volume.series) > 1 else {},
        notes=volume.notes,
    )
