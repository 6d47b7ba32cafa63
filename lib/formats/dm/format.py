"""Digital Micrograph files as a file format of the registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lib.bytesource.base import ByteSource, LocalBytes
from lib.formats.dm.cross_check import second_opinion
from lib.formats.dm.reader import DmReader, open_dm
from lib.formats.format import FileFormatBase, Options, VolumeDescription, only_path
from lib.plan import SourceGrid

_BYTE_ORDERS = (b"\0\0\0\1", b"\0\0\0\0")


class DmFormat(FileFormatBase):
    """The image that a file displays. DM3 and DM4 are told apart by their content."""

    name: ClassVar[str] = "dm"
    title: ClassVar[str] = "Gatan DM3 and DM4"
    suffixes: ClassVar[tuple[str, ...]] = (".dm3", ".dm4")
    sections: ClassVar[bool] = True

    def fits(self, head: bytes, name: str) -> bool:
        # version, length of the root (4 bytes or 8), byte order of the tags
        dm3 = head[:4] == b"\0\0\0\3" and head[8:12] in _BYTE_ORDERS
        dm4 = head[:4] == b"\0\0\0\4" and head[12:16] in _BYTE_ORDERS
        return dm3 or dm4

    def describe(
        self, source: ByteSource, path: str, options: Options
    ) -> Sequence[VolumeDescription]:
        only_path(path, source)
        image = open_dm(source)
        return [
            VolumeDescription(
                path="",
                handle={},
                shape_zyx=image.shape_zyx,
                dtype=image.dtype.name,
                voxel=image.voxel,
                origin=image.origin,
                acquired=image.acquired,
                notes=image.notes,
                extra={"microscope": image.facts} if image.facts else {},
            )
        ]

    def open(
        self,
        source: ByteSource,
        handle: dict[str, Any],
        *,
        grid: SourceGrid | None = None,
        scratch: Path | None = None,
    ) -> DmReader:
        return DmReader(open_dm(source))

    def check_whole(self, path: Path, handle: dict[str, Any], name: str) -> tuple[str, ...]:
        source = LocalBytes(path, name=name)
        try:
            return second_opinion(path, open_dm(source))
        finally:
            source.close()
