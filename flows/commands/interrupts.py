"""SIGTERM and Ctrl-C: one way to end a command, with everything closed behind it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from lib import stopping


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does.

    Prefect takes the signal during a flow, and afterwards hands it to whoever had it before. Left
    to the default that would be the end of the process, with its embedded server, its stand-in
    archives and their folders still there.
    """

    def on_signal(number: int, frame: object) -> None:
        stopping.request_stop()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
