"""The end of a volume: coarse levels, proof, publication."""

from __future__ import annotations

from prefect import task

from lib.ingest.request import VolumeRequest
from lib.ingest.stages import IngestedVolume, finish_volume
from lib.volumes.job import VolumeJob
from tasks.limits import rate_limited
from tasks.retrying import RETRIES, cancellable


@task(name="publish", task_run_name="publish {request.plan.name}", tags=["publish"], **RETRIES)
@cancellable
@rate_limited
def publish(request: VolumeRequest, job: VolumeJob) -> IngestedVolume:
    """Prove that every shard is there, that the source is still the same, and publish."""
    return finish_volume(request, job)
