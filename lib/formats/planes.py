"""Uncompressed planes: rows of voxels that lie one after another in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.base import ByteSource, Span, read_spans
from lib.errors import OutOfBoundsError
from lib.formats.base import Block
from lib.geometry import Box, ShapeZYX


def check_box(box: Box, shape_zyx: ShapeZYX, name: str) -> None:
    """Raise `OutOfBoundsError` unless `box` lies inside a volume of `shape_zyx`."""
    if not box.empty and not Box.whole(shape_zyx).contains(box):
        raise OutOfBoundsError(
            f"the box {box} is not inside the volume {Box.whole(shape_zyx)}", location=name
        )


def native(view: memoryview, stored: np.dtype[Any]) -> NDArray[Any]:
    """`view` as voxels in native byte order and aligned; a copy only where that takes one."""
    voxels: NDArray[Any] = np.frombuffer(view, dtype=stored)
    if stored.isnative and voxels.flags.aligned:
        return voxels
    return voxels.astype(stored.newbyteorder("="))


def row_spans(
    box: Box, *, offset_of: Callable[[int], int], width: int, itemsize: int, range_bytes: int
) -> Iterator[Span[Box]]:
    """Whole rows of the planes that `box` crosses, in slices of at most one range.

    Each span's item is the box of voxels wanted out of those rows.
    """
    (z0, y0, x0), (z1, y1, x1) = box.start_zyx, box.stop_zyx
    row_bytes = width * itemsize
    step = max(1, range_bytes // row_bytes)
    for z in range(z0, z1):
        base = offset_of(z)
        for y in range(y0, y1, step):
            stop = min(y + step, y1)
            piece = Box((z, y, x0), (z + 1, stop, x1))
            yield Span(base + y * row_bytes, (stop - y) * row_bytes, piece)


def rows_block(piece: Box, view: memoryview, stored: np.dtype[Any], width: int) -> Block:
    """The voxels of `piece` out of the whole rows in `view`."""
    rows = native(view, stored).reshape(1, -1, width)
    return Block(piece, rows[:, :, piece.start_zyx[2] : piece.stop_zyx[2]])


def plane_blocks(
    source: ByteSource, box: Box, *, data_offset: int, shape_zyx: ShapeZYX, stored: np.dtype[Any]
) -> Iterator[Block]:
    """Blocks of a volume whose planes follow each other from `data_offset`, without gaps."""
    check_box(box, shape_zyx, source.name)
    if box.empty:
        return
    height, width = shape_zyx[1:]
    plane_bytes = height * width * stored.itemsize
    spans = row_spans(
        box,
        offset_of=lambda z: data_offset + z * plane_bytes,
        width=width,
        itemsize=stored.itemsize,
        range_bytes=source.range_bytes,
    )
    for piece, view in read_spans(source, spans):
        yield rows_block(piece, view, stored, width)
