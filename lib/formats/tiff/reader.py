"""TIFF, BigTIFF, OME-TIFF and ImageJ stacks as volumes.

Strips and tiles may be compressed or scattered; boxes are read out of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.base import ByteSource, Span, read_spans
from lib.errors import FormatError, OutOfBoundsError, UnsupportedFormatError
from lib.formats.base import WIDENED, Block, Layout, VolumeReader, delivered_dtype
from lib.formats.format import Origin, VoxelSize
from lib.formats.planes import check_box, row_spans, rows_block
from lib.formats.tiff.codecs import JPEG, JPEG_2000, UNCOMPRESSED, decode
from lib.formats.tiff.geometry import Turn
from lib.formats.tiff.ifd import read_header, read_ifd
from lib.formats.tiff.page import PALETTE, Page, PageKind
from lib.formats.tiff.pages import PageList, list_pages
from lib.formats.tiff.series import list_series
from lib.geometry import Box, ShapeZYX

_BLOCK_BYTES = 8 * 2**20


@dataclass(slots=True)
class _Group:
    """Neighbouring segments of one page that become one block."""

    box: Box  # what is wanted of them
    left: int  # segments still to come


@dataclass(frozen=True, slots=True)
class _Piece:
    group: _Group
    area: Box  # what the segment covers; a tile may reach beyond its page
    unit: str


def segment_blocks(
    source: ByteSource, pages: Iterable[tuple[int, Page]], box: Box, kind: PageKind
) -> Iterator[Block]:
    """Decode the strips or tiles of `pages` (z and page) that `box` crosses.

    Raises
    ------
    FormatError
        A segment does not decode to exactly its voxels.
    """
    native = kind.stored.newbyteorder("=")
    out: NDArray[Any] = np.empty((0, 0), native)
    spans = (span for z, page in pages for span in _page_spans(page, z, box, source.name))
    current: _Group | None = None
    for piece, view in read_spans(source, spans):
        group = piece.group
        if group is not current:
            out, current = np.empty(group.box.shape_zyx[1:], native), group
        voxels = decode(
            view,
            compression=kind.compression,
            predictor=kind.predictor,
            shape_yx=piece.area.shape_zyx[1:],
            stored=kind.stored,
            full_rows=kind.segment_yx[0],
            bits=kind.bits,
            tables=kind.jpeg_tables,
            name=source.name,
            unit=piece.unit,
        )
        part = piece.area.intersect(group.box)
        out[part.slices(group.box.start_zyx)[1:]] = voxels[part.slices(piece.area.start_zyx)[1:]]
        group.left -= 1
        if not group.left:
            yield from _split(group.box, out)


def _page_spans(page: Page, z: int, box: Box, name: str) -> Iterator[Span[_Piece]]:
    kind = page.kind
    offsets, counts = page.segments()
    across = -(-kind.width // kind.segment_yx[1])
    for areas in _grouped(kind, z, box):
        first, last = areas[0][1], areas[-1][1]
        group = _Group(Box(first.start_zyx, last.stop_zyx).intersect(box), len(areas))
        for (row, column), area in areas:
            index = row * across + column
            unit = f"z {z}, strip or tile {index}"
            needed = kind.nbytes(*area.shape_zyx[1:])
            length = needed if kind.compression == UNCOMPRESSED else int(counts[index])
            if length > 2 * needed + 2**20:
                raise FormatError(
                    f"{length} stored bytes for {needed} bytes of voxels", location=name, unit=unit
                )
            yield Span(int(offsets[index]), length, _Piece(group, area, unit))


def _grouped(kind: PageKind, z: int, box: Box) -> Iterator[list[tuple[tuple[int, int], Box]]]:
    """Segments that `box` crosses, as rectangles of about `_BLOCK_BYTES`."""
    high, wide = kind.segment_yx
    size = high * wide * kind.stored.itemsize
    at_once = max(1, _BLOCK_BYTES // size)
    rows = range(box.start_zyx[1] // high, -(-box.stop_zyx[1] // high))
    columns = range(box.start_zyx[2] // wide, -(-box.stop_zyx[2] // wide))

    def area(row: int, column: int) -> Box:
        stop = (row + 1) * high if kind.tiled else min((row + 1) * high, kind.height)
        return Box((z, row * high, column * wide), (z + 1, stop, (column + 1) * wide))

    if len(columns) == 1:
        for i in range(0, len(rows), at_once):
            yield [((row, columns[0]), area(row, columns[0])) for row in rows[i : i + at_once]]
        return
    for row in rows:
        for i in range(0, len(columns), at_once):
            yield [((row, column), area(row, column)) for column in columns[i : i + at_once]]


def _split(box: Box, voxels: NDArray[Any]) -> Iterator[Block]:
    """One block, or several where a single segment is larger than a block may be."""
    row_bytes = max(1, voxels.shape[1] * voxels.itemsize)
    depth, _, width = box.shape_zyx
    for piece in box.tiles((depth, max(1, 2 * _BLOCK_BYTES // row_bytes), width)):
        rows = slice(piece.start_zyx[1] - box.start_zyx[1], piece.stop_zyx[1] - box.start_zyx[1])
        yield Block(piece, voxels[np.newaxis, rows])


@dataclass(frozen=True, slots=True)
class TiffVolume:
    """One volume of a TIFF, described; `TiffReader` reads its voxels.

    Attributes
    ----------
    dtype
        In native byte order.
    voxel
        What the file says; None where it says nothing.
    stated_planes
        Planes by the file's own claim (ImageJ images, OME sizes, PageNumber); held against what
        is there before this object is made.
    series
        Names of all volumes of the file; this is number `index`.
    notes
        Doubts and leavings, for the record.
    """

    shape_zyx: ShapeZYX
    dtype: np.dtype[Any]
    voxel: VoxelSize
    kind: Literal["ome", "imagej", "pages"]
    stated_planes: int | None
    series: tuple[str, ...]
    index: int
    acquired: str | None
    notes: tuple[str, ...]
    origin: Origin
    facts: dict[str, str | int | float]
    source: ByteSource = field(repr=False)
    pages: PageList = field(repr=False)
    planes: Sequence[int] = field(repr=False)  # page of each z
    stacked: bool = False

    @property
    def page_kind(self) -> PageKind:
        return self.page(0).kind

    @property
    def turn(self) -> Turn:
        """How stored rows and columns become y and x."""
        return Turn.of(self.page_kind.orientation)

    @property
    def turned(self) -> dict[str, int]:
        """For the identity of a volume whose rows do not run from the top to the bottom."""
        return {} if self.turn.none else {"orientation": self.page_kind.orientation}

    def page(self, z: int) -> Page:
        """The page that describes plane `z`."""
        return self.pages[0 if self.stacked else self.planes[z]]

    def data_offset(self, z: int) -> int | None:
        """Where plane `z` begins if it lies uncompressed in one piece; else None."""
        page, kind = self.page(z), self.page(z).kind
        if not self.stacked or page.data_offset is None:
            return page.data_offset
        return page.data_offset + self.planes[z] * kind.height * kind.width * kind.stored.itemsize


def open_tiff(
    source: ByteSource,
    *,
    series: int | None = None,
    channel: int | None = None,
    time: int | None = None,
) -> TiffVolume:
    """Describe one volume of a TIFF; reads metadata only.

    Parameters
    ----------
    source
        The file. If it is remote, a file whose directories lie between its pages costs three or
        four requests.
    series
        Which volume, where the file has several; None: the first that is converted.
    channel, time
        Which one, where the volume has several.

    Raises
    ------
    FormatError
        The file is damaged, cut short, or holds less than it claims.
    UnsupportedFormatError
        A valid file that is not converted: colours, exotic depths, compressions or axes.
    OutOfBoundsError
        There is no such series, channel or time point.
    """
    return TiffFile(source).volume(series, channel, time)


class TiffFile:
    """The directories of a TIFF and the volumes that they make; raises as `open_tiff` does."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        header = read_header(source)
        self._pages = list_pages(source, header)
        self.series = list_series(self._pages, read_ifd(source, header, header.first_ifd))

    def volume(self, series: int | None, channel: int | None, time: int | None) -> TiffVolume:
        """One volume, the first that is converted where none is named; reads nothing more."""
        source, pages, found = self.source, self._pages, self.series
        if series is None:
            series = next((n for n, one in enumerate(found) if one.refused is None), 0)
        if not 0 <= series < len(found):
            raise OutOfBoundsError(
                f"series {series} was chosen, the file has {len(found)}", location=source.name
            )
        chosen = found[series]
        planes = chosen.planes_z(channel, time, source.name)
        kind = pages[0 if chosen.stacked else planes[0]].kind
        if not pages.extrapolated and not chosen.stacked:
            for z, plane in enumerate(planes):
                unit = f"page {plane} (z {z})"
                if (refused := pages[plane].refused) is not None:
                    raise UnsupportedFormatError(refused, location=source.name, unit=unit)
                if pages[plane].kind != kind:
                    raise FormatError(
                        "the page differs from the first in size, voxel type or compression",
                        location=source.name,
                        unit=unit,
                    )
        notes = chosen.notes
        if len(found) > 1:
            if sum(one.refused is None for one in found) > 1:
                notes += (f"series {series} of {len(found)}; the others are volumes of their own",)
            notes += tuple(
                f"series {n} is not converted: {one.refused}"
                for n, one in enumerate(found)
                if one.refused is not None
            )
        height, width = kind.height, kind.width
        if Turn.of(kind.orientation).swapped:
            height, width = width, height
        return TiffVolume(
            shape_zyx=(len(planes), height, width),
            dtype=delivered_dtype(kind.stored),
            voxel=chosen.voxel,
            kind=chosen.kind,
            stated_planes=chosen.stated_planes,
            series=tuple(one.name or f"series {number}" for number, one in enumerate(found)),
            index=series,
            acquired=chosen.acquired,
            notes=notes + notes_of(kind),
            origin=chosen.origin,
            facts=chosen.facts,
            source=source,
            pages=pages,
            planes=planes,
            stacked=chosen.stacked,
        )


def notes_of(kind: PageKind) -> tuple[str, ...]:
    """What is done to the values and the rows of pages of a kind, or left as it is."""
    notes: tuple[str, ...] = ()
    if kind.photometric == 0:
        notes += ("stored as WhiteIsZero; values are kept as they are",)
    if kind.photometric == PALETTE:
        notes += ("stored with a palette that is the grey ramp itself; values are kept",)
    if kind.compression == JPEG:
        notes += ("decoded from JPEG: the values are not those that were recorded",)
    if kind.compression == JPEG_2000:
        notes += ("decoded from JPEG 2000, which may have changed the values that were recorded",)
    if kind.bits:
        notes += (f"stored in {kind.bits} bits a voxel; values are kept",)
    if kind.stored.name == "float16":
        notes += (WIDENED,)
    if not Turn.of(kind.orientation).none:
        notes += (f"Orientation {kind.orientation} is applied: y runs down, x to the right",)
    elif kind.orientation != 1:
        notes += (f"Orientation {kind.orientation} means nothing, and rows are taken from the top",)
    return notes


class TiffReader(VolumeReader):
    """Voxels of a `TiffVolume`.

    Pages come in order. Whole rows are fetched and cut to the box in memory. Where pages were
    extrapolated, the directory of each is fetched along with its voxels and checked; the error of
    a page that is not where it was expected may follow that page's last block.
    """

    def __init__(self, volume: TiffVolume) -> None:
        self.volume = volume
        self.shape_zyx = volume.shape_zyx
        self.dtype = volume.dtype
        remote = volume.source.remote
        self._turn = volume.turn
        kind = volume.page_kind
        self.values = f"{'white' if kind.photometric == 0 else 'black'} is zero"
        self.values += f", {kind.bits} bits" if kind.bits else ""
        self._stored_yx = (kind.height, kind.width)
        high, wide = self._stored_yx
        if not remote:
            high, wide = min(kind.segment_yx[0], high), min(kind.segment_yx[1], wide)
        chunk = (wide, high) if self._turn.swapped else (high, wide)
        self.layout = Layout((1, *chunk), random_access=not remote, by_planes=True)

    def __exit__(self, *_: object) -> None:
        self.volume.source.close()

    def blocks(self, box: Box) -> Iterator[Block]:
        volume = self.volume
        check_box(box, self.shape_zyx, volume.source.name)
        if box.empty:
            return
        if self._turn.none:
            for block in self._stored_blocks(box):
                yield replace(block, data=block.data.astype(self.dtype, copy=False))
            return
        for block in self._stored_blocks(self._turned(box, to_stored=True)):
            data = block.data.swapaxes(1, 2) if self._turn.swapped else block.data
            data = data[:, :: -1 if self._turn.flip_y else 1, :: -1 if self._turn.flip_x else 1]
            place = self._turned(block.box, to_stored=False)
            yield replace(block, box=place, data=data.astype(self.dtype, copy=False))

    def _turned(self, box: Box, *, to_stored: bool) -> Box:
        """A box of the volume in stored rows and columns, or the other way round."""
        (z0, *start), (z1, *stop) = box.start_zyx, box.stop_zyx
        spans = [*zip(start, stop, strict=True)]
        if self._turn.swapped and not to_stored:
            spans.reverse()
        flips = (self._turn.flip_y, self._turn.flip_x)
        lengths = self.shape_zyx[1:]
        spans = [
            (length - b, length - a) if flip else (a, b)
            for (a, b), flip, length in zip(spans, flips, lengths, strict=True)
        ]
        if self._turn.swapped and to_stored:
            spans.reverse()
        (y0, y1), (x0, x1) = spans
        return Box((z0, y0, x0), (z1, y1, x1))

    def _stored_blocks(self, box: Box) -> Iterator[Block]:
        volume, kind = self.volume, self.volume.page_kind
        if all(volume.page(z).data_offset is not None for z in self._range(box)):
            yield from self._whole_pages(box, kind)
        else:
            pages = ((z, volume.page(z)) for z in self._range(box))
            yield from segment_blocks(volume.source, pages, box, kind)

    @staticmethod
    def _range(box: Box) -> range:
        return range(box.start_zyx[0], box.stop_zyx[0])

    def _whole_pages(self, box: Box, kind: PageKind) -> Iterator[Block]:
        """Pages without compression, each in one piece."""
        source = self.volume.source
        for item, view in read_spans(source, self._spans(box, kind)):
            if isinstance(item, Box):
                yield rows_block(item, view, kind.stored, kind.width)
            else:
                self.volume.pages.verify(item, view)

    def _spans(self, box: Box, kind: PageKind) -> Iterator[Span[Box | int]]:
        """Rows to read and, as page numbers, directories to verify; in file order."""
        volume = self.volume
        for z in self._range(box):
            data_offset = volume.data_offset(z) or 0
            spans: list[Span[Box | int]] = list(
                row_spans(
                    Box((z, *box.start_zyx[1:]), (z + 1, *box.stop_zyx[1:])),
                    offset_of=lambda _, offset=data_offset: offset,  # type: ignore[misc]
                    width=kind.width,
                    itemsize=kind.stored.itemsize,
                    range_bytes=volume.source.range_bytes,
                )
            )
            index = volume.planes[z]
            if not volume.stacked and volume.pages.unverified(index):
                start, stop = volume.page(z).ifd_span
                directory: Span[Box | int] = Span(start, stop - start, index)
                spans.insert(0 if start < data_offset else len(spans), directory)
            yield from spans
