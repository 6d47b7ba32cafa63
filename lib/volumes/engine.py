"""Blocks in, shards out: converting a batch of shards with everything overlapped.

Two passes lead from a source to shards. The chunk pass takes chunks one by one: it copies them
compressed as they are, or encodes them anew, and decodes each once for statistics and pyramid. The
block pass gathers voxels from any reader and
encodes them. Both hold only the shards in flight, both run alike in a thread, in a process and on
another host, because they share nothing but the store.

What an earlier run left is proven before this run builds on it. A ledger entry says what was
written, not what is there now: a shard may have rotted, been cut, or been lost to a power cut and
come back as zeros. Reading the half-made volume once, where it is taken over, costs far less than
fetching it did, and happens only where a run was ended early.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable
from functools import partial

from lib.concurrency.bounded_map import run_ordered
from lib.errors import DestinationError, NotFoundError
from lib.formats.base import ChunkReader, VolumeReader
from lib.geometry import ShapeZYX
from lib.storage.base import Store
from lib.storage.digests import digest_of
from lib.volumes import kernels
from lib.volumes.job import ConcurrencyLimits, VolumeJob
from lib.volumes.ledger import Ledger, LedgerEntry
from lib.volumes.npyfile import convert_npy, rows_are_whole
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


_log = logging.getLogger(__name__)
_READS_AT_ONCE = 4


def take_over(job: VolumeJob, store: Store) -> list[LedgerEntry]:
    """Open the ledger, and forget every shard that is not what its entry says.

    Returns
    -------
    list of LedgerEntry
        What was there and is damaged; it is pending again.

    Raises
    ------
    DestinationError, StoppedError
    """
    ledger = Ledger(store, job)
    if not ledger.open():
        return []
    known, root = ledger.known(), ledger.root()
    published = root == job.final_key != store.staging_key(root)
    if published and not _are_all(job, known):
        # The half is gone, and what bears the final name is the volume of before.
        ledger.forget(known)
        return known
    whole = partial(_is_whole, job, store, root)
    proven = list(run_ordered((partial(whole, entry) for entry in known), _READS_AT_ONCE))
    damaged = [entry for entry, good in zip(known, proven, strict=True) if not good]
    if not damaged:
        return []
    _log.warning(
        "%s: %d of %d shards that an earlier run left are damaged, and are made again",
        job.final_key,
        len(damaged),
        len(known),
    )
    if published and any(proven):
        # Damaged before the record said complete: shards are written where the volume was made,
        # beside those that are good.
        store.publish_tree(root, store.staging_key(root))
    # who pooled a coarse shard may have read a finer one when it was damaged already
    ledger.forget([*damaged, *(entry for entry in known if entry.level > 0)])
    return damaged


def _is_whole(job: VolumeJob, store: Store, root: str, entry: LedgerEntry) -> bool:
    try:
        if job.output_format == "npy":
            size = entry.files[0].size
            return store.size(root) == size and rows_are_whole(job, store, root, entry)
        return all(
            store.size(f"{root}/{file.key}") == file.size
            and digest_of(store, f"{root}/{file.key}")[1] == file.sha256
            for file in entry.files
        )
    except NotFoundError:
        return False
    except DestinationError as error:
        # A block of the disk that cannot be read is damage; a store that is away is not.
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO:
            return False
        raise


def _are_all(job: VolumeJob, known: list[LedgerEntry]) -> bool:
    """Whether the ledger is that of a volume whose last shard was made."""
    wanted = {
        (level.index, index)
        for level in job.levels
        if level.index == 0 or not level.in_pass
        for index in level.grid.shards()
    }
    return {(entry.level, entry.index_zyx) for entry in known} >= wanted
