"""The clean-up's own command, between a real Prefect server and the stand-in cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from lib.kubernetes.cleanup import RELEASE_LABEL
from lib.kubernetes.dask_cluster import FLOW_RUN_LABEL, MANAGED_BY
from lib.transport.environment import free_ports
from tests.kit.prefect_server import ask, patient, prefect_server
from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.apiserver.kinds import CLUSTER, JOB, Kind
from tests.kubernetes.installation import refused
from tests.kubernetes.pods import Manifest, job

ROOT = Path(__file__).parents[2]
WAIT_S = 240


@pytest.fixture
def cluster(tmp_path: Path, render: Callable[..., list[Manifest]]) -> Iterator[Cluster]:
    """An empty stand-in cluster with the clean-up's own Role."""
    with Cluster(tmp_path / "cluster", refused) as running:
        for manifest in render():
            role = manifest["kind"] in ("Role", "RoleBinding")
            if role and manifest["metadata"]["name"] == "macroscope-cleanup":
                running.apply(manifest)
        yield running
        assert running.access.refused == []


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    with prefect_server(tmp_path) as found:
        yield found


class Prefect:
    """Runs of a deployment of the pool, in whatever state."""

    def __init__(self, url: str) -> None:
        self._url = url
        pool = {"name": "macroscope", "type": "kubernetes"}
        ask(url, "work_pools/", pool)
        flow = ask(url, "flows/", {"name": "ebi"})["id"]
        made = {"name": "ingest", "flow_id": flow, "work_pool_name": "macroscope"}
        self._deployment = ask(url, "deployments/", made)["id"]

    def run(self, state: str) -> str:
        path = f"deployments/{self._deployment}/create_flow_run"
        run = str(ask(self._url, path, {})["id"])
        # one that never had a pod would be Cancelled at once
        pod = {"infrastructure_pid": "em:some-job"}
        with patient() as session:
            answer = session.patch(f"{self._url}/flow_runs/{run}", json=pod, timeout=120)
            answer.raise_for_status()
        ask(self._url, f"flow_runs/{run}/set_state", {"state": {"type": state}, "force": True})
        return run

    def state(self, run: str) -> str:
        return str(ask(self._url, f"flow_runs/{run}")["state"]["type"])


def dask_cluster(name: str, run: str, release: str = "macroscope") -> Manifest:
    meta = {"name": name, "labels": {**MANAGED_BY, FLOW_RUN_LABEL: run}}
    pods = {"metadata": {"labels": {RELEASE_LABEL: release}}}
    made = {"apiVersion": "kubernetes.dask.org/v1", "kind": "DaskCluster", "metadata": meta}
    return made | {"spec": {"scheduler": pods}}


def flow_job(name: str, run: str, release: str = "macroscope") -> Manifest:
    """A Job of a flow run, as the job template of a release makes it."""
    labels = {"macroscope/part": "flow", "prefect.io/flow-run-id": run}
    made = job(name, "sleep", "600", labels=labels)
    made["spec"]["template"]["metadata"] = {"labels": {RELEASE_LABEL: release}}
    return made


@pytest.mark.long
def test_what_prefect_and_kubernetes_disagree_on_is_put_right_once_it_is_old_enough(
    cluster: Cluster, environ: dict[str, str]
) -> None:
    prefect = Prefect(environ["PREFECT_API_URL"])
    runs = {
        "lost": prefect.run("RUNNING"),
        "never started": prefect.run("PENDING"),
        "going": prefect.run("CANCELLING"),
        "at work": prefect.run("RUNNING"),
        "over": prefect.run("COMPLETED"),
        "waiting": prefect.run("SCHEDULED"),
    }
    before = {name: prefect.state(run) for name, run in runs.items()}
    assert before["going"] == "CANCELLING"
    for name in ("at work", "over"):
        cluster.apply(flow_job(name.replace(" ", "-"), runs[name]))
    cluster.apply(dask_cluster("em-lost", runs["lost"]))
    cluster.apply(dask_cluster("em-at-work", runs["at work"]))
    # of another release in the namespace, whose runs this server does not know
    theirs = str(uuid4())
    cluster.apply(flow_job("theirs", theirs, "other"))
    cluster.apply(dask_cluster("em-theirs", str(uuid4()), "other"))
    cluster.wait(lambda: len(cluster.kubelet.running) == 3, WAIT_S, "all Jobs at work")

    def tidy(grace_seconds: int) -> list[str]:
        return clean_up(cluster, environ, grace_seconds)

    assert "0 runs, Jobs and clusters put right" in tidy(600)[-1]
    assert {name: prefect.state(run) for name, run in runs.items()} == before
    printed = tidy(0)
    assert {name: prefect.state(run) for name, run in runs.items()} == before | {
        "lost": "CRASHED",
        "never started": "CRASHED",
        "going": "CANCELLED",
    }
    cluster.wait(lambda: "over" not in names(cluster, JOB), WAIT_S, "the Job that was over gone")
    assert names(cluster, JOB) == {"at-work", "theirs"}
    assert names(cluster, CLUSTER) == {"em-at-work", "em-theirs"}
    assert "5 runs, Jobs and clusters put right" in printed[-1], "\n".join(printed)


def names(cluster: Cluster, kind: Kind) -> set[str]:
    return {one["metadata"]["name"] for one in cluster.store.list(kind)}


def test_an_uninstall_ends_nothing_of_another_release_in_the_namespace(cluster: Cluster) -> None:
    cluster.kubelet.cordoned = True
    for release in ("macroscope", "other"):
        cluster.apply(flow_job(f"flow-{release}", release, release))
        cluster.apply(dask_cluster(f"em-{release}", release, release))
    words = ["all", "--namespace=em", "--release=macroscope", "--wait-seconds=120"]
    done = subprocess.run(
        [sys.executable, "-m", "lib.kubernetes.cleanup", *words],
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig("em", "macroscope-cleanup"))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert names(cluster, JOB) == {"flow-other"}
    assert names(cluster, CLUSTER) == {"em-other"}


def clean_up(cluster: Cluster, environ: dict[str, str], grace_seconds: int) -> list[str]:
    """Run the clean-up as its pod does; returns what it logged."""
    kubeconfig = str(cluster.kubeconfig("em", "macroscope-cleanup"))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "flows.cleanup",
            "--namespace=em",
            "--release=macroscope",
            f"--grace-seconds={grace_seconds}",
        ],
        cwd=ROOT,
        env=environ | {"KUBECONFIG": kubeconfig, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if "HTTP Request" not in line]


def test_a_server_that_is_away_leaves_its_runs_for_the_next_turn_and_no_pod_in_error(
    cluster: Cluster,
) -> None:
    cluster.apply(dask_cluster("em-lost", "some-run"))
    (port,) = free_ports("127.0.0.1", 1)
    environ = {**os.environ, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    printed = clean_up(cluster, environ, 0)
    assert any("runs are left for the next turn" in line for line in printed)
    assert cluster.store.find(CLUSTER, "em", "em-lost") is None
