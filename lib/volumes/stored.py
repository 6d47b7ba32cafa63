"""Reading levels back from a store, chunk by chunk, with every checksum looked at.

Used to make the coarse levels, previews and deep verification without holding a level. zarr-python
stays the reference that tests read everything back with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.compression import decode_into, open_codec
from lib.errors import IntegrityError, NotFoundError
from lib.formats.base import Block, Layout, VolumeReader
from lib.geometry import Box, ShapeZYX
from lib.storage.base import Store
from lib.volumes.grid import ShardGrid, shard_key
from lib.volumes.shardfile import ABSENT, index_length, read_index


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
        table = self._index(f"{self._root}/{shard_key(self._level, index_zyx)}")
        return sum(int(table[slot, 0] == ABSENT) for slot, _ in self._grid.chunks_of(index_zyx))

    def _shard_blocks(self, shard: ShapeZYX, box: Box) -> Iterator[Block]:
        key = f"{self._root}/{shard_key(self._level, shard)}"
        table = self._index(key)
        wanted = [
            (slot, part, whole)
            for slot, chunk in self._grid.chunks_of(shard)
            if not (part := (whole := self._grid.chunk_box(chunk)).intersect(box)).empty
        ]
        voxels = np.empty(self._grid.chunk_zyx, self.dtype)
        for slot, part, whole in wanted:
            offset, length = int(table[slot, 0]), int(table[slot, 1])
            if table[slot, 0] == ABSENT:
                voxels.fill(self._fill)
            else:
                encoded = self._store.get_range(key, offset, length)
                try:
                    decode_into(self._codec, encoded, voxels)
                except Exception as error:
                    raise IntegrityError(
                        f"a stored chunk cannot be read: {error}",
                        location=key,
                        unit=f"chunk {slot}",
                    ) from error
            yield Block(part, voxels[part.slices(whole.start_zyx)])

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
