"""A log file for each source's run, below ``EM_LOGS_DIR``.

What Prefect logs goes to its server; the file tells what came of each volume and what the modules
below had to say, for whoever has only the folder. Where it cannot be written, the run goes on.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from datetime import UTC, datetime

from lib.ingest.context import progress_events
from lib.ingest.result import ProgressEvent, subscribe
from lib.present.output import make_records_visible
from lib.present.terminal import Progress
from lib.safety import visible

LOGGER = logging.getLogger("macroscope")
LOGGER.propagate = False  # the terminal has its own view of a run
_OURS = ("macroscope", "lib", "flows", "tasks")


written: list[str] = []
"""The log files of this process, in the order in which they were begun."""


@contextmanager
def log_file(folder: str, source: str, *, debug: bool) -> Iterator[None]:
    """Write ``<folder>/<source>_<timestamp>.log`` while the source runs."""
    make_records_visible()
    path = os.path.join(folder, f"{source}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}.log")
    try:
        os.makedirs(folder, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        LOGGER.warning("no log file can be written to %s: %s", folder, error.strerror)
        yield
        return
    written.append(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in _OURS]
    for logger in loggers:
        logger.setLevel(logging.DEBUG if debug else logging.INFO)
        logger.addHandler(handler)
    elsewhere, quiet = logging.getLogger().handlers, _OursOnlyIfSerious()
    for other in elsewhere:
        other.addFilter(quiet)
    try:
        yield
    finally:
        for other in elsewhere:
            other.removeFilter(quiet)
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


class _OursOnlyIfSerious(logging.Filter):
    """Keeps what is only for the file off the terminal, which has its own view of a run."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in _OURS


PROGRESS_SECONDS = 25.0
"""Between two lines about one volume; with the second between two looks never more than 30."""


@contextmanager
def progress_told(
    volumes: Collection[str],
    tell: Callable[[str], object],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Say every half minute how far each volume of a run is: in the file, and with `tell`.

    What is watched without a terminal, a run's page or a pod's log, moves while a shard does not.
    A line has bytes, shards and the time left.

    Parameters
    ----------
    volumes
        ``source/name`` of the run's own; others of this process are other runs'. It may grow.
    """
    known: dict[str, Progress] = {}
    told: dict[str, float] = {}

    def watch(event: ProgressEvent) -> None:
        if event.volume not in volumes:
            return
        now = clock()
        last = told.setdefault(event.volume, now)
        volume = known.setdefault(event.volume, Progress(event.volume, now))
        volume.take(now, *astuple(event)[1:])
        if not volume.finished and now - last >= PROGRESS_SECONDS:
            told[event.volume] = now
            LOGGER.info("%s", volume.line(now))
            tell(visible(volume.line(now)))

    with subscribe(watch, progress_events):
        yield
