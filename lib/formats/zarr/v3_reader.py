"""Chunks of a Zarr v3 array, out of objects of their own or out of shards."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from lib.bytesource.tree import Tree, join
from lib.compression import Encoded
from lib.errors import FormatError, MacroscopeError, TransportError
from lib.formats.chunked import ChunkedReader
from lib.formats.zarr.axes import AxisMap
from lib.formats.zarr.v3_array import ArrayV3
from lib.geometry import Box, ShapeZYX

_ABSENT = 2**64 - 1
_INDEXES = 256  # of shards, kept at once: some 8 KiB each


class Zarr3Reader(ChunkedReader):
    """Reads a box of one array. Thread-safe.

    Parameters
    ----------
    path
        Key of the array in the tree.
    axes
        Which of the array's axes are z, y, x, and what is taken of the others.
    holes
        Chunks (z, y, x, in the array's own grid) that the store does not hold; None where it does
        not list: what it then proves to be absent is a hole.
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
        chunk = axes.pick_zyx(array.chunk)
        super().__init__(
            tree.ordered,
            box,
            chunk,
            array.dtype,
            fill_value=array.fill_value,
            codec=array.codec,
            fits_shard=array.fits_shard
            and axes.plain
            and all(array.chunk[dim] == 1 for dim in axes.fixed),
        )
        self._tree, self._path, self._array, self._axes = tree, path, array, axes
        self._holes = holes
        self._most = 2 * math.prod(array.chunk) * array.stored.itemsize + 2**16
        self._indexes: OrderedDict[str, NDArray[np.uint64] | None] = OrderedDict()
        self._lock = threading.Lock()

    def encoded_chunk(self, index_zyx: ShapeZYX) -> Encoded | None:
        """The stored bytes of a chunk; None where the array holds none.

        Raises
        ------
        TransportError
            The chunk, or its shard, was listed but is not there now.
        FormatError
            The index of its shard is damaged, or leads out of the shard.
        """
        if self._holes is not None and index_zyx in self._holes:
            return None
        whole = array_index(self._axes, index_zyx, self._array.chunk)
        if self._array.sharding is None:
            key = join(self._path, self._array.key(whole))
            data = self._tree.get(key, self._most)
        else:
            ratio = [g // c for g, c in zip(self._array.grid_chunk, self._array.chunk, strict=True)]
            shard = tuple(i // r for i, r in zip(whole, ratio, strict=True))
            inner = tuple(i % r for i, r in zip(whole, ratio, strict=True))
            key = join(self._path, self._array.key(shard))
            table = self._index(key)
            if table is not None:
                start, length = (int(n) for n in table[int(np.ravel_multi_index(inner, ratio))])
                if start == _ABSENT and length == _ABSENT:
                    return None
                self._check_entry(key, start, length)
                data = self._tree.get_range(key, start, length)
            else:
                data = None
        if data is None and self._holes is not None:
            raise TransportError(
                "a chunk that the archive lists is not there",
                location=f"{self._tree.uri}/{key}",
                unit=f"chunk {'/'.join(map(str, index_zyx))}",
            )
        return data

    def decoded_chunk(self, encoded: Encoded, index_zyx: ShapeZYX) -> NDArray[Any]:
        """Voxels of a stored chunk, shape ``chunk_zyx``.

        Raises
        ------
        FormatError
            The bytes are damaged, or hold another number of voxels.
        """
        try:
            voxels = self._array.decode(encoded)
        except MacroscopeError as error:
            name = "/".join(map(str, index_zyx))
            where = f"{self._tree.uri}/{self._path}"
            raise error.located(location=where, unit=f"chunk {name}") from None
        return to_zyx(voxels, self._axes, self._array.chunk)

    def _index(self, key: str) -> NDArray[np.uint64] | None:
        """Offset and length of each inner chunk of a shard; None where the shard is absent."""
        with self._lock:
            if key in self._indexes:
                self._indexes.move_to_end(key)
                return self._indexes[key]
        table = self._read_index(key)
        with self._lock:
            self._indexes[key] = table
            while len(self._indexes) > _INDEXES:
                self._indexes.popitem(last=False)
        return table

    def _read_index(self, key: str) -> NDArray[np.uint64] | None:
        sharding = self._array.sharding
        assert sharding is not None
        cells = math.prod(self._array.grid_chunk) // math.prod(sharding.inner)
        length = 16 * cells + (4 if sharding.index_crc32c else 0)
        where = f"{self._tree.uri}/{key}"
        known = self._tree.head(key)
        if known is None:
            return None
        if known.size is None or known.size < length:
            raise FormatError(
                f"a shard of {known.size} bytes cannot hold its index of {length}", location=where
            )
        data = self._tree.get_range(
            key, known.size - length if sharding.index_at_end else 0, length
        )
        if data is None:
            raise TransportError("a shard went away while it was read", location=where)
        view = memoryview(data)
        if sharding.index_crc32c:
            stated = int.from_bytes(view[-4:], "little")
            if google_crc32c.value(bytes(view[:-4])) != stated:
                raise FormatError("the index of a shard does not fit its checksum", location=where)
            view = view[:-4]
        table = np.frombuffer(view, "<u8").reshape(cells, 2).astype(np.uint64)
        there = table[:, 0] != _ABSENT
        starts, lengths = table[there, 0], table[there, 1]
        stops = starts + lengths
        if (stops < starts).any() or (stops > known.size).any():
            raise FormatError("the index of a shard leads out of it", location=where)
        ranges = np.sort(np.stack([starts, stops], 1), axis=0)
        if (ranges[1:, 0] < ranges[:-1, 1]).any():
            raise FormatError("chunks of a shard overlap", location=where)
        return table

    def _check_entry(self, key: str, start: int, length: int) -> None:
        if not 0 < length <= self._most:
            raise FormatError(
                f"the index of a shard says {length} bytes for one chunk",
                location=f"{self._tree.uri}/{key}",
            )


def array_index(axes: AxisMap, index_zyx: ShapeZYX, chunk: tuple[int, ...]) -> tuple[int, ...]:
    """Index of a chunk in the array's own axes."""
    index = [0] * len(chunk)
    for dim, at in axes.fixed.items():
        index[dim] = at // chunk[dim]
    for place, axis in enumerate(axes.dims_zyx):
        if axis is not None:
            index[axis] = index_zyx[place]
    return tuple(index)


def to_zyx(voxels: NDArray[Any], axes: AxisMap, chunk: tuple[int, ...]) -> NDArray[Any]:
    """A chunk with the array's axes, as z, y, x at the chosen place of the other axes."""
    for dim in sorted(axes.fixed, reverse=True):
        voxels = np.take(voxels, axes.fixed[dim] % chunk[dim], axis=dim)
    left = sorted(dim for dim in axes.dims_zyx if dim is not None)
    there = [left.index(dim) for dim in axes.dims_zyx if dim is not None]
    voxels = voxels.transpose(there)
    for place, axis in enumerate(axes.dims_zyx):
        if axis is None:
            voxels = np.expand_dims(voxels, place)
    return np.ascontiguousarray(voxels)
