"""Flows and tasks that do nothing, as many as one source of a run has: what Prefect takes."""

from __future__ import annotations

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.task_runners import ThreadPoolTaskRunner

_BATCHES = 10


@task
def step(number: int) -> int:
    return number


@flow
def source() -> None:
    step(0)  # plan
    create_table_artifact([{"plan": 1}], key="bare-plan")
    step(1)  # fetch
    with ThreadPoolTaskRunner(max_workers=2) as runner:
        for future in [runner.submit(step, {"number": n}) for n in range(_BATCHES)]:
            future.result()
    step(2)  # verify
    create_table_artifact([{"result": 1}], key="bare-result")


@flow
def catalogue() -> None:
    step(3)
    create_table_artifact([{"valid": 1}], key="bare-catalogue")


@flow
def bare() -> None:
    source()
    catalogue()
    create_table_artifact([{"run": 1}], key="bare-run")


if __name__ == "__main__":
    bare()
