"""TIFF as a file format of the registry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from lib.bytesource.base import ByteSource
from lib.errors import FormatError, NotFoundError, UnsupportedFormatError
from lib.formats.base import VolumeReader
from lib.formats.format import FileFormatBase, Handle, Options, Survey, VolumeDescription
from lib.formats.planes import SectionStack
from lib.formats.tiff.ome_set import TIFF_MAGIC, OmeSet, ome_set
from lib.formats.tiff.ome_xml import is_ome
from lib.formats.tiff.reader import TiffFile, TiffReader, open_tiff
from lib.geometry import Box

_PATH = re.compile(r"(?P<series>\d+)(?:/c(?P<channel>\d+))?(?:/t(?P<time>\d+))?")
_MOST_VOLUMES = 1000

Plane = tuple[int, int | None, int | None]
"""Series, channel and time point; None where there is only one."""


class TiffFormat(FileFormatBase):
    """A volume for each series, channel and time point; ``|tiff:1/c0/t2`` names one of them."""

    name: ClassVar[str] = "tiff"
    title: ClassVar[str] = "TIFF, BigTIFF, OME-TIFF, ImageJ"
    suffixes: ClassVar[tuple[str, ...]] = (
        ".tif", ".tiff", ".btf", ".tf8", ".tf2", ".companion.ome",
    )  # fmt: skip
    sections: ClassVar[bool] = True
    headers: ClassVar[tuple[str, ...]] = (".companion.ome",)

    def fits(self, head: bytes, name: str) -> bool:
        return head.startswith(TIFF_MAGIC) or is_ome(head[:4096].decode("utf-8", "replace"))

    def describe(self, source: ByteSource, path: str, options: Options) -> list[VolumeDescription]:
        parts = ome_set(source)
        file = TiffFile(source) if parts is None else None
        sizes = [one.size_tzc for one in (parts.images if parts else file.series if file else ())]
        planes = [*_planes(sizes, options)]
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
                advice="There are: " + ", ".join(_path(p) for p in _planes(sizes, Options())),
            )
        only = len(planes) == 1 and not path
        if parts is not None:
            return [_of_set(parts, plane, "" if only else _path(plane)) for plane in planes]
        return [_described(file, plane, only=only) for plane in planes if file is not None]

    def survey(self, source: ByteSource, volume: VolumeDescription, box: Box) -> Survey:
        survey = super().survey(source, volume, box)
        parts = ome_set(source) if volume.beside else None
        if parts is None:
            return survey
        return replace(survey, notes=parts.checked(*_chosen(volume.handle)))

    def open(self, source: ByteSource, handle: Handle, scratch: Path | None = None) -> VolumeReader:
        parts = ome_set(source)
        if parts is not None:
            return SectionStack(parts.sections(*_chosen(handle)))
        series, channel, time = _chosen(handle)
        return TiffReader(open_tiff(source, series=series, channel=channel, time=time))


def _chosen(handle: Handle) -> Plane:
    return handle["series"], handle["channel"], handle["time"]


def _of_set(parts: OmeSet, plane: Plane, path: str) -> VolumeDescription:
    """A volume whose planes may lie in several files, by what the OME-XML says."""
    series, channel, time = plane
    handle: Handle = {"series": series, "channel": channel, "time": time}
    image = parts.images[series]
    try:
        beside = parts.beside(series, channel, time)
    except FormatError as error:
        return VolumeDescription(path, handle, (0, 0, 0), "uint8", refused=error.message)
    return VolumeDescription(
        path=path,
        handle=handle,
        shape_zyx=(image.size["Z"], image.size["Y"], image.size["X"]),
        dtype=image.dtype or "uint8",
        voxel=image.voxel,
        beside=beside,
        acquired=image.acquired,
        about={"title": image.name} if image.name and len(parts.images) > 1 else {},
        notes=image.notes,
        refused=None if image.dtype else f"the voxels are {image.pixel_type!r} by the OME-XML",
    )


def _planes(sizes: Sequence[tuple[int, int, int]], options: Options) -> Iterator[Plane]:
    for number, (times, _, channels) in enumerate(sizes):
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
