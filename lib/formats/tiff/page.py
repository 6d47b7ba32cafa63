"""One TIFF page: what it holds and where its strips or tiles lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.tiff.codecs import JPEG, JPEG_2000, UNCOMPRESSED, check_compression, check_segment
from lib.formats.tiff.ifd import Ifd

_KINDS = {0: "u", 1: "u", 2: "i", 3: "f", 4: "u"}  # SampleFormat 4 = undefined, read as unsigned
_DTYPES = frozenset({"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"})
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_NO_LIMIT = 2**32 - 1  # RowsPerStrip when the page is one strip
PALETTE, _COLOR_MAP = 3, 320
_JPEG_TABLES, _MOST_TABLES = 347, 2**16

Resolution = tuple[float | None, float | None, int]
"""XResolution, YResolution and ResolutionUnit."""


@dataclass(frozen=True, slots=True)
class PageKind:
    """All that pages of one volume have in common."""

    height: int
    width: int
    stored: np.dtype[Any]  # with the file's byte order
    compression: int
    predictor: int
    segment_yx: tuple[int, int]  # rows per strip and the width, or a tile
    tiled: bool
    photometric: int  # 0: white is zero, 1: black is zero, 3: a palette that is the grey ramp
    orientation: int = 1  # as the file has it; 1: the first row is the top, the first column left
    jpeg_tables: bytes = b""  # which the strips or tiles of a JPEG leave out
    bits: int = 0  # of a voxel, where it is packed in less than its bytes; rows begin with a byte

    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of as many voxels once they are decompressed."""
        row = -(-columns * self.bits // 8) if self.bits else columns * self.stored.itemsize
        return rows * row


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """A page and its segments (strips or tiles).

    Attributes
    ----------
    data_offset
        Where the voxels begin, if they lie uncompressed in one piece; else None.
    offsets, counts
        Byte range of each segment; None where `data_offset` says it all.
    ifd_offset, ifd_span
        The directory; the bytes (start, stop) that it and its strip tables cover.
    number
        PageNumber as the file has it: this page and the total, which 0 leaves open.
    refused
        Why the page is none of a volume that is converted (colours, a codec); None for most.
    resolution
        Where it was read; pages that were extrapolated are believed to have that of the first.
    """

    kind: PageKind
    data_offset: int | None
    offsets: NDArray[np.uint64] | None
    counts: NDArray[np.uint64] | None
    data_bytes: int
    table_bytes: int
    ifd_offset: int
    ifd_span: tuple[int, int]
    next_ifd: int
    number: tuple[int, int] | None
    subfile: int
    sub_ifds: int
    refused: str | None = None
    resolution: Resolution | None = None

    @property
    def auxiliary(self) -> bool:
        """A thumbnail, a lower resolution or a mask: not a plane of the volume."""
        return bool(self.subfile & (_REDUCED | _MASK))

    def segments(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Offset and byte count of each strip or tile."""
        if self.offsets is not None and self.counts is not None:
            return self.offsets, self.counts
        kind = self.kind
        rows = np.arange(0, kind.height, kind.segment_yx[0], dtype=np.uint64)
        row_bytes = np.uint64(kind.width * kind.stored.itemsize)
        starts = rows * row_bytes
        stops = np.append(starts[1:], np.uint64(kind.height) * row_bytes)
        return starts + np.uint64(self.data_offset or 0), stops - starts

    def moved(self, delta: int, steps: int) -> Page:
        """The page expected `steps` pages on, if everything lies `delta` bytes further."""
        return replace(
            self,
            data_offset=None if self.data_offset is None else self.data_offset + delta,
            offsets=None if self.offsets is None else self.offsets + np.uint64(delta),
            ifd_offset=self.ifd_offset + delta,
            ifd_span=(self.ifd_span[0] + delta, self.ifd_span[1] + delta),
            next_ifd=self.next_ifd + delta,
            number=self.number and (self.number[0] + steps, self.number[1]),
        )

    def same_as(self, other: Page, *, last: bool = False) -> bool:
        """True if both say the same of the same voxels; the `last` page has no next one."""
        return (
            self.kind == other.kind
            and self.data_offset == other.data_offset
            and np.array_equal(_or_empty(self.offsets), _or_empty(other.offsets))
            and np.array_equal(_or_empty(self.counts), _or_empty(other.counts))
            and self.number == other.number
            and self.auxiliary == other.auxiliary
            and self.refused == other.refused
            and self.ifd_span == other.ifd_span
            and (last or self.next_ifd == other.next_ifd)
        )


def _or_empty(values: NDArray[np.uint64] | None) -> NDArray[np.uint64]:
    return np.empty(0, np.uint64) if values is None else values


def read_page(ifd: Ifd) -> Page:
    """Interpret one directory.

    Raises
    ------
    UnsupportedFormatError
        Colours, bit depths, compressions or layouts that are not converted.
    FormatError
        Fields are absent, contradict each other, or reach beyond the file.
    """
    name = ifd.source.name
    kind = _read_kind(ifd)
    offsets, counts, tables = _read_segments(ifd, kind)
    _check_segments(ifd, kind, offsets, counts)
    row_bytes = kind.nbytes(1, kind.width)
    stops = offsets + counts
    contiguous = (
        not kind.tiled
        and not kind.bits
        and kind.compression == UNCOMPRESSED
        and bool(np.all(stops[:-1] == offsets[1:]))
        and bool(np.all(counts[:-1] == kind.segment_yx[0] * row_bytes))
    )
    number = ifd.integers(297, limit=2)
    if number is not None and len(number) != 2:
        raise FormatError("PageNumber has one value instead of two", location=name)
    sub_ifds = ifd.entries.get(330)
    return Page(
        kind=kind,
        data_offset=int(offsets[0]) if contiguous else None,
        offsets=None if contiguous else offsets,
        counts=None if contiguous else counts,
        data_bytes=int(counts.sum()),
        table_bytes=ifd.nbytes + sum(stop - start for start, stop in tables),
        ifd_offset=ifd.offset,
        ifd_span=(
            min([ifd.offset, *(start for start, _ in tables)]),
            max([ifd.offset + ifd.nbytes, *(stop for _, stop in tables)]),
        ),
        next_ifd=ifd.next_offset,
        number=None if number is None else (int(number[0]), int(number[1])),
        subfile=ifd.integer(254, 0),
        sub_ifds=0 if sub_ifds is None else sub_ifds.count,
    )


def read_any_page(ifd: Ifd) -> Page:
    """As `read_page`, but of a page that is not converted its place in the file, and the reason.

    A colour picture or a label may lie among the pages of a volume, and hides none of them.
    """
    try:
        page = read_page(ifd)
    except UnsupportedFormatError as error:
        page = _refused(ifd, error.message)
    try:
        resolution = (ifd.ratio(282), ifd.ratio(283), ifd.integer(296, 2))
    except FormatError:  # a broken field of which no voxel depends
        return page
    return replace(page, resolution=resolution)


def _refused(ifd: Ifd, why: str) -> Page:
    height, width = ifd.integer(257, 0), ifd.integer(256, 0)
    kind = PageKind(height, width, np.dtype("V1"), 0, 1, (height, width), False, 0)
    return Page(
        kind=kind,
        data_offset=None,
        offsets=None,
        counts=None,
        data_bytes=0,
        table_bytes=ifd.nbytes,
        ifd_offset=ifd.offset,
        ifd_span=(ifd.offset, ifd.offset + ifd.nbytes),
        next_ifd=ifd.next_offset,
        number=None,
        subfile=ifd.integer(254, 0),
        sub_ifds=0,
        refused=why,
    )


def _read_kind(ifd: Ifd) -> PageKind:
    name = ifd.source.name
    width, height = ifd.integer(256, 0), ifd.integer(257, 0)
    if not 0 < width < 2**31 or not 0 < height < 2**31:
        raise FormatError(f"a TIFF page of {width} x {height} pixels", location=name)
    photometric = ifd.integer(262, 1)
    refusals = (
        (ifd.integer(277, 1) != 1, "several samples per pixel (colours)"),
        (
            photometric not in (0, 1) and not _is_grey_palette(ifd, photometric),
            "a colour or palette photometric interpretation",
        ),
        (ifd.integer(266, 1) != 1, "bits in reversed order (FillOrder 2)"),
        (ifd.integer(32997, 1) != 1, "several planes in one page (ImageDepth)"),
    )
    for refused, what in refusals:
        if refused:
            raise UnsupportedFormatError(f"the TIFF page has {what}", location=name)
    sample, bits = ifd.integer(339, 1), ifd.integer(258, 1)
    packed = bits < 16 and bits != 8 and _KINDS.get(sample) == "u" and photometric != PALETTE
    code = f"{_KINDS.get(sample, '?')}{1 if packed and bits < 8 else 2 if packed else bits / 8:g}"
    if code not in _DTYPES or bits < 1:
        raise UnsupportedFormatError(
            f"{bits}-bit voxels of TIFF sample format {sample} are not supported", location=name
        )
    stored = np.dtype(ifd.order + code)
    compression, predictor = ifd.integer(259, 1), ifd.integer(317, 1)
    check_compression(compression, predictor, stored, name)
    if packed and (predictor != 1 or compression in (JPEG, JPEG_2000)):
        raise UnsupportedFormatError(
            f"{bits}-bit voxels of TIFF compression {compression} and predictor {predictor}",
            location=name,
        )
    tiled = 322 in ifd.entries
    if tiled:
        segment = (ifd.integer(323, 0), ifd.integer(322, 0))
    else:
        segment = (min(ifd.integer(278, _NO_LIMIT), height), width)
    if min(segment) <= 0:
        raise FormatError("the TIFF page has strips or tiles without size", location=name)
    tables = ifd.raw(_JPEG_TABLES, limit=_MOST_TABLES) if compression == JPEG else None
    return PageKind(
        height,
        width,
        stored,
        compression,
        predictor,
        segment,
        tiled,
        photometric,
        orientation=ifd.integer(274, 1),
        jpeg_tables=tables or b"",
        bits=bits if packed else 0,
    )


def _is_grey_palette(ifd: Ifd, photometric: int) -> bool:
    """Whether a palette shows each value as the grey of that value, so that values are grey levels.

    The ramp is written in three ways: v * 257, v * 256, and v as it is.
    """
    if photometric != PALETTE or ifd.integer(277, 1) != 1:
        return False
    bits = ifd.integer(258, 1)
    if bits not in (8, 16) or ifd.integer(339, 1) != 1:
        return False
    colours = ifd.integers(_COLOR_MAP, limit=3 * 2**bits)
    if colours is None or len(colours) != 3 * 2**bits:
        return False
    ramp = np.arange(2**bits, dtype=np.uint64)
    steps = (257, 256, 1) if bits == 8 else (1,)
    table = colours.reshape(3, -1)
    return any(bool((table == ramp * np.uint64(step)).all()) for step in steps)


def _read_segments(
    ifd: Ifd, kind: PageKind
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], list[tuple[int, int]]]:
    """Offsets, byte counts, and the byte ranges of the tables that lie outside the directory."""
    name = ifd.source.name
    expected = math.ceil(kind.height / kind.segment_yx[0]) * math.ceil(
        kind.width / kind.segment_yx[1]
    )
    tags = (324, 325) if kind.tiled else (273, 279)
    offsets = ifd.integers(tags[0], limit=expected)
    counts = ifd.integers(tags[1], limit=expected)
    if counts is None and expected == 1 and kind.compression == UNCOMPRESSED:
        counts = np.array([kind.nbytes(*kind.segment_yx)], np.uint64)
    if offsets is None or counts is None or not len(offsets) == len(counts) == expected:
        raise FormatError(
            f"the TIFF page at {ifd.offset} needs {expected} strips or tiles and lists others",
            location=name,
        )
    tables = [
        (entry.offset, entry.offset + entry.nbytes)
        for entry in (ifd.entries.get(tag) for tag in (*tags, *_tables_of(kind)))
        if entry is not None and not ifd.offset <= entry.offset < ifd.offset + ifd.nbytes
    ]
    return offsets, counts, tables


def _tables_of(kind: PageKind) -> tuple[int, ...]:
    """Fields whose values are read beside those of strips and tiles."""
    palette = (_COLOR_MAP,) if kind.photometric == PALETTE else ()
    return (*palette, _JPEG_TABLES) if kind.jpeg_tables else palette


def _check_segments(
    ifd: Ifd, kind: PageKind, offsets: NDArray[np.uint64], counts: NDArray[np.uint64]
) -> None:
    name, size = ifd.source.name, ifd.source.size
    if (
        int(offsets.max()) > size
        or int(counts.max()) > size
        or int((offsets + counts).max()) > size
    ):
        raise FormatError(
            f"the TIFF page at {ifd.offset} has voxels beyond the end of the file ({size} bytes): "
            "the file is cut short or damaged",
            location=name,
        )
    if int(offsets.min()) == 0:
        raise FormatError(
            f"a strip or tile of the TIFF page at {ifd.offset} is absent from the file",
            location=name,
        )
    full = kind.nbytes(*kind.segment_yx)
    rows_left = kind.height % kind.segment_yx[0]
    short = full if kind.tiled or not rows_left else kind.nbytes(rows_left, kind.width)
    check_segment(kind.compression, int(counts[-1]), short, name)
    if len(counts) > 1:
        check_segment(kind.compression, int(counts[:-1].min()), full, name)
