"""The end of a volume: coarse levels, proof, publication."""

from __future__ import annotations

from prefect import task

from lib.ingest.request import VolumeRequest
from lib.ingest.stages import Made, finish_volume
from lib.volumes.job import VolumeJob
from tasks.retrying import RETRIES, stoppable
from tasks.slots import polite


@task(name="verify", task_run_name="verify {request.plan.name}", tags=["verify"], **RETRIES)
@stoppable
@polite
def verify(request: VolumeRequest, job: VolumeJob) -> Made:
    """Prove that every shard is there, that the source is still the same, and publish."""
    return finish_volume(request, job)
