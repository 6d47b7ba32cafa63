"""Reading levels back from a store, chunk by chunk, with every checksum looked at.

Used to make the coarse levels, previews and deep verification without holding a level. zarr-python
stays the reference that tests read everything back with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.neighbours import SharedReads
from lib.compression import decode_into, open_codec
from lib.errors import IntegrityError, NotFoundError
from lib.formats.base import Block, Layout, VolumeReader
from lib.geometry import Box, ShapeZYX
from lib.storage.base import Store
from lib.volumes.grid import ShardGrid, shard_key
from lib.volumes.shardfile import ABSENT, index_length, read_index

_INDEXES = 16
_READ_BYTES = 8 * 2**20


class StoredLevel(VolumeReader):
    """One level of a sharded OME-Zarr as a `lib.formats.base.VolumeReader`.

    Parameters
    ----------
    root
        Key of the OME-Zarr in the store (under its staging name while it is being made).
    """

    def __init__(
        self,
        store: Store,
        root: str,
        level: int,
        grid: ShardGrid,
        dtype: np.dtype[Any],
        codec: dict[str, Any],
        fill_value: int | float = 0,
    ) -> None:
        self.shape_zyx = grid.shape_zyx
        self.dtype = dtype
        self.layout = Layout(grid.chunk_zyx)
        self._store, self._root, self._level, self._grid = store, root, level, grid
        self._codec = open_codec(codec)
        self._fill = fill_value
        self._indexes = SharedReads(self._index, _INDEXES)

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield the parts of `box`, chunk by chunk.

        Raises
        ------
        IntegrityError
            A shard is absent or damaged.
        """
        for shard in box.cells(self._grid.shard_zyx).indices():
            yield from self._shard_blocks(shard, box)

    def read(self, box: Box) -> NDArray[Any]:
        """The voxels of a box, shape of the box."""
        voxels = np.empty(box.shape_zyx, self.dtype)
        for block in self.blocks(box):
            voxels[block.box.slices(box.start_zyx)] = block.data
        return voxels

    def absent_chunks(self, index_zyx: ShapeZYX) -> int:
        """How many chunks of a shard its index says are not there: they read as the fill value.

        Raises
        ------
        IntegrityError
            The shard is absent or damaged.
        """
        table = self._indexes.get(f"{self._root}/{shard_key(self._level, index_zyx)}")
        return sum(int(table[slot, 0] == ABSENT) for slot, _ in self._grid.chunks_of(index_zyx))

    def _shard_blocks(self, shard: ShapeZYX, box: Box) -> Iterator[Block]:
        key = f"{self._root}/{shard_key(self._level, shard)}"
        table = self._indexes.get(key)
        chunks = [*self._grid.chunks_within(shard, box)]
        voxels = np.empty(self._grid.chunk_zyx, self.dtype)
        encoded = self._encoded(key, [slot for slot, _ in chunks], table)
        for (slot, chunk), data in zip(chunks, encoded, strict=True):
            whole = self._grid.chunk_box(chunk)
            part = whole.intersect(box)
            if data is None:
                voxels.fill(self._fill)
            else:
                try:
                    decode_into(self._codec, data, voxels)
                except Exception as error:
                    raise IntegrityError(
                        f"a stored chunk cannot be read: {error}",
                        location=key,
                        unit=f"chunk {slot}",
                    ) from error
            yield Block(part, voxels[part.slices(whole.start_zyx)])

    def _encoded(
        self, key: str, slots: list[int], table: NDArray[np.uint64]
    ) -> Iterator[memoryview | None]:
        """Encoded chunks, None of one that is not there; neighbours in the file by one request."""
        entries = [(int(table[slot, 0]), int(table[slot, 1])) for slot in slots]
        at = 0
        while at < len(entries):
            offset, length = entries[at]
            if offset == ABSENT:
                yield None
                at += 1
                continue
            count = 1
            while (
                at + count < len(entries)
                and entries[at + count][0] == offset + length
                and length + entries[at + count][1] <= _READ_BYTES
            ):
                length += entries[at + count][1]
                count += 1
            run = memoryview(self._store.get_range(key, offset, length))
            for start, size in entries[at : at + count]:
                yield run[start - offset : start - offset + size]
            at += count

    def _index(self, key: str) -> NDArray[np.uint64]:
        size = self._store.size(key)
        length = index_length(self._grid.chunks_per_shard_zyx)
        if size is None or size < length:
            raise IntegrityError("a shard is not there, or cut short", location=key)
        try:
            trailer = self._store.get_range(key, size - length, length)
        except NotFoundError as error:
            raise IntegrityError("a shard is not there", location=key) from error
        return read_index(trailer, self._grid.chunks_per_shard_zyx, size, key)
