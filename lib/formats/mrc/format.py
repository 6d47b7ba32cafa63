"""MRC and its kin, as a file and as a volume; compressed as a whole by gzip or bzip2, or not."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from lib.bytesource.base import ByteSource, LocalBytes, MemoryBytes
from lib.errors import ConfigError, FormatError
from lib.formats.base import Block, Layout, VolumeReader, delivered_dtype
from lib.formats.format import (
    FileFormatBase,
    Handle,
    Options,
    Origin,
    VolumeDescription,
    VoxelSize,
    only_path,
)
from lib.formats.mrc.header import (
    HEADER_BYTES,
    Mode0,
    MrcChoices,
    MrcHeader,
    Sections,
    parse_header,
)
from lib.formats.planes import check_box, plane_blocks, scratch_file, unpacked, write_unpacked
from lib.geometry import Box, ShapeZYX, zyx

_SUFFIXES = (".mrc", ".rec", ".st", ".ali", ".map", ".mrcs", ".ccp4")
_PACKED = (".gz", ".bz2")
_MOST_PACKED_HEADER = 2**20  # a bzip2 block of 900 kB comes out whole or not at all
_KNOWN_MODES = frozenset({0, 1, 2, 3, 4, 6, 12, 16, 101})
_MOST_VOXELS_AN_AXIS = 2**24


class MrcFormat(FileFormatBase):
    """One volume a file; the choices ``mrc_mode0`` and ``mrc_sections`` settle open questions."""

    name: ClassVar[str] = "mrc"
    title: ClassVar[str] = "MRC, REC, ST, ALI, MAP, MRCS, CCP4 (also .gz, .bz2)"
    suffixes: ClassVar[tuple[str, ...]] = (
        *_SUFFIXES,
        *(suffix + packed for suffix in _SUFFIXES for packed in _PACKED),
    )
    sections: ClassVar[bool] = True

    def fits(self, head: bytes, name: str) -> bool:
        if packing(head):
            begun = _beginning(head)
            named = name.lower().endswith(self.suffixes)
            return _looks_like(begun, named=named) if begun else named
        return _looks_like(head, named=name.lower().endswith(self.suffixes))

    def describe(self, source: ByteSource, path: str, options: Options) -> list[VolumeDescription]:
        only_path(path, source)
        choices = _choices(options.choices)
        packed = packing(source.read(0, min(3, source.size)))
        if packed:
            header = parse_header(unpacked_header(source), choices)
            dtype = delivered_dtype(header.stored)
            notes = header.notes
        else:
            volume = open_mrc(source, choices=choices)
            header, dtype, notes = volume.header, volume.dtype, volume.notes
        return [
            VolumeDescription(
                path="",
                handle=dict(options.choices),
                shape_zyx=header.shape_zyx,
                dtype=dtype.name,
                voxel=header.voxel,
                origin=header.origin,
                needs_file=packed,
                notes=notes,
                signedness=header.signedness,
            )
        ]

    def open(self, source: ByteSource, handle: Handle, scratch: Path | None = None) -> MrcReader:
        return MrcReader(_opened(source, handle, scratch))


def _opened(source: ByteSource, handle: dict[str, Any], scratch: Path | None) -> MrcVolume:
    choices = _choices(handle)
    if not packing(source.read(0, min(3, source.size))):
        return open_mrc(source, choices=choices)
    with scratch_file(source, scratch) as target:
        return open_mrc(source, scratch=target, choices=choices)


def _choices(given: Any) -> MrcChoices:
    return MrcChoices(
        cast(Mode0, given.get("mrc_mode0", "auto")),
        cast("Sections | None", given.get("mrc_sections")),
        given.get("stated_dtype"),
    )


def packing(head: bytes) -> bool:
    """Whether a file begins as gzip or bzip2 does."""
    return head[:2] == b"\x1f\x8b" or head[:3] == b"BZh"


def unpacked_header(source: ByteSource) -> ByteSource:
    """The MRC header out of the beginning of a compressed file. Raises `FormatError`."""
    data = source.read(0, min(source.size, 2 * HEADER_BYTES))
    header = _beginning(data)
    if len(header) < HEADER_BYTES and len(data) < source.size:
        header = _beginning(source.read(0, min(source.size, _MOST_PACKED_HEADER)))
    if len(header) < HEADER_BYTES:
        raise FormatError("the compressed file holds no MRC header", location=source.name)
    return MemoryBytes(header, name=source.name)


def _beginning(data: bytes) -> bytes:
    try:
        if data[:2] == b"\x1f\x8b":
            return zlib.decompressobj(31).decompress(data, HEADER_BYTES)
        if data[:3] == b"BZh":
            return bz2.BZ2Decompressor().decompress(data, HEADER_BYTES)
    except (zlib.error, OSError, ValueError):
        pass
    return b""


def _looks_like(head: bytes, *, named: bool) -> bool:
    """A header with its stamp, or, under a name of the kind, one that makes sense without it."""
    if len(head) < HEADER_BYTES:
        return False
    for order in ("<", ">"):
        words = np.frombuffer(head[:16], np.dtype(f"{order}i4")).tolist()
        sizes = all(0 < size <= _MOST_VOXELS_AN_AXIS for size in words[:3])
        if sizes and words[3] in _KNOWN_MODES:
            return named or head[208:211] == b"MAP"
    return False


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
