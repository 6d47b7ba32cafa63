"""Boxes out of strips and tiles that are compressed or scattered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.base import ByteSource, Span, read_spans
from lib.errors import FormatError
from lib.formats.base import Block
from lib.formats.tiff.codecs import UNCOMPRESSED, decode
from lib.formats.tiff.page import Page, PageKind
from lib.geometry import Box

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
            needed = area.voxels * kind.stored.itemsize
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
