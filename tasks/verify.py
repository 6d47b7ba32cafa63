"""The end of a volume: coarse levels, proof, publication."""

from __future__ import annotations

from prefect import task

from lib.ingest.order import WorkOrder
from lib.ingest.stages import Made, finish_volume
from lib.volumes.job import VolumeJob
from tasks.retrying import RETRIES, stoppable
from tasks.slots import polite


@task(name="verify", task_run_name="verify {order.plan.name}", tags=["verify"], **RETRIES)
@stoppable
@polite
def verify(order: WorkOrder, job: VolumeJob) -> Made:
    """Prove that every shard is there, that the source is still the same, and publish."""
    return finish_volume(order, job)
