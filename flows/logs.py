"""A log file for each source's run, below ``EM_LOGS_DIR``.

What Prefect logs goes to its server; the file tells what came of each volume and what the modules
below had to say, for whoever has only the folder. Where it cannot be written, the run goes on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

LOGGER = logging.getLogger("macroscope")
LOGGER.propagate = False  # the terminal has its own view of a run
_OURS = ("macroscope", "lib", "flows", "tasks")


@contextmanager
def log_file(folder: str, source: str, *, debug: bool) -> Iterator[None]:
    """Write ``<folder>/<source>_<timestamp>.log`` while the source runs."""
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
