"""The chunk pass: chunks go from the source into shards one by one, unchanged where they can.

A Zarr v2 chunk whose shape, dtype, byte order and codec fit is, byte for byte, a valid inner chunk
of a Zarr v3 shard; one of zlib is so in the frame of gzip. Each is decoded once, for statistics and
the pyramid, and that decoding also proves it: a damaged chunk is a named error, never a copied one.
Where only the codec, the byte order or the order of axes does not fit, each is encoded anew.
"""

from __future__ import annotations

import contextvars
import math
import os
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numpy.typing import NDArray

from lib.compression import (
    Encoded,
    as_gzip,
    decode_into,
    encode_chunk,
    open_codec,
    read_by_all,
)
from lib.concurrency import cancel as stopping
from lib.concurrency.bounded_map import ComputeSlots
from lib.errors import MacroscopeError
from lib.formats.base import ChunkReader
from lib.geometry import ShapeZYX
from lib.storage.base import Store
from lib.volumes.job import ConcurrencyLimits, VolumeJob
from lib.volumes.ledger import LedgerEntry
from lib.volumes.shardwriter import ShardWriter, padded_chunk


def convert_chunks(
    job: VolumeJob,
    reader: ChunkReader,
    store: Store,
    shard_indices: Iterable[ShapeZYX],
    *,
    limits: ConcurrencyLimits,
    done: Callable[[LedgerEntry], None],
) -> None:
    """Fill shards chunk by chunk with many requests in flight; see `lib.volumes.engine.convert`."""
    run = _Run(job, reader, store, done, limits)
    try:
        for shard_index in shard_indices:
            run.wait_until(run.has_room)
            run.begin(shard_index)
        run.wait_until(run.is_done)
    finally:
        run.dismiss()


class _Shard:
    """One shard in the making: its writer, and how many chunks are still to come."""

    __slots__ = ("_left", "_lock", "writer")

    def __init__(self, writer: ShardWriter) -> None:
        self.writer = writer
        self._left, self._lock = len(writer.chunks), threading.Lock()

    def last(self, done: int) -> bool:
        """Count so many down; True for the last."""
        with self._lock:
            self._left -= done
            return self._left == 0


_Group = Sequence[tuple[int, ShapeZYX]]
"""Slot and index of chunks that lie side by side."""
_MOST_TOGETHER = 8
_AHEAD = 1  # shards beyond those in flight, so that nobody waits for the last chunks of one
_HELD_BYTES = 64 * 2**20


def _together(chunk_bytes: int, chunks: int, limits: ConcurrencyLimits) -> int:
    """How many chunks a thread takes at a time.

    A slot, a connection and a place in the queue for each of many small chunks cost as much as
    what is done with their voxels. Of large ones several at a time would fill the memory, and of
    few, threads would have none.
    """
    held = _HELD_BYTES // (chunk_bytes * limits.connections)
    shared = limits.shards * chunks // (2 * limits.connections)
    return max(1, min(_MOST_TOGETHER, held, shared))


class _Run:
    """What the threads of one batch share.

    The threads take groups of neighbouring chunks from one plain queue. An executor's future for
    each of the thousands of chunks cost more than counting their voxels.
    """

    def __init__(
        self,
        job: VolumeJob,
        reader: ChunkReader,
        store: Store,
        done: Callable[[LedgerEntry], None],
        limits: ConcurrencyLimits,
    ) -> None:
        self._job, self._reader, self._store, self._done = job, reader, store, done
        self._codec: Codec | None = open_codec(job.codec)
        self._stored: Codec | None = open_codec(reader.codec.config) if job.pass_through else None
        self._in_gzip = job.codec.get("id") == "gzip" != reader.codec.config.get("id")
        # One thread more than there are cores: others would hold a chunk's voxels and get no turn.
        self._slots = ComputeSlots(max(limits.workers, len(os.sched_getaffinity(0))) + 1)
        self._buffers: list[NDArray[Any]] = []  # the last one is still in the processor's cache
        self._failure: BaseException | None = None
        self._over = False
        self._moved = threading.Event()  # a shard may have ended, or the queue have run low
        self._limits = limits
        self._tasks: queue.SimpleQueue[tuple[_Shard, _Group] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open: set[ShardWriter] = set()
        self._chunk_bytes = math.prod(job.chunk_zyx) * job.dtype.itemsize
        grid = job.plan.source_grid
        self._offset: ShapeZYX = (0, 0, 0) if grid is None else grid.offset_zyx

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait for what the threads bring about.

        Raises
        ------
        MacroscopeError
            What went wrong in a thread.
        StoppedError
            A stop was requested.
        """
        self._check()
        while not ready():
            self._moved.wait(stopping.POLL_S)
            self._moved.clear()
            self._check()

    def has_room(self) -> bool:
        """Whether one shard more may be begun: threads would soon find nothing to ask for."""
        runs_low = self._tasks.qsize() <= len(self._threads)
        return runs_low and len(self._open) < self._limits.shards + _AHEAD

    def is_done(self) -> bool:
        """Whether every shard that was begun is finished."""
        return not self._open

    def begin(self, shard_index: ShapeZYX) -> None:
        """Hand all chunks of one shard to the threads; the last one finishes the shard."""
        shard = _Shard(ShardWriter(self._job, self._store, shard_index))
        self._open.add(shard.writer)
        chunks = shard.writer.chunks
        self._reader.expect(self._in_source(index) for _, index in chunks)
        step = _together(self._chunk_bytes, len(chunks), self._limits)
        groups = [chunks[first : first + step] for first in range(0, len(chunks), step)]
        # before there is work: a thread that begins beside busy ones waits long for its first turn
        wanted = min(self._limits.connections, self._tasks.qsize() + len(groups))
        while len(self._threads) < wanted:
            work = contextvars.copy_context().run
            thread = threading.Thread(target=work, args=(self._work,), name="chunks", daemon=True)
            self._threads.append(thread)
            thread.start()
        for group in groups:
            self._tasks.put((shard, group))

    def dismiss(self) -> None:
        """Drop what has not begun, and wait for what has."""
        self._over = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        for writer in self._open:
            writer.abandon()

    def _check(self) -> None:
        stopping.check()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._over or self._failure is not None or stopping.stop_requested():
                continue
            if self.has_room():
                self._moved.set()
            shard, group = task
            try:
                self._chunks(shard.writer, group)
                if shard.last(len(group)):
                    self._done(shard.writer.finish())
                    self._open.discard(shard.writer)
                    self._moved.set()
            except BaseException as error:
                self._failure = error
                self._moved.set()

    def _chunks(self, writer: ShardWriter, group: _Group) -> None:
        with self._slots.bounding():
            stored = self._reader.encoded_chunks([self._in_source(index) for _, index in group])
            self._slots.take()
            try:
                buffer = self._buffers.pop()
            except IndexError:
                buffer = np.empty(self._job.chunk_zyx, self._job.dtype)
            for (slot, index), encoded in zip(group, stored, strict=True):
                self._chunk(writer, slot, index, encoded, buffer)
            self._buffers.append(buffer)

    def _chunk(
        self,
        writer: ShardWriter,
        slot: int,
        index: ShapeZYX,
        encoded: Encoded | None,
        buffer: NDArray[Any],
    ) -> None:
        box = self._job.grid.chunk_box(index)
        z, y, x = self._in_source(index)
        inside = tuple(slice(0, n) for n in box.shape_zyx)
        if encoded is None:
            voxels = buffer
            voxels.fill(self._job.fill_value)
            writer.add_missing(f"{z}/{y}/{x}")
        elif self._job.pass_through:
            voxels = buffer
            self._decode(encoded, voxels, f"chunk {z}/{y}/{x}")
            if self._in_gzip:
                encoded = as_gzip(encoded, voxels)
            elif not read_by_all(self._job.codec, encoded):
                encoded = encode_chunk(self._codec, voxels)
        else:
            voxels = self._reader.decoded_chunk(encoded, (z, y, x))
            if box.shape_zyx != self._job.chunk_zyx:  # what the archive has past the edge
                fill = self._job.fill_value
                voxels = padded_chunk(voxels[inside], box.start_zyx, box, fill, buffer)
            encoded = encode_chunk(self._codec, voxels)
        writer.add(slot, box, voxels[inside], encoded)

    def _in_source(self, index: ShapeZYX) -> ShapeZYX:
        """Index of a chunk in the source's own grid."""
        (z, y, x), (oz, oy, ox) = index, self._offset
        return (z + oz, y + oy, x + ox)

    def _decode(self, encoded: Encoded, voxels: NDArray[Any], shard_index: str) -> None:
        try:
            decode_into(self._stored, encoded, voxels)
        except MacroscopeError as error:
            raise error.located(archive=self._job.plan.source, unit=shard_index) from None
