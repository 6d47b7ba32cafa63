"""The live view of a run in a terminal; plain lines where there is none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from flows.logs import LOGGER
from lib.ingest.context import standings
from lib.ingest.progress import Standing, watching
from lib.present.terminal import ProgressView

EVERY_S = 0.5
"""How often bytes are looked at; finished shards are told at once."""


@contextmanager
def live_view(*, shown: bool, verbose: bool = False) -> Iterator[None]:
    """Draw every volume's progress on standard error, so that standard output stays for results.

    Parameters
    ----------
    verbose
        What goes into the log is written above it, too.
    """
    if not shown:
        yield
        return
    with ProgressView() as view:

        def watcher(standing: Standing) -> None:
            view.update(
                standing.volume,
                standing.done_shards,
                standing.total_shards,
                standing.received_bytes,
                standing.expected_bytes,
            )

        handler = _Above(view)
        if verbose:
            LOGGER.addHandler(handler)
        try:
            with watching(watcher, standings, every_s=EVERY_S):
                yield
        finally:
            LOGGER.removeHandler(handler)


class _Above(logging.Handler):
    def __init__(self, view: ProgressView) -> None:
        super().__init__(logging.INFO)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.say(record.getMessage())
