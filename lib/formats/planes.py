"""Uncompressed planes: rows of voxels that lie one after another in a file.

Readers in place of others: a crop of a volume, and a section that an archive does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.base import ByteSource, Span, read_spans
from lib.errors import OutOfBoundsError
from lib.formats.base import Block, Layout, VolumeReader
from lib.geometry import Box, ShapeZYX, minimum, subtract


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


class CroppedReader(VolumeReader):
    """A box of another reader's volume, as a volume of its own.

    Counts voxels from the corner of `box`; only what is asked for is read.
    """

    def __init__(self, reader: VolumeReader, box: Box, name: str) -> None:
        check_box(box, reader.shape_zyx, name)
        self._reader, self._box, self._name = reader, box, name
        self.shape_zyx = box.shape_zyx
        self.dtype = reader.dtype
        chunk = minimum(reader.layout.chunk_zyx, box.shape_zyx)
        self.layout = replace(reader.layout, chunk_zyx=chunk)

    def __exit__(self, *details: object) -> None:
        self._reader.__exit__(None, None, None)

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield blocks that tile `box`; see `VolumeReader`."""
        check_box(box, self.shape_zyx, self._name)
        corner = self._box.start_zyx
        back = subtract((0, 0, 0), corner)
        for block in self._reader.blocks(box.shifted(corner)):
            yield replace(block, box=block.box.shifted(back))


class MissingSection(VolumeReader):
    """Zeros in place of a section that an archive lacks, named as missing in every block."""

    def __init__(self, name: str, shape_yx: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._name = name
        self.shape_zyx = (1, *shape_yx)
        self.dtype = dtype
        self.layout = Layout((1, 1, shape_yx[1]), by_planes=True)

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield one block of zeros."""
        check_box(box, self.shape_zyx, self._name)
        if not box.empty:
            yield Block(box, np.zeros(box.shape_zyx, self.dtype), (self._name,))
