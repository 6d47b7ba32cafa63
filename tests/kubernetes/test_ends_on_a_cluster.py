"""The chart on a stand-in cluster: runs that do not complete end by name, and leave nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from emulators.control import Control
from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.apiserver.kinds import CONFIGMAP, DEPLOYMENT, JOB, POD
from tests.kubernetes.apiserver.store import ApiError
from tests.kubernetes.installation import HEAVY, RUN_S, Installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LIGHT = "ebi"
Start = Callable[..., str]


def test_cancelling_the_parent_cancels_its_children_and_their_clusters(
    empty_store: Installation, at_work: Start
) -> None:
    run = at_work("macroscope/full", sources=[HEAVY])
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
    empty_store.api(f"flow_runs/{run}/set_state", cancelling)  # what the UI's button does
    assert empty_store.final_state(run, RUN_S)["type"] == "CANCELLED"
    empty_store.assert_nothing_left()
    assert {s: state["type"] for s, state in empty_store.children(run).items()} == {
        HEAVY: "CANCELLED"
    }
    assert {s: r["status"] for s, r in empty_store.records().items()} == {HEAVY: "cancelled"}


def test_a_cancelled_run_can_be_run_again(
    empty_store: Installation, at_work: Start, faults: Control
) -> None:
    run = at_work(f"{HEAVY}/ingest")
    assert empty_store.prefect("flow-run", "cancel", run).wait(RUN_S) == 0
    assert empty_store.final_state(run, RUN_S)["type"] == "CANCELLED"
    empty_store.assert_nothing_left()
    faults.clear()
    again = empty_store.start(f"{HEAVY}/ingest")
    assert empty_store.final_state(again, RUN_S)["type"] == "COMPLETED"
    empty_store.assert_exact(HEAVY)


def test_a_source_killed_for_its_memory_fails_by_name_and_leaves_the_others_alone(
    empty_store: Installation, at_work: Start, faults: Control
) -> None:
    run = at_work("macroscope/full", sources=[LIGHT, HEAVY])
    empty_store.cluster.out_of_memory(empty_store.flow_pods(HEAVY)[-1])
    faults.clear()
    state = empty_store.final_state(run, RUN_S)
    assert state["type"] == "FAILED"
    assert HEAVY in state["message"]
    ends = {source: one["type"] for source, one in empty_store.children(run).items()}
    assert ends == {LIGHT: "COMPLETED", HEAVY: "CRASHED"}
    assert empty_store.records()[LIGHT]["status"] == "complete"
    assert any("OOMKilled" in line for line in empty_store.messages(run))
    empty_store.assert_nothing_left()
    again = empty_store.start("macroscope/full", sources=[LIGHT, HEAVY])
    assert empty_store.final_state(again, RUN_S)["type"] == "COMPLETED"
    empty_store.assert_exact(LIGHT, HEAVY)


def test_a_run_that_dies_while_the_worker_is_away_is_ended_by_the_clean_up(
    empty_store: Installation, at_work: Start
) -> None:
    run = at_work(f"{HEAVY}/ingest")
    cluster = empty_store.cluster
    with without_worker(empty_store):
        [job] = [job for job in cluster.store.list(JOB, "em") if job_label(job) == run]
        cluster.out_of_memory(empty_store.flow_pods(HEAVY)[-1])
        cluster.delete(JOB, job["metadata"]["name"])
        assert empty_store.state(run)["type"] == "RUNNING"
        empty_store.tidy(grace_seconds=1)
        state = empty_store.state(run)
        assert state["type"] == "CRASHED", state
        assert "Its Job is gone" in state["message"]
        empty_store.assert_nothing_left()


@contextmanager
def without_worker(installed: Installation) -> Iterator[None]:
    store, name = installed.cluster.store, "macroscope-worker"
    pods = installed.components("worker")
    store.change(DEPLOYMENT, "em", name, lambda m: m["spec"].update(replicas=0))
    for pod in pods:
        with suppress(ApiError):  # the Deployment may have been quicker
            installed.cluster.delete(POD, pod["metadata"]["name"], grace_seconds=0)
    installed.cluster.wait(lambda: not installed.components("worker"), RUN_S, "worker gone")
    try:
        yield
    finally:
        store.change(DEPLOYMENT, "em", name, lambda m: m["spec"].update(replicas=1))


def job_label(job: dict[str, dict[str, dict[str, str]]]) -> str:
    return (job["metadata"].get("labels") or {}).get("prefect.io/flow-run-id", "")


def test_a_cluster_that_no_node_can_take_fails_the_run_by_name(empty_store: Installation) -> None:
    cluster = empty_store.cluster
    before = cluster.store.get(CONFIGMAP, "em", "macroscope-config")["data"]
    document = before["dask.json"]
    picky = document.replace('"node_selector": {}', '"node_selector": {"disk": "none"}')
    picky = picky.replace('"startup_timeout_seconds": 240', '"startup_timeout_seconds": 20')
    assert picky != document
    configure(cluster, before | {"dask.json": picky})
    try:
        state = empty_store.final_state(empty_store.start(f"{HEAVY}/ingest"), RUN_S)
    finally:
        configure(cluster, before)
    assert state["type"] == "FAILED"
    assert "not ready after 20 s" in state["message"]
    assert "Unschedulable" in state["message"]
    empty_store.assert_nothing_left()


def configure(cluster: Cluster, data: dict[str, str]) -> None:
    cluster.store.change(CONFIGMAP, "em", "macroscope-config", lambda m: m.update(data=data))
