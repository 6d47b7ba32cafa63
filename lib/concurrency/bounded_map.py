"""Jobs in threads, so many at a time: results in order, or only their end.

Gates before a source let units through in their order, or any units but only so many at a time.
Compute slots bound the threads that compute, of many more that fetch.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as NotYetError
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

from lib.concurrency import cancel

T = TypeVar("T")
U = TypeVar("U")

_Task = tuple[contextvars.Context, Callable[[], T], Future[T]]


class Crew(Generic[T]):
    """Up to `size` threads; daemons, so that one that hangs does not keep the process alive.

    Jobs may be handed over by several threads.

    Parameters
    ----------
    abandons
        Whether jobs that have begun are cancelled when the crew is dismissed; else they end.
    """

    def __init__(self, size: int, name: str, *, abandons: bool) -> None:
        self._size = max(1, size)
        self._name = name
        self._abandons = abandons
        self._work: queue.SimpleQueue[_Task[T] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._hiring = threading.Lock()
        self._unneeded = threading.Event()

    def begin(self, job: Callable[[], T]) -> Future[T]:
        """Hand a job over; it runs in a copy of this thread's context."""
        future: Future[T] = Future()
        context = contextvars.copy_context()
        if self._abandons:
            context.run(cancel.abandoned.set, self._unneeded)
        self._work.put((context, job, future))
        with self._hiring:
            if len(self._threads) < self._size:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def dismiss(self, grace_s: float | None = None) -> None:
        """Drop what has not begun and wait for what has.

        Parameters
        ----------
        grace_s
            How long to wait once a stop is requested; None waits to the end.
        """
        self._unneeded.set()
        for _ in self._threads:
            self._work.put(None)
        patience: float | None = None
        for thread in self._threads:
            while thread.is_alive():
                thread.join(cancel.POLL_S)
                if grace_s is None:
                    continue
                if patience is None and cancel.stop_requested():
                    patience = time.monotonic() + grace_s
                if patience is not None and time.monotonic() > patience:
                    return

    def _run(self) -> None:
        while (task := self._work.get()) is not None:
            context, job, future = task
            if self._unneeded.is_set():
                continue
            try:
                future.set_result(context.run(job))
            except BaseException as error:
                future.set_exception(error)
            del task, context, job, future  # results must not outlive their consumer here


GRACE_S = 2.0
"""Seconds that a stop leaves to what has begun."""


def run_ordered(
    jobs: Iterable[Callable[[], T]],
    workers: int,
    ahead: int | None = None,
    *,
    outlives_stop: bool = False,
) -> Iterator[T]:
    """Run jobs in up to `workers` threads and yield their results in job order.

    Parameters
    ----------
    jobs
        Taken from lazily, by the thread that iterates. Each runs in a copy of its context.
    workers
        Jobs that run at once.
    ahead
        Jobs begun before the oldest result is taken, itself included; by default twice `workers`.
    outlives_stop
        Whether a stop lets them go on: what a stopping run has to write or to clear away.

    Raises
    ------
    StoppedError
        Within a second of a stop.
    """
    ahead = max(1, 2 * workers if ahead is None else ahead)
    crew: Crew[T] = Crew(min(workers, ahead), "transport", abandons=not outlives_stop)
    waiting: deque[Future[T]] = deque()
    source = iter(jobs)
    try:
        more = True
        while True:
            while more and len(waiting) < ahead:
                if not outlives_stop:
                    cancel.check()
                job = next(source, None)
                if job is None:
                    more = False
                else:
                    waiting.append(crew.begin(job))
            if not waiting:
                return
            future = waiting.popleft()
            yield future.result() if outlives_stop else result_of(future)
            del future
    finally:
        crew.dismiss(None if outlives_stop else GRACE_S)


def run_each(
    items: Iterable[U],
    work: Callable[[U], object],
    *,
    at_once: int,
    failed: Callable[[], None] | None = None,
) -> None:
    """Call `work` for each item, `at_once` at a time; items are taken in order.

    The first error ends it: nothing more begins, what has begun ends, and the error is raised.

    Parameters
    ----------
    failed
        Called once after an error, before what has begun is waited for: it lets go those who wait
        for the one that failed.

    Raises
    ------
    StoppedError
        A stop was requested, and the work at hand has ended.
    """
    crew: Crew[object] = Crew(at_once, "work", abandons=False)
    running: set[Future[object]] = set()
    try:
        for item in items:
            while len(running) >= at_once:
                running = _settle(running)
            cancel.check()
            running.add(crew.begin(lambda item=item: work(item)))  # type: ignore[misc]
        while running:
            running = _settle(running)
    except BaseException:
        if failed is not None:
            failed()
        raise
    finally:
        crew.dismiss()


def result_of(future: Future[T]) -> T:
    """What a job came to, or its error; `StoppedError` if a stop comes first."""
    while True:
        try:
            return future.result(timeout=cancel.POLL_S)
        except NotYetError:
            if future.done():  # the job itself raised a TimeoutError
                return future.result()
            cancel.check()


def _settle(running: set[Future[object]]) -> set[Future[object]]:
    finished, left = wait(running, timeout=cancel.POLL_S, return_when=FIRST_COMPLETED)
    cancel.check()
    for future in finished:
        future.result()
    return left


class InOrderGate:
    """Lets units pass in order, one at a time; the others do something else meanwhile.

    A source that is read from its front to its end is then asked for its bytes in that order, so
    that its digest needs no second reading, and few units' requests are read ahead.

    Parameters
    ----------
    overlapping
        Whether a unit may ask for its first bytes while the last of the one before it travel.
    idle
        Whether the source could be asked for more at the moment. A unit then begins once the first
        bytes of the one before it have come, whichever of its bytes are late.
    """

    def __init__(
        self,
        units: Sequence[Hashable],
        *,
        overlapping: bool = False,
        idle: Callable[[], bool] | None = None,
    ) -> None:
        self._places = {unit: place for place, unit in enumerate(units)}
        self._overlapping, self._idle = overlapping, idle
        self._begun = self._ended = 0  # of the units before these, all have
        self._flowing = -1  # the last unit of which bytes have come
        self._moved = threading.Condition()

    @contextmanager
    def turn(self, unit: Hashable) -> Iterator[Callable[[float], None]]:
        """Wait for the unit's turn, or `StoppedError`.

        Yields what is to be told after each block which share of the unit has arrived; it waits
        until every earlier unit has ended.
        """
        place = self._places[unit]
        self._wait(lambda: self._begun >= place or self._may_overtake(place))

        def arrived(share: float) -> None:
            self._flowing = max(self._flowing, place)
            if self._overlapping and share >= 0.5:  # then all the rest has been asked for
                self._move(place + 1, 0)
            self._wait(lambda: self._ended >= place)

        try:
            yield arrived
        finally:
            self._move(place + 1, place + 1)

    def open(self) -> None:
        """Let every unit pass: one has failed, and those behind it would wait for ever."""
        self._move(len(self._places), len(self._places))

    def _may_overtake(self, place: int) -> bool:
        return self._idle is not None and self._flowing >= place - 1 and self._idle()

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._moved:
            cancel.wait_for(self._moved, ready)

    def _move(self, begun: int, ended: int) -> None:
        with self._moved:
            self._begun, self._ended = max(self._begun, begun), max(self._ended, ended)
            self._moved.notify_all()


class CountGate:
    """Lets so many units pass at a time, whichever they are."""

    def __init__(self, units: int) -> None:
        self._room = threading.BoundedSemaphore(units)

    @contextmanager
    def turn(self, unit: Hashable) -> Iterator[Callable[[float], None]]:
        """Wait for room, or `StoppedError`; what this yields does nothing."""
        cancel.acquire(self._room)
        try:
            yield _nothing
        finally:
            self._room.release()


def _nothing(share: float) -> None:
    """Nobody waits for the share of a unit that has arrived."""


Prepared = Callable[[], bool]


class _Waiter:
    """A thread that waits: whether it is prepared, and what it is woken by."""

    __slots__ = ("prepared", "turn")

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, self.turn = prepared, threading.Lock()
        self.turn.acquire()


class ComputeSlots:
    """So many threads compute at once. One that has a slot keeps it until it gives it back.

    What fetches bytes takes the slot as soon as it computes with them (`take_compute_slot`), and
    gives it back where it has to fetch again (`free_compute_slot`); its caller goes on in it.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiters: list[_Waiter] = []
        self._guard = threading.Lock()
        self._held = threading.local()

    @contextmanager
    def bounding(self) -> Iterator[None]:
        """This thread computes in these slots; at the end it gives back what it has taken."""
        token = _bound.set(self)
        try:
            yield
        finally:
            _bound.reset(token)
            self.free()

    def take(self, prepared: Prepared = lambda: True) -> None:
        """Wait for a slot, unless this thread has one.

        Parameters
        ----------
        prepared
            Whether work that several threads share was done for this one meanwhile. Who is not
            prepared comes after those who are: the longer it waits, the more share the work.
        """
        if getattr(self._held, "one", False):
            return
        with self._guard:
            waiter = None if self._free else _Waiter(prepared)
            if waiter is None:
                self._free -= 1
            else:
                self._waiters.append(waiter)
        if waiter is not None:
            waiter.turn.acquire()
        self._held.one = True

    def free(self) -> None:
        """Give this thread's slot back, if it has one."""
        if not getattr(self._held, "one", False):
            return
        self._held.one = False
        with self._guard:
            if not self._waiters:
                self._free += 1
                return
            prepared = (one for one in self._waiters if one.prepared())
            chosen = next(prepared, self._waiters[0])
            self._waiters.remove(chosen)
        chosen.turn.release()


_bound: ContextVar[ComputeSlots | None] = ContextVar("compute slots", default=None)


def take_compute_slot(prepared: Prepared = lambda: True) -> None:
    """Wait for a slot of those that bound this thread, if any do and it has none."""
    if (slots := _bound.get()) is not None:
        slots.take(prepared)


def free_compute_slot() -> None:
    """Let another thread compute while this one fetches."""
    if (slots := _bound.get()) is not None:
        slots.free()
