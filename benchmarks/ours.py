"""Our side of every case: a volume from plan to publication, without Prefect."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from lib.archives.registry import REGISTRY, archive
from lib.config.loaders import LoaderConfig
from lib.formats.registry import FILE_FORMATS, TREE_FORMATS, file_format, tree_format
from lib.ingest import stages
from lib.ingest.context import VolumeRequest, close_context
from lib.storage.base import StoreSettings
from lib.volumes.job import VolumeJob

for _find, _names in (
    (archive, REGISTRY),
    (file_format, FILE_FORMATS),
    (tree_format, TREE_FORMATS),
):
    for _name in _names:  # imported when it is first used; imports are no part of the time
        _find(_name)
Image.preinit()


def ingest(
    source: str,
    config: dict[str, Any],
    output: str,
    at_once: int = 2,
    batches_at_once: int = 1,
    store: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Make every volume that a configuration names, in this process.

    Parameters
    ----------
    at_once
        Shards in flight in one batch.
    batches_at_once
        Batches in flight, as a task runner with so many threads would run them.
    store
        Settings of the destination.
    """
    settings = archive(source).config_model(**config)
    totals = {"requests": 0, "received": 0, "stored": 0}
    with tempfile.TemporaryDirectory() as scratch:
        for request in _requests(source, settings, output, scratch, store):
            with _volume(request, totals) as job:
                work = stages.batches(request, job)
                if batches_at_once == 1:  # one process: the pipeline is never drained in between
                    work = [[shard_index for batch in work for shard_index in batch]]
                with ThreadPoolExecutor(batches_at_once) as pool:
                    futures = [
                        pool.submit(
                            stages.convert_batch,
                            request,
                            job,
                            shard_indices,
                            shards_at_once=at_once,
                        )
                        for shard_indices in work
                    ]
                    for future in futures:
                        future.result()
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**totals, "maxrss_mb": peak_kb * 1024 / 1e6}


def ingest_dask(source: str, config: dict[str, Any], output: str, workers: int) -> dict[str, Any]:
    """The same with local Dask workers of one core each; their start is not timed."""
    from distributed import Client, LocalCluster

    settings = archive(source).config_model(**config)
    totals = {"requests": 0, "received": 0, "stored": 0}
    with (
        tempfile.TemporaryDirectory() as scratch,
        LocalCluster(
            n_workers=workers, threads_per_worker=1, memory_limit=None, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        for number, address in enumerate(client.scheduler_info()["workers"]):
            client.run(_settle_on_core, number, workers=[address])
        began = time.perf_counter()
        for request in _requests(source, settings, output, scratch):
            with _volume(request, totals) as job:
                work = stages.batches(request, job)
                futures = [
                    client.submit(stages.convert_batch, request, job, shard_indices, pure=False)
                    for shard_indices in work
                ]
                client.gather(futures)
        return {**totals, "seconds": time.perf_counter() - began}


def _requests(
    source: str,
    settings: LoaderConfig,
    output: str,
    scratch: str,
    store: dict[str, Any] | None = None,
) -> Iterator[VolumeRequest]:
    where = StoreSettings(**(store or {}))
    for plan in stages.plan_source(source, settings, Path(scratch)).plans:
        yield VolumeRequest(plan, settings, output, where, Path(scratch), "a benchmark")


@contextmanager
def _volume(request: VolumeRequest, totals: dict[str, int]) -> Iterator[VolumeJob]:
    """Everything before and after the shards."""
    with stages.lock(request):
        job = stages.fetch(request)
        yield job
        made = stages.finish_volume(request, job)
        stages.cleanup(request, complete=True)
    close_context(request)
    totals["requests"] += made.requests
    totals["received"] += made.received_bytes
    totals["stored"] += made.published.stored_bytes


def _settle_on_core(number: int) -> None:
    """As a container with a limit of one CPU: threads must not use the neighbour's core."""
    cores = sorted(os.sched_getaffinity(0))
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {cores[number % len(cores)]})
