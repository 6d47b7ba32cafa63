"""Calls that can be left when the run stops, although nothing can interrupt them.

A foreign library that waits for a server inside its own code sees neither a stop nor a signal
until its time-out, minutes later. Its calls are made by daemon threads: on a stop the caller goes,
and the thread ends with its call or with the process.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from lib.concurrency import interrupt

T = TypeVar("T")

_POLL_S = 0.2


def leave_on_stop(call: Callable[[], T]) -> T:
    """Return what `call` returns, or raise what it raises, or `StoppedError` without waiting."""
    hand = _idle_hand()
    work = _Work(call)
    hand.queue.put(work)
    while not work.done.acquire(timeout=_POLL_S):
        interrupt.check()  # the hand is never asked again: it may be busy for minutes
    _idle.append(hand)
    if work.error is not None:
        raise work.error
    return work.result


class _Work(Generic[T]):
    """One call, and what came of it."""

    result: T

    def __init__(self, call: Callable[[], T]) -> None:
        self.call = call
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def run(self) -> None:
        try:
            self.result = self.call()
        except BaseException as error:
            self.error = error
        self.done.release()


class _Hand:
    """A daemon thread that takes one call at a time."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[_Work[Any]] = queue.SimpleQueue()
        self.process = os.getpid()
        threading.Thread(target=self._serve, name="leaving", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self.queue.get().run()


_idle: deque[_Hand] = deque()


def _idle_hand() -> _Hand:
    while True:
        try:
            hand = _idle.pop()
        except IndexError:
            return _Hand()
        if hand.process == os.getpid():  # a fork takes the list along but not the threads
            return hand
