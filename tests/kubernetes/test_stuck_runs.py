"""What the clean-up makes of runs and Jobs that Prefect and Kubernetes do not agree on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType

from flows.cleanup import abandoned_jobs, verdict

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
RUN = uuid4()


def stamp(age_seconds: float) -> str:
    return (NOW - timedelta(seconds=age_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def state(kind: StateType, age_seconds: float = 3600) -> State[Any]:
    return State(type=kind, timestamp=NOW - timedelta(seconds=age_seconds))


def run(kind: StateType, age_seconds: float = 3600) -> FlowRun:
    return FlowRun(id=RUN, flow_id=uuid4(), name="r", state=state(kind, age_seconds))


def job(ended_ago: float | None = None, *, age_seconds: float = 3600) -> dict[str, Any]:
    labels = {"prefect.io/flow-run-id": str(RUN)}
    meta = {"name": "j", "labels": labels, "creationTimestamp": stamp(age_seconds)}
    if ended_ago is None:
        return {"metadata": meta, "status": {"active": 1}}
    end = {"type": "Failed", "status": "True", "lastTransitionTime": stamp(ended_ago)}
    return {"metadata": meta, "status": {"conditions": [end]}}


def judged(found: FlowRun, *jobs: dict[str, Any]) -> StateType | None:
    new = verdict(found, jobs, now=NOW, grace_seconds=180)
    return None if new is None else new.type


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (StateType.RUNNING, StateType.CRASHED),
        (StateType.PENDING, StateType.CRASHED),
        (StateType.CANCELLING, StateType.CANCELLED),
    ],
)
@pytest.mark.parametrize("jobs", [(), (job(600),)], ids=["no Job", "a Job that ended"])
def test_unfinished_run_without_a_job_at_work_is_ended(
    before: StateType, after: StateType, jobs: tuple[dict[str, Any], ...]
) -> None:
    assert judged(run(before), *jobs) == after


@pytest.mark.parametrize("kind", [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
def test_run_whose_job_is_at_work_is_left_alone(kind: StateType) -> None:
    assert judged(run(kind), job(600), job()) is None


@pytest.mark.parametrize(
    "found", [run(StateType.PENDING, 60), run(StateType.RUNNING, 179)], ids=["pending", "running"]
)
def test_run_that_has_just_changed_is_left_alone(found: FlowRun) -> None:
    assert judged(found) is None


def test_run_whose_job_has_just_ended_is_left_alone() -> None:
    assert judged(run(StateType.RUNNING), job(600), job(10)) is None


@pytest.mark.parametrize("kind", [StateType.COMPLETED, StateType.FAILED, StateType.SCHEDULED])
def test_run_that_is_over_or_waits_for_its_turn_is_left_alone(kind: StateType) -> None:
    assert judged(run(kind)) is None


def abandoned(known: State[Any] | None, *jobs: dict[str, Any]) -> list[str]:
    return abandoned_jobs(jobs, {str(RUN): known}, now=NOW, grace_seconds=180)


@pytest.mark.parametrize(
    "known",
    [state(StateType.CANCELLED), state(StateType.CANCELLING), state(StateType.CRASHED), None],
    ids=str,
)
def test_job_at_work_for_a_run_that_is_over_is_abandoned(known: State[Any] | None) -> None:
    assert abandoned(known, job()) == ["j"]


@pytest.mark.parametrize(
    ("known", "found"),
    [
        (state(StateType.RUNNING), job()),
        (state(StateType.COMPLETED, 20), job()),
        (state(StateType.CANCELLING, 20), job()),
        (state(StateType.COMPLETED), job(600)),
        (None, job(age_seconds=20)),
    ],
    ids=["running", "just over", "just cancelled", "ended itself", "just made"],
)
def test_job_that_may_be_wanted_is_left_alone(
    known: State[Any] | None, found: dict[str, Any]
) -> None:
    assert abandoned(known, found) == []


def test_job_that_names_no_known_run_is_left_alone() -> None:
    assert abandoned_jobs([job()], {}, now=NOW, grace_seconds=180) == []
