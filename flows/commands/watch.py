"""The live view of a run in a terminal; plain lines where there is none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from flows.logs import LOGGER
from lib.ingest.context import progress_events
from lib.ingest.progress import ProgressEvent, subscribe
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

        def listener(event: ProgressEvent) -> None:
            view.update(
                event.volume,
                event.done_shards,
                event.total_shards,
                event.received_bytes,
                event.expected_bytes,
            )

        handler = _Above(view)
        if verbose:
            LOGGER.addHandler(handler)
        try:
            with subscribe(listener, progress_events, every_s=EVERY_S):
                yield
        finally:
            LOGGER.removeHandler(handler)


class _Above(logging.Handler):
    def __init__(self, view: ProgressView) -> None:
        super().__init__(logging.INFO)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.say(record.getMessage())
