"""Jobs in threads, results in order, memory bounded."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from typing import Generic, TypeVar

from lib.concurrency import cancel as stopping
from lib.concurrency import interrupt

T = TypeVar("T")

_Task = tuple[contextvars.Context, Callable[[], T], Future[T]]

_POLL_S = 0.2
_GRACE_S = 2.0


def run_ordered(
    jobs: Iterable[Callable[[], T]], workers: int, ahead: int | None = None
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

    Raises
    ------
    StoppedError
        Within a second of a stop.
    """
    ahead = max(1, 2 * workers if ahead is None else ahead)
    crew: _Crew[T] = _Crew(min(workers, ahead))
    waiting: deque[Future[T]] = deque()
    source = iter(jobs)
    try:
        more = True
        while True:
            while more and len(waiting) < ahead:
                stopping.check()
                job = next(source, None)
                if job is None:
                    more = False
                else:
                    waiting.append(crew.begin(job))
            if not waiting:
                return
            yield _take(waiting.popleft())
    finally:
        crew.dismiss()


def _take(future: Future[T]) -> T:
    while True:
        try:
            return future.result(timeout=_POLL_S)
        except NotYetError:
            if future.done():  # the job itself raised a TimeoutError
                return future.result()
            stopping.check()


class _Crew(Generic[T]):
    """Worker threads; daemons, so that one that hangs does not keep the process alive."""

    def __init__(self, size: int) -> None:
        self._size = max(1, size)
        self._work: queue.SimpleQueue[_Task[T] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unneeded = threading.Event()

    def begin(self, job: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        context = contextvars.copy_context()
        context.run(interrupt.abandoned.set, self._unneeded)
        self._work.put((context, job, future))
        if len(self._threads) < self._size:
            thread = threading.Thread(target=self._run, name="transport", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def dismiss(self) -> None:
        """Drop what has not begun and wait for what has, but not long once a stop is asked."""
        self._unneeded.set()
        for _ in self._threads:
            self._work.put(None)
        patience: float | None = None
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_POLL_S)
                if patience is None and stopping.stop_requested():
                    patience = time.monotonic() + _GRACE_S
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
