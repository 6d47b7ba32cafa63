"""One shard on its way into the store: its chunks, its statistics, its levels, its ledger entry."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numpy.typing import NDArray

from lib.compression import encode_chunk, open_codec
from lib.geometry import Box, ShapeZYX
from lib.storage.base import Buffer, Store
from lib.volumes import kernels
from lib.volumes.grid import ShardGrid, shard_key
from lib.volumes.job import VolumeJob
from lib.volumes.ledger import Entry, StoredFile
from lib.volumes.levels import Level
from lib.volumes.shardfile import SealedShard, seal
from lib.volumes.tally import Tally


def padded_chunk(
    array: NDArray[Any],
    origin_zyx: ShapeZYX,
    box: Box,
    fill: int | float,
    scratch: NDArray[Any],
) -> NDArray[Any]:
    """A whole, C-contiguous chunk cut from `array`; what lies past the edge is the fill value.

    Parameters
    ----------
    scratch
        Of the chunk's shape and dtype, C-contiguous; it is what is returned.
    """
    part = array[box.slices(origin_zyx)]
    if part.shape != scratch.shape:
        scratch.fill(fill)
    scratch[tuple(slice(0, n) for n in part.shape)] = part
    return scratch


def encode_shard(
    array: NDArray[Any],
    grid: ShardGrid,
    index_zyx: ShapeZYX,
    codec: Codec | None,
    fill: int | float,
) -> SealedShard:
    """Compress a shard's voxels (`array`, shape of its box) chunk by chunk, and join them."""
    origin = grid.shard_box(index_zyx).start_zyx
    slots: list[Buffer | None] = [None] * int(np.prod(grid.chunks_per_shard_zyx))
    scratch = np.empty(grid.chunk_zyx, array.dtype)
    for slot, chunk_index in grid.chunks_of(index_zyx):
        box = grid.chunk_box(chunk_index)
        slots[slot] = encode_chunk(codec, padded_chunk(array, origin, box, fill, scratch))
    return seal(slots)


class ShardWriter:
    """Takes the chunks of one level-0 shard in any order, then writes the shard and its levels.

    Thread-safe up to `finish`, which is called once, after the last chunk.
    """

    def __init__(self, job: VolumeJob, store: Store, index_zyx: ShapeZYX) -> None:
        self.job = job
        self.index_zyx = index_zyx
        self.box = job.grid.shard_box(index_zyx)
        self._store = store
        self._staging = store.staging_key(job.final_key)
        self._encoded: list[Buffer | None] = [None] * int(np.prod(job.grid.chunks_per_shard_zyx))
        self._tally = Tally(job.dtype)
        self._missing: list[str] = []
        self._lock = threading.Lock()
        self._next = job.levels[1] if len(job.levels) > 1 and job.levels[1].in_pass else None
        self._half: NDArray[Any] | None = None
        if self._next is not None:
            shape = kernels.pooled_shape(self.box.shape_zyx, self._next.factor_zyx)
            self._half = np.empty(shape, job.dtype)

    def add(self, slot: int, box: Box, voxels: NDArray[Any], encoded: Buffer | None) -> None:
        """Take one chunk: its voxels without padding, and its compressed form (None: a hole)."""
        self._encoded[slot] = encoded
        self._tally.add(slot, voxels)
        if self._next is not None and self._half is not None:
            by = self._next.factor_zyx
            start = tuple(
                (a - o) // f for a, o, f in zip(box.start_zyx, self.box.start_zyx, by, strict=True)
            )
            shape = kernels.pooled_shape(box.shape_zyx, by)
            target = self._half[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))]
            kernels.pool(voxels, by, target, labels=self.job.plan.kind == "labels")

    def add_missing(self, name: str) -> None:
        """Note a piece that the archive does not hold."""
        with self._lock:
            self._missing.append(name)

    def finish(self) -> Entry:
        """Write the shard, then the levels made from it; returns the entry for the ledger."""
        files = [self._put(0, seal(self._encoded))]
        self._encoded = []
        array, codec = self._half, open_codec(self.job.codec)
        for level in self.job.levels[1:]:
            if array is None or not level.in_pass:
                break
            if level is not self._next:
                array = self._pooled(array, level)
            sealed = encode_shard(array, level.grid, self.index_zyx, codec, self.job.fill_value)
            files.append(self._put(level.index, sealed))
        return Entry(
            fingerprint=self.job.fingerprint,
            level=0,
            index_zyx=self.index_zyx,
            files=tuple(files),
            statistics=self._tally.result().to_json(),
            missing_chunks=tuple(sorted(self._missing)),
        )

    def _pooled(self, array: NDArray[Any], level: Level) -> NDArray[Any]:
        target = np.empty(kernels.pooled_shape(array.shape, level.factor_zyx), array.dtype)
        kernels.pool(array, level.factor_zyx, target, labels=self.job.plan.kind == "labels")
        return target

    def _put(self, level: int, sealed: SealedShard) -> StoredFile:
        key = shard_key(level, self.index_zyx)
        self._store.put(f"{self._staging}/{key}", sealed.buffers)
        return StoredFile(key=key, size=sealed.size, sha256=sealed.sha256)
