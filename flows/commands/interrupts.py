"""SIGTERM and Ctrl-C: one way to end a command, with everything closed behind it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from lib.concurrency import cancel as stopping

_received: signal.Signals | None = None


def exit_code() -> int:
    """Of a process that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM, as shells have it."""
    return 128 + (_received or signal.SIGINT)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the block alike: a stop is asked for, then the exception comes.

    Python swallows an exception that lands in a callback (a finalizer, a log handler); whoever
    looks whether a stop was asked for still ends. Prefect takes SIGTERM during a flow, and hands
    it afterwards to whoever had it before. Left to the default that would be the end of the
    process, with its Prefect server, its stand-in archives and their folders still there.
    """

    def on_signal(number: int, frame: object) -> None:
        global _received
        _received = signal.Signals(number)
        stopping.request_stop()
        raise KeyboardInterrupt

    before = {one: signal.signal(one, on_signal) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
