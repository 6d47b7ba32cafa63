"""Making shards, a batch at a time: the task that threads and Dask workers run."""

from __future__ import annotations

from prefect import task

from lib.geometry import ShapeZYX
from lib.ingest.request import VolumeRequest
from lib.ingest.stages import Batch, convert_batch
from lib.volumes.job import VolumeJob
from tasks.limits import rate_limited
from tasks.retrying import RETRIES, cancellable


@task(
    name="convert", task_run_name="convert {request.plan.name} {part}", tags=["convert"], **RETRIES
)
@cancellable
@rate_limited
def convert(
    request: VolumeRequest, job: VolumeJob, shard_indices: list[ShapeZYX], part: str
) -> Batch:
    """Make the given shards and their ledger entries."""
    return convert_batch(request, job, shard_indices)
