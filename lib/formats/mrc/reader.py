"""MRC volumes, plain or compressed as a whole by gzip or bzip2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lib.bytesource.base import ByteSource, LocalBytes, MemoryBytes
from lib.errors import ConfigError, FormatError
from lib.formats.base import Block, Layout, VolumeReader, delivered_dtype
from lib.formats.calibration import Origin, VoxelSize
from lib.formats.mrc.header import HEADER_BYTES, MrcChoices, MrcHeader, parse_header
from lib.formats.planes import check_box, plane_blocks
from lib.formats.unpacking import unpacked, write_unpacked
from lib.geometry import Box, ShapeZYX, zyx

_CHUNK_BYTES = 2**20
_MAX_RATIO = 1100  # Deflate cannot exceed 1032:1; bzip2 can, but not on micrographs
_MAX_TRAILING_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class MrcVolume:
    """A volume of an MRC file, described; `MrcReader` reads its voxels.

    ``dtype`` is native and float32 where the file has float16. Axes are put right: whatever the
    file calls columns, rows and sections, `shape_zyx` is z, y, x.
    """

    shape_zyx: ShapeZYX
    dtype: np.dtype[Any]
    voxel: VoxelSize
    origin: Origin
    notes: tuple[str, ...]
    header: MrcHeader
    source: ByteSource = field(repr=False)


def open_mrc(
    source: ByteSource, *, scratch: Path | None = None, choices: MrcChoices | None = None
) -> MrcVolume:
    """Describe the volume of an MRC file.

    Parameters
    ----------
    scratch
        Where a file compressed as a whole is unpacked to; the caller removes it. Must not exist.

    Raises
    ------
    FormatError
        No MRC file, a damaged one, one shorter than its header says, or one that holds more
        sections, unless `choices` say who is believed.
    UnsupportedFormatError
        Modes and stacks that are not converted.
    ConfigError
        The file is compressed and `scratch` is not given.
    DestinationError
        `scratch` cannot be written.
    """
    magic = source.read(0, 4)
    if magic[:2] == b"\x1f\x8b" or magic[:3] == b"BZh":
        if scratch is None:
            raise ConfigError(
                "the MRC file is compressed and there is no scratch folder to unpack it to",
                location=source.name,
                advice="Report this: who opens a packed file names a scratch folder",
            )
        more = choices is not None and choices.sections is not None
        source = _unpack(source, scratch, gzip=magic[:2] == b"\x1f\x8b", more=more)
    header, more_notes = _with_all_sections(parse_header(source, choices), source, choices)
    stop = header.data_offset + header.data_bytes
    if stop > source.size:
        raise FormatError(
            f"the MRC header asks for {stop} bytes, the file has {source.size}: it is cut short or "
            "its header is damaged",
            location=source.name,
        )
    notes = (*header.notes, *more_notes)
    if stop < source.size:
        notes += (f"{source.size - stop} bytes follow the voxels and are left out",)
    return MrcVolume(
        shape_zyx=header.shape_zyx,
        dtype=delivered_dtype(header.stored),
        voxel=header.voxel,
        origin=header.origin,
        notes=notes,
        header=header,
        source=source,
    )


def _with_all_sections(
    header: MrcHeader, source: ByteSource, choices: MrcChoices | None
) -> tuple[MrcHeader, tuple[str, ...]]:
    """The header with as many sections as `choices` say, where the file holds more than it says.

    A writer that was stopped, or that counts sections at its end, leaves such a header.
    """
    columns, rows, sections = header.size_columns_rows_sections
    beyond = (source.size - header.data_offset - header.data_bytes) // header.section_bytes
    if beyond < 1:
        return header, ()
    said = f"the MRC header says {sections} sections, and the file holds {sections + beyond}"
    who = choices.sections if choices is not None else None
    if who is None:
        raise FormatError(
            said,
            location=source.name,
            advice="Set mrc_sections to header or to file, whichever is right",
        )
    if who == "header":
        return header, (f"{said}; those of the header were taken (mrc_sections)",)
    size = (columns, rows, sections + beyond)
    whole = replace(header, size_columns_rows_sections=size)
    return whole, (f"{said}; those of the file were taken (mrc_sections)",)


class MrcReader(VolumeReader):
    """Voxels of an `MrcVolume`, section by section as the file stores them."""

    def __init__(self, volume: MrcVolume) -> None:
        self.volume = volume
        self.shape_zyx = volume.shape_zyx
        self.dtype = volume.dtype
        axes = volume.header.axis_columns_rows_sections
        # position, among the file's sections, rows, columns, of z, y and x
        self._order_zyx = tuple((2, 1, 0)[axes.index(axis)] for axis in (2, 1, 0))
        columns, rows, _ = volume.header.size_columns_rows_sections
        remote = volume.source.remote
        chunk = (1, rows if remote else 1, columns)
        self.layout = Layout(self._to_zyx(chunk), random_access=not remote, by_planes=True)

    def __exit__(self, *_: object) -> None:
        self.volume.source.close()

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield blocks of at most about 16 MiB that tile `box`; see `VolumeReader`."""
        volume, header = self.volume, self.volume.header
        check_box(box, self.shape_zyx, volume.source.name)
        if box.empty:
            return
        columns, rows, sections = header.size_columns_rows_sections
        stored = plane_blocks(
            volume.source,
            Box(self._to_stored(box.start_zyx), self._to_stored(box.stop_zyx)),
            data_offset=header.data_offset,
            shape_zyx=(sections, rows, columns),
            stored=header.stored,
        )
        for block in stored:
            place = Box(self._to_zyx(block.box.start_zyx), self._to_zyx(block.box.stop_zyx))
            data = block.data.transpose(self._order_zyx).astype(self.dtype, copy=False)
            yield Block(place, data)

    def _to_zyx(self, stored: ShapeZYX) -> ShapeZYX:
        return zyx(stored[position] for position in self._order_zyx)

    def _to_stored(self, triple_zyx: ShapeZYX) -> ShapeZYX:
        return zyx(triple_zyx[self._order_zyx.index(position)] for position in range(3))


def _unpack(source: ByteSource, scratch: Path, *, gzip: bool, more: bool) -> LocalBytes:
    """Unpack to `scratch`, to no more bytes than the header inside asks for.

    With `more`, to as many sections again as the header has.
    """
    pieces = unpacked(source, gzip=gzip)
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= HEADER_BYTES:
            break
    header = parse_header(MemoryBytes(head, name=source.name))
    limit = header.data_offset + header.data_bytes + _MAX_TRAILING_BYTES
    if limit - _MAX_TRAILING_BYTES > source.size * _MAX_RATIO + HEADER_BYTES:
        raise FormatError(
            f"{source.size} compressed bytes cannot hold the {limit} bytes of the header's volume",
            location=source.name,
        )
    limit += more * header.data_bytes
    return write_unpacked(source, scratch, head, pieces, limit)
