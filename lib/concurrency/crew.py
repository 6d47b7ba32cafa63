"""Worker threads that take jobs one by one, and are dismissed at the end, whatever that is."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from lib.concurrency import cancel

T = TypeVar("T")

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
