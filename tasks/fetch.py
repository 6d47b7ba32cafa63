"""Bringing what must lie on disk before voxels can be read, and fitting the grid to it."""

from __future__ import annotations

from prefect import task

from lib.geometry import ShapeZYX
from lib.ingest.request import VolumeRequest
from lib.ingest.stages import batches
from lib.ingest.stages import fetch as fetch_files
from lib.volumes.job import VolumeJob
from tasks.limits import rate_limited
from tasks.retrying import RETRIES, cancellable


@task(name="fetch", task_run_name="fetch {request.plan.name}", tags=["fetch"], **RETRIES)
@cancellable
@rate_limited
def fetch(request: VolumeRequest) -> tuple[VolumeJob, list[list[ShapeZYX]]]:
    """Raw files, the job, and the batches of shards that are still to be made."""
    job = fetch_files(request)
    return job, batches(request, job)
