"""A log file for each source's run, below ``EM_LOGS_DIR``.

What Prefect logs goes to its server; the file tells what came of each volume and what the modules
below had to say, for whoever has only the folder. Where it cannot be written, the run goes on.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from lib.safety import visible

LOGGER = logging.getLogger("macroscope")
LOGGER.propagate = False  # the terminal has its own view of a run
_OURS = ("macroscope", "lib", "flows", "tasks")


class VisibleRecord(logging.LogRecord):
    """A log record whose text and traceback a terminal does not obey, see `lib.safety.visible`.

    Logs quote archives, and are read in terminals: standard error, ``kubectl logs``, the file.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        if self.exc_info and self.exc_info[0] is not None:
            self.exc_text = visible("".join(traceback.format_exception(*self.exc_info))).rstrip()

    def getMessage(self) -> str:
        return visible(super().getMessage())


def make_records_visible() -> None:
    """Let every logger of this process write such records, Prefect's too."""
    logging.setLogRecordFactory(VisibleRecord)


@contextmanager
def log_file(folder: str, source: str, *, debug: bool) -> Iterator[None]:
    """Write ``<folder>/<source>_<timestamp>.log`` while the source runs."""
    make_records_visible()
    name = f"{source}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}.log"
    try:
        os.makedirs(folder, exist_ok=True)
        handler = logging.FileHandler(os.path.join(folder, name), encoding="utf-8")
    except OSError as error:
        LOGGER.warning("no log file can be written to %s: %s", folder, error.strerror)
        yield
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.DEBUG if debug else logging.INFO)
    LOGGER.setLevel(logging.INFO)
    loggers = [logging.getLogger(name) for name in _OURS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
