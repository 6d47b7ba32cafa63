"""Chunks of a Zarr v3 array, out of objects of their own or out of shards."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from lib.bytesource.neighbours import Place, SharedReads
from lib.bytesource.tree import Tree, join
from lib.compression import Encoded
from lib.errors import BadAnswerError, FormatError
from lib.formats.chunked import TreeReader, check_listed, shard_gone
from lib.formats.zarr.axes import AxisMap, array_index, to_zyx
from lib.formats.zarr.v3_array import ArrayV3, Sharding
from lib.geometry import Box, ShapeZYX

_ABSENT = 2**64 - 1
_INDEXES = 256  # of shards, kept at once: some 8 KiB each


class Zarr3Reader(TreeReader):
    """Reads a box of one array. Thread-safe.

    Parameters
    ----------
    axes
        Which of the array's axes are z, y, x, and what is taken of the others.
    """

    def __init__(
        self,
        tree: Tree,
        path: str,
        array: ArrayV3,
        axes: AxisMap,
        box: Box,
        holes: frozenset[ShapeZYX] | None = frozenset(),
    ) -> None:
        super().__init__(
            tree,
            path,
            holes,
            2 * math.prod(array.chunk) * array.stored.itemsize + 2**16,
            box,
            axes.pick_zyx(array.chunk),
            array.dtype,
            fill_value=array.fill_value,
            codec=array.codec,
            fits_shard=array.fits_shard
            and axes.plain
            and all(array.chunk[dim] == 1 for dim in axes.fixed),
        )
        self._array, self._axes = array, axes
        self._indexes = SharedReads(self._read_index, _INDEXES)
        self.sharded = array.sharding is not None

    def chunk_key(self, index_zyx: ShapeZYX) -> str:
        return self._array.key(array_index(self._axes, index_zyx, self._array.chunk))

    def encoded_chunk(self, index_zyx: ShapeZYX) -> Encoded | None:
        if not self.sharded:
            return super().encoded_chunk(index_zyx)
        key, inner = self.place(index_zyx)
        if self._holes is not None and index_zyx in self._holes and self._tree.listing_proves:
            return None
        table = self._indexes.get(key)
        check_listed(self._tree, key, index_zyx, there=table is not None, holes=self._holes)
        if table is None or table[inner, 0] == table[inner, 1] == _ABSENT:
            return None
        start, length = (int(n) for n in table[inner])
        if not 0 < length <= self._most:
            raise FormatError(
                f"the index of a shard says {length} bytes for one chunk",
                location=f"{self._tree.uri}/{key}",
            )
        return self._in_shard(key, index_zyx, (start, length), partial(_entry, table))

    def _decode(self, encoded: Encoded, index_zyx: ShapeZYX) -> NDArray[Any]:
        return to_zyx(self._array.decode(encoded), self._axes, self._array.chunk)

    def place(self, index_zyx: ShapeZYX) -> tuple[str, int]:
        """Key of the shard of a chunk, and the chunk's place in its index."""
        array = self._array
        whole = array_index(self._axes, index_zyx, array.chunk)
        ratio = [g // c for g, c in zip(array.grid_chunk, array.chunk, strict=True)]
        shard = tuple(i // r for i, r in zip(whole, ratio, strict=True))
        inner = tuple(i % r for i, r in zip(whole, ratio, strict=True))
        return join(self._path, array.key(shard)), int(np.ravel_multi_index(inner, ratio))

    def _read_index(self, key: str) -> NDArray[np.uint64] | None:
        """Offset and length of each inner chunk of a shard; None where the shard is absent."""
        sharding = self._array.sharding
        assert sharding is not None
        known = self._tree.head(key)
        if known is None:
            return None
        if known.size is None:
            where = f"{self._tree.uri}/{key}"
            raise BadAnswerError("the store does not say how large a shard is", location=where)
        return self._table(key, (0, known.size), self._array.grid_chunk, sharding)

    def _table(
        self, key: str, at: Place, shape: tuple[int, ...], sharding: Sharding
    ) -> NDArray[np.uint64]:
        """The same of a shard that is a part of an object; offsets count from the object's begin.

        The chunks of shards inside it stand in C order of their own grid over the whole of it.
        """
        grid = [n // c for n, c in zip(shape, sharding.inner, strict=True)]
        table = self._stored_table(key, at, math.prod(grid), sharding)
        nested = sharding.nested
        if nested is None:
            return table
        inner = [n // c for n, c in zip(sharding.inner, nested.inner, strict=True)]
        whole = np.full((len(table), math.prod(inner), 2), _ABSENT, np.uint64)
        for number in np.flatnonzero(table[:, 0] != _ABSENT):
            start, length = (int(n) for n in table[number])
            whole[number] = self._table(key, (start, length), sharding.inner, nested)
        dims = len(grid)
        order = [
            axis for pair in zip(range(dims), range(dims, 2 * dims), strict=True) for axis in pair
        ]
        return whole.reshape(*grid, *inner, 2).transpose(*order, 2 * dims).reshape(-1, 2)

    def _stored_table(
        self, key: str, at: Place, cells: int, sharding: Sharding
    ) -> NDArray[np.uint64]:
        length = 16 * cells + (4 if sharding.index_crc32c else 0)
        where, (begin, size) = f"{self._tree.uri}/{key}", at
        if size < length:
            raise FormatError(
                f"a shard of {size} bytes cannot hold its index of {length}", location=where
            )
        first = begin + (size - length if sharding.index_at_end else 0)
        data = self._tree.get_range(key, first, length)
        if data is None:
            raise shard_gone(self._tree, key)
        view = memoryview(data)
        if sharding.index_crc32c:
            stated = int.from_bytes(view[-4:], "little")
            if google_crc32c.value(bytes(view[:-4])) != stated:
                raise FormatError("the index of a shard does not fit its checksum", location=where)
            view = view[:-4]
        table = np.frombuffer(view, sharding.index_dtype).reshape(cells, 2).astype(np.uint64)
        there = table[:, 0] != _ABSENT
        starts, lengths = table[there, 0], table[there, 1]
        stops = starts + lengths
        if (stops < starts).any() or (stops > size).any():
            raise FormatError("the index of a shard leads out of it", location=where)
        ranges = np.sort(np.stack([starts, stops], 1), axis=0)
        if (ranges[1:, 0] < ranges[:-1, 1]).any():
            raise FormatError("chunks of a shard overlap", location=where)
        table[there, 0] += np.uint64(begin)
        return table


def _entry(table: NDArray[np.uint64], inner: Any) -> tuple[int, int] | None:
    """Offset and length of an inner chunk; None where its shard has none."""
    start, length = (int(n) for n in table[inner])
    return None if start == length == _ABSENT else (start, length)
