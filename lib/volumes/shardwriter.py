"""One shard on its way into the store: its chunks, its statistics, its levels, its ledger entry."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.compression import encode_chunk, open_codec
from lib.geometry import Box, ShapeZYX, floor_divide, subtract
from lib.storage.base import Buffer, Store
from lib.volumes import kernels
from lib.volumes.grid import Level, shard_key
from lib.volumes.job import VolumeJob
from lib.volumes.label_ids import IdsAccumulator, ids_of, pack, require_among
from lib.volumes.ledger import LedgerEntry, StoredFile, pack_statistics
from lib.volumes.shardfile import ShardStream
from lib.volumes.statistics import StatisticsAccumulator


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


def put_shard(
    store: Store,
    staging: str,
    level: Level,
    index_zyx: ShapeZYX,
    array: NDArray[Any],
    job: VolumeJob,
) -> StoredFile:
    """Compress a shard's voxels (`array`, shape of its box) chunk by chunk into the store."""
    grid, codec = level.grid, open_codec(job.codec)
    origin, scratch = grid.shard_box(index_zyx).start_zyx, np.empty(grid.chunk_zyx, array.dtype)
    chunks = list(grid.chunks_of(index_zyx))
    stream = _open_shard(store, staging, level, index_zyx, chunks)
    try:
        for slot, chunk_index in chunks:
            box = grid.chunk_box(chunk_index)
            chunk = padded_chunk(array, origin, box, job.fill_value, scratch)
            stream.add(slot, encode_chunk(codec, chunk))
        return _stored_file(level, index_zyx, stream)
    finally:
        stream.abandon()


def _open_shard(
    store: Store,
    staging: str,
    level: Level,
    index_zyx: ShapeZYX,
    chunks: Sequence[tuple[int, ShapeZYX]],
) -> ShardStream:
    draft = store.draft(f"{staging}/{shard_key(level.index, index_zyx)}")
    return ShardStream(draft, [slot for slot, _ in chunks], level.grid.chunks_per_shard_zyx)


def _stored_file(level: Level, index_zyx: ShapeZYX, stream: ShardStream) -> StoredFile:
    """Seal a shard; what the ledger says of it."""
    size, sha256 = stream.seal()
    return StoredFile(key=shard_key(level.index, index_zyx), size=size, sha256=sha256)


class ShardWriter:
    """Writes one level-0 shard, whose chunks come in any order, then the levels made with it.

    `add` is thread-safe; `finish` is called once, after the last chunk; `abandon` ends it anyway.
    """

    def __init__(self, job: VolumeJob, store: Store, index_zyx: ShapeZYX) -> None:
        self.job = job
        self.index_zyx = index_zyx
        self.box = job.grid.shard_box(index_zyx)
        self._store = store
        self._staging = store.staging_key(job.final_key)
        self.chunks = list(job.grid.chunks_of(index_zyx))
        """Slot and chunk index of all that are to be added."""
        self._stream = _open_shard(store, self._staging, job.levels[0], index_zyx, self.chunks)
        self._statistics = StatisticsAccumulator(job.dtype)
        self._ids = IdsAccumulator() if job.plan.labels is not None else None
        self._missing: list[str] = []
        self._lock = threading.Lock()
        self._next = job.levels[1] if len(job.levels) > 1 and job.levels[1].in_pass else None
        self._half: NDArray[Any] | None = None
        if self._next is not None:
            shape = kernels.pooled_shape(self.box.shape_zyx, self._next.factor_zyx)
            self._half = np.empty(shape, job.dtype)

    def add(self, slot: int, box: Box, voxels: NDArray[Any], encoded: Buffer | None) -> None:
        """Take one chunk: its voxels without padding, and its compressed form (None: a hole)."""
        self._stream.add(slot, encoded)
        self._statistics.add(slot, voxels)
        if self._ids is not None:
            self._ids.add(voxels)
        if self._next is not None and self._half is not None:
            by = self._next.factor_zyx
            start = floor_divide(subtract(box.start_zyx, self.box.start_zyx), by)
            shape = kernels.pooled_shape(box.shape_zyx, by)
            target = self._half[Box.whole(shape).shifted(start).slices()]
            kernels.pool(voxels, by, target, labels=self.job.plan.labels)

    def add_missing(self, name: str) -> None:
        """Note a piece that the archive does not hold."""
        with self._lock:
            self._missing.append(name)

    def finish(self) -> LedgerEntry:
        """Seal the shard, then write the levels made from it; returns the ledger's entry."""
        files = [_stored_file(self.job.levels[0], self.index_zyx, self._stream)]
        array = self._half
        ids, background = self._ids.result() if self._ids is not None else (None, 0)
        packed = {0: pack(ids)}
        for level in self.job.levels[1:]:
            if array is None or not level.in_pass:
                break
            if level is not self._next:
                array = self._pooled(array, level)
            files.append(
                put_shard(self._store, self._staging, level, self.index_zyx, array, self.job)
            )
            if self._ids is not None:
                finer, ids = ids, ids_of(array)
                require_among(ids, finer, level.index, self.job.final_key)
                packed[level.index] = pack(ids)
        return LedgerEntry(
            fingerprint=self.job.fingerprint,
            level=0,
            index_zyx=self.index_zyx,
            files=tuple(files),
            statistics=pack_statistics(self._statistics.result()),
            missing_chunks=tuple(sorted(self._missing)),
            label_ids=packed if self._ids is not None else None,
            background=background,
        )

    def _pooled(self, array: NDArray[Any], level: Level) -> NDArray[Any]:
        target = np.empty(kernels.pooled_shape(array.shape, level.factor_zyx), array.dtype)
        kernels.pool(array, level.factor_zyx, target, labels=self.job.plan.labels)
        return target

    def abandon(self) -> None:
        """Forget what was written; after `finish` this does nothing."""
        self._stream.abandon()
