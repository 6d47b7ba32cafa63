"""Blocks in, shards out: converting a batch of shards with everything overlapped.

Two passes lead from a source to shards. The chunk pass takes chunks one by one: it copies them
compressed as they are, or encodes them anew, and decodes each once for statistics and pyramid. The
block pass gathers voxels from any reader and
encodes them. Both hold only the shards in flight, both run alike in a thread, in a process and on
another host, because they share nothing but the store.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from functools import cache

from lib.formats.base import ChunkReader, VolumeReader
from lib.geometry import ShapeZYX
from lib.storage.base import Store
from lib.volumes import kernels
from lib.volumes.job import ConcurrencyLimits, VolumeJob
from lib.volumes.ledger import Ledger, LedgerEntry
from lib.volumes.npyfile import convert_npy
from lib.volumes.rechunk import convert_blocks
from lib.volumes.transcode import convert_chunks


def convert(
    job: VolumeJob,
    reader: VolumeReader,
    store: Store,
    shard_indices: Iterable[ShapeZYX],
    *,
    limits: ConcurrencyLimits | None = None,
    on_shard: Callable[[LedgerEntry], None] = lambda entry: None,
) -> list[LedgerEntry]:
    """Make the given shards of level 0, and the levels that are made with them.

    Each shard's ledger entry is written as soon as its files are in the store.

    Parameters
    ----------
    shard_indices
        Shard indices (z, y, x) in the order in which to make them.
    on_shard
        Called after each finished shard, from a worker thread.

    Raises
    ------
    MacroscopeError
        Whatever the reader or the store raises; finished shards stay in the ledger.
    StoppedError
        A stop was requested; checked between chunks.
    """
    _spare_what_stays()
    kernels.load_meanwhile(job.plan.dtype, labels=job.plan.kind == "labels")
    limits = limits or ConcurrencyLimits()
    ledger = Ledger(store, job)
    entries: list[LedgerEntry] = []

    def done(entry: LedgerEntry) -> None:
        ledger.add(entry)
        entries.append(entry)
        on_shard(entry)

    if job.output_format == "npy":
        convert_npy(job, reader, store, shard_indices, limits=limits, done=done)
    elif job.by_chunk and isinstance(reader, ChunkReader):
        convert_chunks(job, reader, store, shard_indices, limits=limits, done=done)
    else:
        convert_blocks(job, reader, store, shard_indices, limits=limits, done=done)
    return entries


@cache
def _spare_what_stays() -> None:
    """Modules and classes live as long as the process: the collector need not walk them again."""
    gc.freeze()
