"""The coarse levels that no single shard can make: each from the finer level beside it.

They begin where the levels made inside the shards end, so they read a small fraction of the
volume, one row of chunks at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.concurrency.bounded_map import run_each
from lib.geometry import Box, ShapeZYX, minimum, multiply
from lib.storage.base import Store
from lib.volumes import kernels
from lib.volumes.grid import Level
from lib.volumes.job import ConcurrencyLimits, VolumeJob
from lib.volumes.label_ids import ids_of, pack
from lib.volumes.ledger import Ledger, LedgerEntry
from lib.volumes.rechunk import gather
from lib.volumes.shardfile import StoredLevel
from lib.volumes.shardwriter import put_shard


def make_coarse_levels(
    job: VolumeJob,
    store: Store,
    *,
    limits: ConcurrencyLimits,
    on_shard: Callable[[LedgerEntry], None] = lambda entry: None,
) -> None:
    """Make every level that is not made in the pass over level 0, finest first.

    Level 0 must be complete. Finished shards are recognised from the ledger.
    """
    ledger = Ledger(store, job)
    for finer, level in zip(job.levels, job.levels[1:], strict=False):
        if level.in_pass:
            continue

        def make(index: ShapeZYX, level: Level = level, finer: Level = finer) -> None:
            entry = _make_shard(job, store, level, finer, index)
            ledger.add(entry)
            on_shard(entry)

        pending = ledger.pending(level.index, level.grid.shards())
        run_each(pending, make, at_once=min(limits.workers, limits.shards))


def _make_shard(
    job: VolumeJob, store: Store, level: Level, finer: Level, index: ShapeZYX
) -> LedgerEntry:
    staging = store.staging_key(job.final_key)
    pooled = pool_shard(job, store, staging, level, finer, index)
    return LedgerEntry(
        fingerprint=job.fingerprint,
        level=level.index,
        index_zyx=index,
        files=(put_shard(store, staging, level, index, pooled, job),),
        label_ids={level.index: pack(ids_of(pooled))} if job.plan.labels is not None else None,
    )


def pool_shard(
    job: VolumeJob, store: Store, root: str, level: Level, finer: Level, index: ShapeZYX
) -> NDArray[Any]:
    """The voxels of one shard, shape of its box, pooled from the finer level below `root`.

    Raises
    ------
    IntegrityError
        A shard of the finer level is absent or damaged.
    """
    box = level.grid.shard_box(index)
    reader = StoredLevel(store, root, finer.index, finer.grid, job.dtype, job.codec, job.fill_value)
    pooled = np.empty(box.shape_zyx, job.dtype)
    chunk_z, chunk_y, _ = level.grid.chunk_zyx
    for row in box.tiles((chunk_z, chunk_y, box.shape_zyx[2])):
        start, stop = (multiply(at, level.factor_zyx) for at in (row.start_zyx, row.stop_zyx))
        source_box = Box(start, minimum(stop, finer.grid.shape_zyx))
        source = np.empty(source_box.shape_zyx, job.dtype)
        gather(reader.blocks(source_box), source_box, source)
        target = pooled[row.slices(box.start_zyx)]
        kernels.pool(source, level.factor_zyx, target, labels=job.plan.labels)
    return pooled
