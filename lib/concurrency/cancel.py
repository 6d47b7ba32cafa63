"""Cooperative stop: long work asks ``stop.check()`` between units of work.

Threads that block in Python cannot be interrupted from outside; polling is what lets SIGTERM,
Ctrl-C and a cancel end a run within seconds. One process has one stop signal.
"""

from __future__ import annotations

import threading

from lib.errors import StoppedError

_event = threading.Event()


def request_stop() -> None:
    """Ask all work in this process to end after the unit it is in."""
    _event.set()


def reset() -> None:
    """Forget an earlier request; called when a new run begins."""
    _event.clear()


def stop_requested() -> bool:
    return _event.is_set()


def check() -> None:
    """Raise `StoppedError` if a stop was requested."""
    if _event.is_set():
        raise StoppedError("the run was asked to stop")


def sleep(seconds: float) -> None:
    """Wait, but not past a request to stop, which raises `StoppedError`."""
    if _event.wait(seconds):
        check()
