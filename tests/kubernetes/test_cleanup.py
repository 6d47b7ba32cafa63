"""What the clean-up takes for an orphan, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import kr8s
import pytest

from lib.kubernetes import cleanup
from lib.kubernetes.cleanup import is_active, orphaned_clusters

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def cluster(name: str, run: str | None, age_seconds: float = 600) -> dict[str, Any]:
    created = (NOW - timedelta(seconds=age_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {"macroscope/flow-run-id": run} if run else {}
    return {"metadata": {"name": name, "labels": labels, "creationTimestamp": created}}


def job(run: str, *conditions: str, deleting: bool = False) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": run, "labels": {"prefect.io/flow-run-id": run}}
    if deleting:
        metadata["deletionTimestamp"] = "2026-11-21T11:59:00Z"
    return {
        "metadata": metadata,
        "status": {"conditions": [{"type": c, "status": "True"} for c in conditions]},
    }


def orphans(clusters: list[dict[str, Any]], jobs: list[dict[str, Any]]) -> list[str]:
    return orphaned_clusters(clusters, jobs, now=NOW, grace_seconds=180)


def test_cluster_of_a_running_flow_is_left_alone() -> None:
    assert orphans([cluster("c", "r")], [job("r")]) == []


@pytest.mark.parametrize(
    "jobs",
    [
        [],
        [job("other")],
        [job("r", "Complete")],
        [job("r", "Failed")],
        [job("r", deleting=True)],
    ],
    ids=["no job", "another's job", "complete", "failed", "going"],
)
def test_cluster_whose_flow_is_over_is_an_orphan(jobs: list[dict[str, Any]]) -> None:
    assert orphans([cluster("c", "r")], jobs) == ["c"]


def test_rescheduled_flow_keeps_its_cluster() -> None:
    assert orphans([cluster("c", "r")], [job("r", "Failed"), job("r")]) == []


def test_young_clusters_are_left_alone() -> None:
    assert orphans([cluster("c", "r", age_seconds=170)], []) == []


def test_cluster_that_names_no_run_goes_once_it_is_old() -> None:
    assert orphans([cluster("c", None)], [job("r")]) == ["c"]


def test_suspended_job_without_status_counts_as_active() -> None:
    assert is_active({"metadata": {"name": "x"}})


class Answers:
    """A kind of object, of which the API server says one thing."""

    def __init__(self, status: int) -> None:
        self._status = status

    async def list(self, **_: Any) -> AsyncIterator[Any]:
        if self._status != 200:
            answer = httpx.Response(self._status, text="404 page not found")
            raise kr8s.ServerError("no", status="no", response=answer)
        for none in ():
            yield none


@pytest.mark.parametrize("status", [404, 403])
def test_a_cluster_without_dasks_resource_definitions_has_nothing_of_it_to_clean_up(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may not make them runs with ``dask.mode=off``; the hook of an uninstall must not fail."""
    monkeypatch.setattr(cleanup, "Job", Answers(200))
    monkeypatch.setattr(cleanup, "DaskCluster", Answers(status))
    looks = (
        cleanup.delete_orphans("em", grace_seconds=0),
        cleanup.delete_all("em", wait_seconds=0),
    )
    for look in looks:
        if status == 404:
            assert asyncio.run(look) == []
        else:
            with pytest.raises(kr8s.ServerError):
                asyncio.run(look)


def test_without_dask_no_right_on_its_clusters_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleanup, "Job", Answers(200))
    monkeypatch.setattr(cleanup, "DaskCluster", Answers(403))
    assert cleanup.main(["all", "--namespace=em", "--without-dask"]) == 0
