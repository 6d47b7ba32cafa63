"""The block pass: voxels from any reader are gathered into shards, counted, and encoded."""

from __future__ import annotations

import contextlib
import contextvars
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.buffers import BufferPool
from lib.compression import encode_chunk, open_codec
from lib.concurrency import cancel as stopping
from lib.errors import FormatError
from lib.formats.base import VolumeReader
from lib.geometry import Box, ShapeZYX
from lib.storage.base import Store
from lib.volumes.effort import Effort
from lib.volumes.job import VolumeJob
from lib.volumes.ledger import Entry
from lib.volumes.shardwriter import ShardWriter, padded_chunk


def convert_blocks(
    job: VolumeJob,
    reader: VolumeReader,
    store: Store,
    units: Iterable[ShapeZYX],
    *,
    effort: Effort,
    done: Callable[[Entry], None],
) -> None:
    """Gather, encode and write shards, several at once; see `lib.volumes.engine.convert`."""
    buffers = Buffers(job.grid.shard_zyx, job.dtype)
    units = list(units)
    # what has been read is encoded while the next shard is read: connections need not wait for that
    reading: Line | Room = Room(effort.shards)
    at_once = effort.shards + 1
    if not reader.layout.random_access:
        # a single connection reads on where it is
        reading = Line(units, overlapping=effort.connections > 1)
        at_once = max(effort.shards, 2)

    with ThreadPoolExecutor(effort.workers, thread_name_prefix="encode") as encoders:

        def make(unit: ShapeZYX) -> None:
            box = job.box_of(unit)
            with contextlib.ExitStack() as lent:
                with reading.turn(unit) as arrived:
                    voxels = lent.enter_context(buffers.lend(box.shape_zyx))
                    missing = gather(reader, box, voxels, arrived)
                done(_encode(job, store, unit, voxels, missing, encoders, effort.workers))

        run_all(units, make, at_once=at_once)


class Line:
    """Lets units go in order, one at a time; the others do something else meanwhile.

    A source that is read from its front to its end is then asked for its bytes in that order, so
    that its digest needs no second reading, and few shards' requests are read ahead.

    Parameters
    ----------
    overlapping
        Whether a unit may ask for its first bytes while the last of the one before it travel.
    """

    def __init__(self, units: Sequence[ShapeZYX], *, overlapping: bool = False) -> None:
        self._places = {unit: place for place, unit in enumerate(units)}
        self._overlapping = overlapping
        self._begun = self._ended = 0  # of the units before these, all have
        self._moved = threading.Condition()

    @contextmanager
    def turn(self, unit: ShapeZYX) -> Iterator[Callable[[float], None]]:
        """Wait for the unit's turn, or `StoppedError`.

        Yields what is to be told after each block which share of the unit has arrived; it waits
        until every earlier unit has ended.
        """
        place = self._places[unit]
        self._wait(lambda: self._begun >= place)

        def arrived(share: float) -> None:
            if self._overlapping and share >= 0.5:  # then all the rest has been asked for
                self._move(place + 1, 0)
            self._wait(lambda: self._ended >= place)

        try:
            yield arrived
        finally:
            self._move(place + 1, place + 1)

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._moved:
            while not ready():
                self._moved.wait(0.2)
                stopping.check()

    def _move(self, begun: int, ended: int) -> None:
        with self._moved:
            self._begun, self._ended = max(self._begun, begun), max(self._ended, ended)
            self._moved.notify_all()


class Room:
    """Lets so many units go at a time, whichever they are."""

    def __init__(self, units: int) -> None:
        self._room = threading.BoundedSemaphore(units)

    @contextmanager
    def turn(self, unit: ShapeZYX) -> Iterator[Callable[[float], None]]:
        """Wait for room; what this yields does nothing."""
        with self._room:
            yield _nothing


def _nothing(share: float) -> None:
    return None


def _encode(
    job: VolumeJob,
    store: Store,
    unit: ShapeZYX,
    voxels: NDArray[Any],
    missing: list[str],
    encoders: ThreadPoolExecutor,
    at_once: int,
) -> Entry:
    """Compress one gathered shard with all encoders, then write it."""
    writer = ShardWriter(job, store, unit)
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

    futures = [encoders.submit(some) for _ in range(at_once)]
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


def gather(
    reader: VolumeReader,
    box: Box,
    voxels: NDArray[Any],
    on_block: Callable[[float], None] = _nothing,
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
    for block in reader.blocks(box):
        stopping.check()
        if not box.contains(block.box) or block.data.shape != block.box.shape_zyx:
            raise FormatError(f"the reader gave {block.box} when asked for {box}")
        if block.box.start_zyx in corners:
            raise FormatError(f"the reader gave {block.box} twice when asked for {box}")
        corners.add(block.box.start_zyx)
        voxels[block.box.slices(box.start_zyx)] = block.data
        arrived += block.box.voxels
        missing.extend(block.missing)
        on_block(arrived / box.voxels)
    if arrived != box.voxels:
        raise FormatError(f"{arrived} of {box.voxels} voxels of {box} arrived")
    return missing


class Buffers:
    """Shard-sized arrays that are lent and used again."""

    def __init__(self, shape_zyx: ShapeZYX, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._pool = BufferPool(math.prod(shape_zyx) * dtype.itemsize)

    @contextmanager
    def lend(self, shape_zyx: ShapeZYX) -> Iterator[NDArray[Any]]:
        """An array of `shape_zyx` with undefined content."""
        view = self._pool.take(math.prod(shape_zyx) * self._dtype.itemsize)
        try:
            yield np.frombuffer(view, self._dtype).reshape(shape_zyx)
        finally:
            self._pool.give(view)


def run_all(units: Iterable[ShapeZYX], make: Callable[[ShapeZYX], None], *, at_once: int) -> None:
    """Call `make` for each unit, `at_once` at a time and in order; the first error ends it all."""
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="shards")
    running: set[Future[None]] = set()
    try:
        for unit in units:
            while len(running) >= at_once:
                running = _settle(running)
            stopping.check()
            running.add(pool.submit(contextvars.copy_context().run, make, unit))
        while running:
            running = _settle(running)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _settle(running: set[Future[None]]) -> set[Future[None]]:
    finished, left = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
    stopping.check()
    for future in finished:
        future.result()
    return left
