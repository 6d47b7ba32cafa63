"""The chart on a stand-in cluster: what a run loses, and that its volume is exact all the same.

Everything of the chart runs as its own process with its own service account, under its own Roles
and under Pod Security "restricted". Minutes, because each pod pays for its imports.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest

from emulators.control import Control
from tests.kubernetes.apiserver.kinds import CLUSTER, JOB, POD
from tests.kubernetes.installation import HEAVY, RUN_S, SOURCES, Installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
AWAY_S = 30
Start = Callable[..., str]


def test_all_sources_each_as_its_own_job_the_heavy_ones_each_with_a_cluster_that_is_gone(
    empty_store: Installation,
) -> None:
    store = empty_store.cluster.store
    before = len(flow_jobs(empty_store))
    seen: dict[str, str] = {}
    run = empty_store.run()
    while run.poll() is None:
        for found in store.list(CLUSTER):
            seen[found["metadata"]["name"]] = found["metadata"]["ownerReferences"][0]["name"]
        try:
            run.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    printed, _ = run.communicate()
    assert run.returncode == 0, printed
    empty_store.assert_exact(*SOURCES)
    empty_store.assert_nothing_left()
    heavy = {"epfl", "openorganelle"}
    assert {name.split("-")[1] for name in seen} == heavy
    assert len(set(seen.values())) == len(heavy)  # each owned by the pod of its own source
    assert len(flow_jobs(empty_store)) - before == len(SOURCES) + 1


def flow_jobs(installed: Installation) -> list[str]:
    jobs = [job["metadata"] for job in installed.cluster.store.list(JOB, "em")]
    return [meta["name"] for meta in jobs if (meta.get("labels") or {}).get("macroscope/part")]


def delete_flow_pod(installed: Installation) -> None:
    """Preemption: SIGTERM, then a new Job."""
    installed.cluster.delete(POD, installed.flow_pods(HEAVY)[-1]["metadata"]["name"])


def delete_dask_worker(installed: Installation) -> None:
    """A Dask worker that is killed without a word."""
    pod = installed.dask_pods("worker")[0]
    installed.cluster.delete(POD, pod["metadata"]["name"], grace_seconds=0)


def starve_dask_worker(installed: Installation) -> None:
    """A Dask worker that is killed for its memory: 137, OOMKilled, started again."""
    installed.cluster.out_of_memory(installed.dask_pods("worker")[0])


def delete_dask_scheduler(installed: Installation) -> None:
    """The scheduler forgets all that it knew."""
    pod = installed.dask_pods("scheduler")[0]
    installed.cluster.delete(POD, pod["metadata"]["name"], grace_seconds=0)


def delete_worker(installed: Installation) -> None:
    """The Prefect worker is restarted."""
    installed.cluster.delete(POD, installed.worker()["metadata"]["name"])


def delete_server(installed: Installation) -> None:
    """The Prefect server is restarted on its SQLite file."""
    installed.cluster.delete(POD, installed.server()["metadata"]["name"])


def delete_operator(installed: Installation) -> None:
    """The Dask operator is restarted; its successor closes the cluster."""
    installed.cluster.delete(POD, installed.operator()["metadata"]["name"])


@pytest.mark.parametrize(
    "hit",
    [
        delete_flow_pod,
        delete_dask_worker,
        starve_dask_worker,
        delete_dask_scheduler,
        delete_worker,
        delete_server,
        delete_operator,
    ],
)
def test_a_run_that_loses_a_pod_still_ends_voxel_exact(
    empty_store: Installation,
    at_work: Start,
    faults: Control,
    hit: Callable[[Installation], None],
) -> None:
    run = at_work(f"{HEAVY}/ingest")
    hit(empty_store)
    faults.clear()
    state = empty_store.final_state(run, RUN_S)
    assert state["type"] == "COMPLETED", state
    empty_store.assert_exact(HEAVY)


def test_a_run_outlives_an_api_server_that_is_away(
    empty_store: Installation, at_work: Start, faults: Control
) -> None:
    run = at_work(f"{HEAVY}/ingest")
    with empty_store.cluster.away():
        faults.clear()
        time.sleep(AWAY_S)
    state = empty_store.final_state(run, RUN_S)
    assert state["type"] == "COMPLETED", state
    empty_store.assert_exact(HEAVY)


def test_after_a_drain_of_the_node_runs_end_by_name_and_running_again_completes_them(
    empty_store: Installation, at_work: Start, faults: Control
) -> None:
    """Server, worker, operator, parent, source and Dask cluster are all evicted at once."""
    run = at_work("macroscope/full", sources=[HEAVY])
    faults.clear()
    with empty_store.cluster.drained():
        pass
    empty_store.wait_until_ready()
    deadline = time.monotonic() + RUN_S
    while empty_store.unfinished() and time.monotonic() < deadline:
        empty_store.tidy(grace_seconds=60)  # as the CronJob does, every five minutes
        time.sleep(10)
    state = empty_store.final_state(run, RUN_S)
    empty_store.assert_nothing_left()
    if state["type"] != "COMPLETED":
        assert state["type"] in ("CRASHED", "FAILED"), state
        assert state["message"], state
        again = empty_store.start("macroscope/full", sources=[HEAVY])
        assert empty_store.final_state(again, RUN_S)["type"] == "COMPLETED"
    empty_store.assert_exact(HEAVY)
