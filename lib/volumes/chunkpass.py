"""The chunk pass: compressed chunks go from the source into shards unchanged.

A Zarr v2 chunk whose shape, dtype, byte order and codec fit is, byte for byte, a valid inner chunk
of a Zarr v3 shard. Each is decoded once, for statistics and the pyramid, and that decoding also
proves it: a damaged chunk is a named error, never a copied one.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numpy.typing import NDArray

from lib import stopping
from lib.compression import Encoded, decode_into, open_codec
from lib.errors import MacroscopeError
from lib.geometry import ShapeZYX
from lib.readers.base import ChunkReader
from lib.storage.base import Store
from lib.volumes.effort import Effort
from lib.volumes.job import VolumeJob
from lib.volumes.ledger import Entry
from lib.volumes.shardwriter import ShardWriter


class _Scratch(threading.local):
    """One decoding buffer for each thread, used again for every chunk."""

    buffer: NDArray[Any] | None = None

    def get(self, shape: ShapeZYX, dtype: np.dtype[Any]) -> NDArray[Any]:
        if self.buffer is None or self.buffer.shape != shape or self.buffer.dtype != dtype:
            self.buffer = np.empty(shape, dtype)
        return self.buffer


def convert_chunks(
    job: VolumeJob,
    reader: ChunkReader,
    store: Store,
    units: Iterable[ShapeZYX],
    *,
    effort: Effort,
    done: Callable[[Entry], None],
) -> None:
    """Fill shards chunk by chunk with many requests in flight; see `lib.volumes.engine.convert`."""
    run = _Run(job, reader, store, done)
    room = threading.Semaphore(effort.shards)
    pool = ThreadPoolExecutor(effort.connections, thread_name_prefix="chunks")
    try:
        for unit in units:
            while not room.acquire(timeout=0.2):
                run.check()
            run.check()
            run.begin(unit, pool, room)
        for _ in range(effort.shards):
            while not room.acquire(timeout=0.2):
                run.check()
        run.check()
    finally:
        run.abandon()
        pool.shutdown(wait=True, cancel_futures=True)


class _Run:
    """What the threads of one batch share."""

    def __init__(
        self, job: VolumeJob, reader: ChunkReader, store: Store, done: Callable[[Entry], None]
    ) -> None:
        self._job, self._reader, self._store, self._done = job, reader, store, done
        self._codec: Codec | None = open_codec(job.codec)
        self._scratch = _Scratch()
        self._failure: BaseException | None = None
        self._over = False
        offset = job.plan.reader.get("chunk_offset_zyx", (0, 0, 0))
        self._offset: ShapeZYX = tuple(offset)

    def check(self) -> None:
        """Raise what went wrong in a thread, or a request to stop."""
        stopping.check()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        self._over = True

    def begin(self, unit: ShapeZYX, pool: ThreadPoolExecutor, room: threading.Semaphore) -> None:
        """Send all chunks of one shard to the threads; the last one finishes the shard."""
        writer = ShardWriter(self._job, self._store, unit)
        chunks = list(self._job.grid.chunks_of(unit))
        left = _Countdown(len(chunks))

        def work(slot: int, index: ShapeZYX) -> None:
            if self._over or self._failure is not None or stopping.stop_requested():
                return
            try:
                self._chunk(writer, slot, index)
                if left.last():
                    self._done(writer.finish())
                    room.release()
            except BaseException as error:
                self._failure = error

        context = contextvars.copy_context()
        for slot, index in chunks:
            _submit(pool, context.copy().run, work, slot, index)

    def _chunk(self, writer: ShardWriter, slot: int, index: ShapeZYX) -> None:
        box = self._job.grid.chunk_box(index)
        z, y, x = (i + o for i, o in zip(index, self._offset, strict=True))
        encoded = self._reader.encoded_chunk((z, y, x))
        voxels = self._scratch.get(self._job.chunk_zyx, self._job.dtype)
        if encoded is None:
            voxels.fill(self._job.fill_value)
            writer.add_missing(f"{z}/{y}/{x}")
        else:
            self._decode(encoded, voxels, f"chunk {z}/{y}/{x}")
        writer.add(slot, box, voxels[tuple(slice(0, n) for n in box.shape_zyx)], encoded)

    def _decode(self, encoded: Encoded, voxels: NDArray[Any], unit: str) -> None:
        try:
            decode_into(self._codec, encoded, voxels)
        except MacroscopeError as error:
            raise error.located(archive=self._job.plan.source, unit=unit) from None


class _Countdown:
    def __init__(self, count: int) -> None:
        self._left, self._lock = count, threading.Lock()

    def last(self) -> bool:
        """Count one down; True for the last."""
        with self._lock:
            self._left -= 1
            return self._left == 0


def _submit(pool: ThreadPoolExecutor, *call: Any) -> Future[Any] | None:
    with contextlib.suppress(RuntimeError):  # the pool is being shut down after a failure
        return pool.submit(*call)
    return None
