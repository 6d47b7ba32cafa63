"""Cooperative cancellation: long work calls ``check()`` between units of work.

Threads that block in Python cannot be interrupted from outside; polling is what lets SIGTERM,
Ctrl-C and a cancel end a run within seconds. One process has one stop signal. Besides, a job whose
result nobody waits for any more is cancelled by itself (`abandoned`).

A thread in ``recv`` does not see a stop until the read time-out, minutes later. So every socket in
use is registered here (`wake_on_stop`), and one daemon thread shuts them all down when a stop
comes; the reads end at once, and their callers find out why by `check`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from lib.errors import StoppedError

POLL_S = 0.2
"""Between two looks of a thread that waits for something else than the stop itself."""

# Set for jobs that run ahead of their consumer: the event says that it went away.
abandoned: ContextVar[threading.Event | None] = ContextVar("abandoned", default=None)

_event = threading.Event()
_running = 0
_guard = threading.Lock()


class Acquirable(Protocol):
    """A lock or semaphore."""

    def acquire(self, *, timeout: float) -> bool: ...


def request_stop() -> None:
    """Ask all work in this process to end after the unit it is in."""
    _event.set()


def reset() -> None:
    """Forget an earlier request; called when a new run begins."""
    _event.clear()


@contextmanager
def fresh() -> Iterator[None]:
    """One of the runs of this process; the first of them forgets an earlier request to stop."""
    global _running
    with _guard:
        if _running == 0:
            reset()
        _running += 1
    try:
        yield
    finally:
        with _guard:
            _running -= 1


def stop_requested() -> bool:
    return _event.is_set()


def check() -> None:
    """Raise `StoppedError` if the run stops, or if this job's result is no longer wanted."""
    if _event.is_set():
        raise StoppedError("the run was asked to stop")
    event = abandoned.get()
    if event is not None and event.is_set():
        raise StoppedError("the result of this work is no longer wanted")


def sleep(seconds: float) -> None:
    """Wait, but not past what `check` raises for."""
    if abandoned.get() is None:
        if _event.wait(seconds):
            check()
        return
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        _event.wait(min(left, POLL_S))
        check()


def wait_for(condition: threading.Condition, ready: Callable[[], bool]) -> None:
    """Wait until `ready` while holding `condition`, whose changes are notified.

    Raises
    ------
    StoppedError
    """
    while not ready():
        condition.wait(POLL_S)
        check()


def acquire(lock: Acquirable) -> None:
    """Acquire a lock or semaphore; raises `StoppedError` if a stop comes first."""
    while not lock.acquire(timeout=POLL_S):
        check()


_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_lock = threading.Lock()
_watcher: threading.Thread | None = None


def wake_on_stop(sock: socket.socket) -> None:
    """Shut `sock` down when a stop is requested, for as long as it lives."""
    global _watcher
    with _lock:
        _sockets.add(sock)
        # A fork takes the set along but not the thread.
        if _watcher is None or not _watcher.is_alive():
            _watcher = threading.Thread(target=_watch, name="wake-on-stop", daemon=True)
            _watcher.start()


def _watch() -> None:
    global _watcher
    sock: socket.socket | None
    while True:
        _event.wait(POLL_S)
        with _lock:
            waiting = list(_sockets)
            if not waiting:
                _watcher = None
                return
        if stop_requested():
            for sock in waiting:
                # not SSLSocket's own, which would take the TLS state from under the reading thread
                with contextlib.suppress(OSError, ValueError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
            time.sleep(POLL_S)
        sock, waiting = None, []  # held any longer, closed sockets would never leave the set
