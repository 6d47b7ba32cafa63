"""Blocks of an N5 dataset as a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.tree import Tree
from lib.compression import Encoded, can_pass_through
from lib.errors import MacroscopeError
from lib.formats.chunked import TreeReader, unit_of
from lib.formats.n5.blocks import Dataset
from lib.formats.zarr.axes import AxisMap, array_index, to_zyx
from lib.geometry import Box, ShapeZYX, ceil_divide, multiply, subtract, zyx


class N5Reader(TreeReader):
    """Reads a box of one dataset. Thread-safe.

    Parameters
    ----------
    axes
        Which of the dataset's axes, slowest first, are z, y, x; what is taken of the others.
    mirrored
        Which of z, y, x are turned round. The grid then counts from the far end, where the last
        block may be cut: `box` is moved past what that block lacks.

    Attributes
    ----------
    box
        The part in voxels of the grid, from whose first block they count.
    """

    def __init__(
        self,
        tree: Tree,
        path: str,
        dataset: Dataset,
        axes: AxisMap,
        box: Box,
        holes: frozenset[ShapeZYX] | None,
        mirrored: tuple[bool, bool, bool] = (False, False, False),
    ) -> None:
        self._block = dataset.block[::-1]  # slowest first, as the axes are
        alone = all(self._block[dim] == 1 for dim in axes.fixed)
        # a payload is big-endian; single bytes have no order
        passes = dataset.stored.itemsize == 1 and axes.plain and alone and bool(dataset.codec)
        passes = passes and not any(mirrored)
        chunk, shape = axes.pick_zyx(self._block), axes.pick_zyx(dataset.shape[::-1])
        self._mirrored, self._counts = mirrored, ceil_divide(shape, chunk)
        lacking = subtract(multiply(self._counts, chunk), shape)
        self.box = box.shifted(zyx(n * turned for n, turned in zip(lacking, mirrored, strict=True)))
        super().__init__(
            tree,
            path,
            holes,
            2 * math.prod(self._block) * dataset.stored.itemsize + 2**16,
            self.box,
            chunk,
            dataset.dtype,
            codec=dataset.codec if passes else {},
            fits_shard=passes and can_pass_through(dataset.codec, None, "C", dataset.dtype.str),
        )
        self._dataset, self._axes = dataset, axes

    def chunk_key(self, index_zyx: ShapeZYX) -> str:
        return "/".join(map(str, self.stored_index(index_zyx)))

    def encoded_chunks(self, indices: Sequence[ShapeZYX]) -> Sequence[Encoded | None]:
        """Blocks as they are stored, or their payloads where those pass through."""
        blocks = super().encoded_chunks(indices)
        if not self.pass_through:
            return blocks
        return [self._as_chunk(*found) for found in zip(blocks, indices, strict=True)]

    def _as_chunk(self, block: Encoded | None, index_zyx: ShapeZYX) -> Encoded | None:
        if block is None:
            return None
        try:
            return self._dataset.as_chunk(block, self.stored_index(index_zyx))
        except MacroscopeError as error:
            raise error.located(location=self.where, unit=unit_of(index_zyx)) from None

    def _decode(self, encoded: Encoded, index_zyx: ShapeZYX) -> NDArray[Any]:
        """0 past the volume's end."""
        if self.pass_through:
            block = self._dataset.block
            lengths = b"".join(n.to_bytes(4, "big") for n in block)
            header = b"\0\0" + len(block).to_bytes(2, "big") + lengths
            encoded = header + bytes(encoded)
        voxels = self._dataset.decode(encoded, self.stored_index(index_zyx))
        turn = tuple(slice(None, None, -1 if turned else None) for turned in self._mirrored)
        return np.asarray(to_zyx(voxels, self._axes, self._block))[turn]

    def stored_index(self, index_zyx: ShapeZYX) -> tuple[int, ...]:
        """Index of a block as it is stored, in the format's own order, x first."""
        stored = zyx(
            count - 1 - index if turned else index
            for index, count, turned in zip(index_zyx, self._counts, self._mirrored, strict=True)
        )
        return array_index(self._axes, stored, self._block)[::-1]
