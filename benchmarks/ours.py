"""Our side of every case: a volume from plan to publication, without Prefect."""

from __future__ import annotations

import resource
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lib.archives.registry import archive
from lib.ingest import stages
from lib.ingest.order import WorkOrder
from lib.storage.settings import StoreSettings


def ingest(
    source: str, config: dict[str, Any], output: str, at_once: int = 2, batches_at_once: int = 1
) -> dict[str, Any]:
    """Make every volume that a configuration names.

    Parameters
    ----------
    at_once
        Shards in flight in one batch.
    batches_at_once
        Batches in flight, as a task runner with so many threads would run them.
    """
    settings = archive(source).config_model(**config)
    requests = received = stored = 0
    with tempfile.TemporaryDirectory() as scratch:
        chosen = stages.plan_source(source, settings, Path(scratch))
        for plan in chosen.plans:
            order = WorkOrder(
                plan, settings, output, StoreSettings(), Path(scratch), "a benchmark"
            )
            with stages.hold(order):
                job = stages.fetch(order)
                work = stages.batches(order, job)
                if batches_at_once == 1:  # one process: the pipeline is never drained in between
                    work = [[unit for batch in work for unit in batch]]
                with ThreadPoolExecutor(batches_at_once) as pool:
                    futures = [
                        pool.submit(stages.convert_batch, order, job, units, shards_at_once=at_once)
                        for units in work
                    ]
                    for future in futures:
                        future.result()
                made = stages.finish_volume(order, job)
                stages.forget(order, job)
            stages.leave(order)
            requests += made.requests
            received += made.received_bytes
            stored += made.finished.stored_bytes
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "requests": requests,
        "received": received,
        "stored": stored,
        "maxrss_mb": peak_kb * 1024 / 1e6,
    }
