"""The block pass: voxels from any reader are gathered into shards, counted, and encoded."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.base import BufferPool
from lib.compression import encode_chunk, open_codec
from lib.concurrency import cancel as stopping
from lib.concurrency.bounded_map import CountGate, Crew, InOrderGate, run_each
from lib.errors import FormatError
from lib.formats.base import Block, VolumeReader
from lib.geometry import Box, ShapeZYX
from lib.storage.base import Store
from lib.volumes.job import ConcurrencyLimits, VolumeJob
from lib.volumes.ledger import LedgerEntry
from lib.volumes.shardwriter import ShardWriter, padded_chunk


def convert_blocks(
    job: VolumeJob,
    reader: VolumeReader,
    store: Store,
    shard_indices: Iterable[ShapeZYX],
    *,
    limits: ConcurrencyLimits,
    done: Callable[[LedgerEntry], None],
) -> None:
    """Gather, encode and write shards, several at once; see `lib.volumes.engine.convert`."""
    buffers = Buffers(job.grid.shard_zyx, job.dtype)
    shard_indices = list(shard_indices)
    # what has been read is encoded while the next shard is read: connections need not wait for that
    reading: InOrderGate | CountGate = CountGate(limits.shards)
    at_once, failed = limits.shards + 1, None
    if not reader.layout.random_access:
        # a single connection reads on where it is
        several = limits.connections > 1
        idle = limits.idle if several else None
        reading = in_order = InOrderGate(shard_indices, overlapping=several, idle=idle)
        failed = in_order.open
        at_once = max(limits.shards, 2) + (idle is not None)

    encoders: Crew[None] = Crew(limits.workers, "encode", abandons=False)
    try:

        def make(shard_index: ShapeZYX) -> None:
            box = job.box_of(shard_index)
            with contextlib.ExitStack() as lent:
                with reading.turn(shard_index) as arrived:
                    voxels, missing = lent.enter_context(_gathered(reader, box, buffers, arrived))
                entry = _encode(job, store, shard_index, voxels, missing, encoders, limits.workers)
            done(entry)  # the reader has said nothing more, no error either

        run_each(shard_indices, make, at_once=at_once, failed=failed)
    finally:
        encoders.dismiss()


def _encode(
    job: VolumeJob,
    store: Store,
    shard_index: ShapeZYX,
    voxels: NDArray[Any],
    missing: list[str],
    encoders: Crew[None],
    at_once: int,
) -> LedgerEntry:
    """Compress one gathered shard with all encoders, then write it."""
    writer = ShardWriter(job, store, shard_index)
    for name in missing:
        writer.add_missing(name)
    codec, origin, grid = open_codec(job.codec), writer.box.start_zyx, job.grid
    todo = deque(writer.chunks)

    def some() -> None:
        scratch = np.empty(grid.chunk_zyx, job.dtype)
        while True:
            try:
                slot, index = todo.popleft()
            except IndexError:  # all chunks are taken
                return
            stopping.check()
            box = grid.chunk_box(index)
            chunk = padded_chunk(voxels, origin, box, job.fill_value, scratch)
            valid = chunk[tuple(slice(0, n) for n in box.shape_zyx)]
            writer.add(slot, box, valid, encode_chunk(codec, chunk))

    futures = [encoders.begin(some) for _ in range(at_once)]
    try:
        try:
            for future in futures:
                future.result()
        finally:
            todo.clear()
            wait(futures)  # nobody may still read the buffer when it is lent again
        return writer.finish()
    finally:
        writer.abandon()


@contextmanager
def _gathered(
    reader: VolumeReader, box: Box, buffers: Buffers, on_block: Callable[[float], None]
) -> Iterator[tuple[NDArray[Any], list[str]]]:
    """The voxels of a box (its shape, the reader's dtype) and its missing pieces; see `gather`.

    A block that is the whole box is lent as it is, without a copy: until the next one is asked for
    it is valid.
    """
    blocks = iter(reader.blocks(box))
    first = next(blocks, None)
    whole = first is not None and first.box == box and first.data.dtype == buffers.dtype
    if first is None or not (whole and reader.layout.random_access):
        with buffers.lend(box.shape_zyx) as voxels:
            every = blocks if first is None else itertools.chain((first,), blocks)
            yield voxels, gather(every, box, voxels, on_block)
        return
    stopping.check()
    if first.data.shape != box.shape_zyx:
        raise FormatError(f"the reader gave {first.data.shape} voxels when asked for {box}")
    on_block(1.0)
    yield first.data, list(first.missing)
    if next(blocks, None) is not None:
        raise FormatError(f"the reader gave more than {box} when asked for it")


def gather(
    blocks: Iterable[Block],
    box: Box,
    voxels: NDArray[Any],
    on_block: Callable[[float], None] | None = None,
) -> list[str]:
    """Copy a reader's blocks into `voxels` (shape of `box`), accounting for every voxel.

    Parameters
    ----------
    on_block
        Told after each block which share of the voxels has arrived.

    Returns
    -------
    list of str
        Pieces inside `box` that the archive does not hold.

    Raises
    ------
    FormatError
        The blocks do not tile the box: the reader lost or repeated something.
    """
    missing: list[str] = []
    arrived, corners = 0, set()
    for block in blocks:
        stopping.check()
        if not box.contains(block.box) or block.data.shape != block.box.shape_zyx:
            raise FormatError(f"the reader gave {block.box} when asked for {box}")
        if block.box.start_zyx in corners:
            raise FormatError(f"the reader gave {block.box} twice when asked for {box}")
        corners.add(block.box.start_zyx)
        voxels[block.box.slices(box.start_zyx)] = block.data
        arrived += block.box.voxels
        missing.extend(block.missing)
        if on_block is not None:
            on_block(arrived / box.voxels)
    if arrived != box.voxels:
        raise FormatError(f"{arrived} of {box.voxels} voxels of {box} arrived")
    return missing


class Buffers:
    """Shard-sized arrays that are lent and used again."""

    def __init__(self, shape_zyx: ShapeZYX, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._pool = BufferPool(math.prod(shape_zyx) * dtype.itemsize)

    @contextmanager
    def lend(self, shape_zyx: ShapeZYX) -> Iterator[NDArray[Any]]:
        """An array of `shape_zyx` with undefined content."""
        view = self._pool.take(math.prod(shape_zyx) * self.dtype.itemsize)
        try:
            yield np.frombuffer(view, self.dtype).reshape(shape_zyx)
        finally:
            self._pool.give(view)
