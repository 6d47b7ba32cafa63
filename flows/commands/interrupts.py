"""SIGTERM and Ctrl-C: one way to end a command, with everything closed behind it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lib import stopping


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the block alike: a stop is asked for, then the exception comes.

    Python swallows an exception that lands in a callback (a finalizer, a log handler); whoever
    looks whether a stop was asked for still ends. Prefect takes SIGTERM during a flow, and hands
    it afterwards to whoever had it before. Left to the default that would be the end of the
    process, with its embedded server, its stand-in archives and their folders still there.
    """

    def on_signal(number: int, frame: object) -> None:
        stopping.request_stop()
        raise KeyboardInterrupt

    before = {one: signal.signal(one, on_signal) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def shield_embedded_server() -> None:
    """Keep Ctrl-C from Prefect's embedded server, so that the run can still say how it ended.

    A terminal sends the signal to every process of the foreground group. Without its server a run
    would try for a minute to report its last states. The server ends when the run ends it.
    """
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is not None:
        return
    from prefect.server.api.server import SubprocessASGIServer

    server: Any = SubprocessASGIServer()
    spawn = server._run_uvicorn_command

    def shielded() -> Any:
        # A process inherits the blocked signals of the thread that starts it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return spawn()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    server._run_uvicorn_command = shielded
