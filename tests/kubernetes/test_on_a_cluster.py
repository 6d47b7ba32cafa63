"""The chart on a stand-in cluster: real server, worker, operator, flows and Dask clusters.

Everything of the chart runs as its own process with its own service account, under its own Roles
and under Pod Security "restricted". Minutes, because each pod pays for its imports.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from apiserver.cluster import Cluster
from apiserver.kinds import CLUSTER, CONFIGMAP, JOB, POD
from installation import VALUES, Installation, Manifest, refused

from lib.archives.registry import REGISTRY, archive
from lib.samples.control import Control
from lib.samples.serving import Samples

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
RUN_S = 600
AWAY_S = 10
SOURCE = "openorganelle"


@pytest.fixture(scope="module")
def installed(
    samples: Samples,
    render: Callable[..., list[Manifest]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """The chart, up and registered."""
    with Cluster(tmp_path_factory.mktemp("cluster"), refused) as cluster:
        installation = Installation(cluster, render(*VALUES), samples.endpoints)
        installation.wait_until_ready()
        yield installation
        assert cluster.access.refused == []


@pytest.fixture
def at_work(installed: Installation, faults: Control) -> Iterator[Callable[[str], Any]]:
    """Start a deployment on an empty store, and return when its Dask worker waits for voxels."""
    cluster = installed.cluster
    store = cluster.folder / "claims" / "macroscope-data"
    shutil.rmtree(store, ignore_errors=True)

    def start(deployment: str) -> Any:
        run = installed.prefect("deployment", "run", deployment, "--watch", *_only(deployment))
        cluster.wait(lambda: cluster.store.list(CLUSTER), RUN_S, "a Dask cluster")
        faults.set_latency("s3", first_byte_s=3)
        return run, cluster.wait(lambda: _connected(installed), RUN_S, "a Dask worker at work")[0]

    yield start
    faults.clear()
    installed.assert_nothing_left()


def _only(deployment: str) -> tuple[str, ...]:
    return ("--param", f'sources=["{SOURCE}"]') if deployment == "macroscope/full" else ()


def _connected(installed: Installation) -> list[Manifest]:
    workers = installed.dask_pods("worker")
    return [pod for pod in workers if "Registered to" in installed.cluster.log(pod)]


def _ended(run: subprocess.Popen[str]) -> tuple[int, str]:
    printed, _ = run.communicate(timeout=RUN_S)
    return run.returncode, printed


def test_all_sources_each_as_its_own_job_the_heavy_ones_each_with_a_cluster_that_is_gone(
    installed: Installation,
) -> None:
    store = installed.cluster.store
    seen: dict[str, str] = {}
    run = installed.run()
    while run.poll() is None:
        for found in store.list(CLUSTER):
            seen[found["metadata"]["name"]] = found["metadata"]["ownerReferences"][0]["name"]
        try:
            run.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    assert _ended(run)[0] == 0
    installed.assert_exact(*REGISTRY)
    installed.assert_nothing_left()
    heavy = {source for source in REGISTRY if archive(source).heavy}
    assert heavy
    assert {name.split("-")[1] for name in seen} == heavy
    assert len(set(seen.values())) == len(heavy)  # each owned by the pod of its own source
    jobs = [job["metadata"]["labels"] for job in store.list(JOB, "em")]
    assert sum(job.get("macroscope/part") == "flow" for job in jobs) == len(REGISTRY) + 1


def delete_flow_pod(installed: Installation, _: Manifest) -> None:
    """Eviction, a drained node: SIGTERM, then a new Job."""
    pod = installed.flow_pods(SOURCE)[-1]
    installed.cluster.delete(POD, pod["metadata"]["name"])


def delete_dask_worker(installed: Installation, worker: Manifest) -> None:
    """A Dask worker that is killed without a word."""
    installed.cluster.delete(POD, worker["metadata"]["name"], grace_seconds=0)


def delete_dask_scheduler(installed: Installation, _: Manifest) -> None:
    """The scheduler forgets all that it knew."""
    pod = installed.dask_pods("scheduler")[0]
    installed.cluster.delete(POD, pod["metadata"]["name"], grace_seconds=0)


def delete_worker(installed: Installation, _: Manifest) -> None:
    """The Prefect worker is restarted."""
    installed.cluster.delete(POD, installed.worker()["metadata"]["name"])


@pytest.mark.parametrize(
    "hit", [delete_flow_pod, delete_dask_worker, delete_dask_scheduler, delete_worker]
)
def test_a_run_that_loses_a_pod_still_ends_voxel_exact(
    installed: Installation,
    at_work: Callable[[str], Any],
    faults: Control,
    hit: Callable[[Installation, Manifest], None],
) -> None:
    run, worker = at_work(f"{SOURCE}/ingest")
    hit(installed, worker)
    faults.clear()
    code, printed = _ended(run)
    assert code == 0, printed
    installed.assert_exact(SOURCE)


def test_a_run_outlives_an_api_server_that_is_away(
    installed: Installation, at_work: Callable[[str], Any], faults: Control
) -> None:
    run, _ = at_work(f"{SOURCE}/ingest")
    with installed.cluster.away():
        faults.clear()
        time.sleep(AWAY_S)
    code, printed = _ended(run)
    assert code == 0, printed
    installed.assert_exact(SOURCE)


def test_cancelling_the_parent_cancels_its_children_and_their_clusters(
    installed: Installation, at_work: Callable[[str], Any]
) -> None:
    run, _ = at_work("macroscope/full")
    parent = installed.flow_pods("macroscope")[-1]["metadata"]["labels"]["prefect.io/flow-run-id"]
    assert installed.prefect("flow-run", "cancel", parent).wait(RUN_S) == 0
    code, printed = _ended(run)
    assert code != 0
    assert "Cancelled" in printed


def test_a_cluster_that_no_node_can_take_fails_the_run_by_name(
    installed: Installation, faults: Control
) -> None:
    cluster = installed.cluster
    shutil.rmtree(cluster.folder / "claims" / "macroscope-data", ignore_errors=True)
    before = cluster.store.get(CONFIGMAP, "em", "macroscope-config")["data"]
    document = before["dask.json"]
    picky = document.replace('"node_selector": {}', '"node_selector": {"disk": "none"}')
    picky = picky.replace('"startup_timeout_seconds": 240', '"startup_timeout_seconds": 20')
    assert picky != document
    _configure(cluster, before | {"dask.json": picky})
    try:
        code, printed = _ended(
            installed.prefect("deployment", "run", f"{SOURCE}/ingest", "--watch")
        )
    finally:
        _configure(cluster, before)
    assert code != 0
    assert "Failed" in printed
    said = installed.last_message(SOURCE)
    assert "not ready after 20 s" in said
    assert "Unschedulable" in said
    installed.assert_nothing_left()


def _configure(cluster: Cluster, data: dict[str, str]) -> None:
    cluster.store.change(CONFIGMAP, "em", "macroscope-config", lambda m: m.update(data=data))
