"""SIGTERM and Ctrl-C: one way to end a command, with everything closed behind it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
