"""Preloaded into the Dask workers of a test: each dies some seconds after its start."""

from __future__ import annotations

import os
import random
import tempfile

from distributed import Worker
from distributed.chaos import KillWorker


async def dask_setup(worker: Worker) -> None:
    """Leave a mark for every worker that started, and arm distributed's own chaos plugin."""
    tempfile.mkstemp(dir=os.environ["DYING_WORKERS_DIR"])
    delay = random.uniform(4, 9)
    await worker.plugin_add(KillWorker(delay=f"{delay:.1f} s", mode="sys.exit"))
