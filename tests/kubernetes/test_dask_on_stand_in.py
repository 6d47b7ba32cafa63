"""A temporary Dask cluster in the stand-in: the chart's operator, a flow's pod, a killed worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.apiserver.kinds import CLUSTER, POD
from tests.kubernetes.installation import VALUES, refused
from tests.kubernetes.pods import Manifest, job

WAIT_S = 300
AWAY_S = 3
KINDS = ("Role", "RoleBinding", "ConfigMap", "Secret")
WORK = """
import os, time
from distributed import Client
from lib.kubernetes.kube_cluster import PatientKubeCluster
from lib.kubernetes.dask_cluster import cluster_request

def slow(number):
    time.sleep(0.3)
    return number * number

asked = cluster_request("epfl", "a run", 1, os.environ)["cluster_kwargs"]
with PatientKubeCluster(**asked) as cluster, Client(cluster) as client:
    futures = client.map(slow, range(20))
    print("at work", flush=True)
    print("the sum is", sum(client.gather(futures)), flush=True)
    while not os.path.exists("/tmp/go"):
        time.sleep(0.1)
print("closed", flush=True)
"""


@pytest.fixture
def cluster(tmp_path: Path, render: Callable[..., list[Manifest]]) -> Iterator[Cluster]:
    """A stand-in cluster with the chart's Dask operator and its Roles."""
    with Cluster(tmp_path / "cluster", refused) as running:
        for manifest in render(*VALUES):
            name = manifest["metadata"]["name"]
            if manifest["kind"] in KINDS or name == "macroscope-operator":
                running.apply(manifest)
        yield running
        assert running.access.refused == []


def from_field(name: str, path: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.long
def test_a_cluster_outlives_a_killed_worker_and_is_closed_behind_an_api_server_that_was_away(
    cluster: Cluster,
) -> None:
    container = {
        "env": [
            from_field("POD_NAME", "metadata.name"),
            from_field("POD_UID", "metadata.uid"),
            from_field("POD_NAMESPACE", "metadata.namespace"),
            {"name": "MACROSCOPE_DASK_SETTINGS", "value": "/etc/macroscope/dask.json"},
        ],
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "config", "mountPath": "/etc/macroscope"},
        ],
    }
    volumes = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "config", "configMap": {"name": "macroscope-config"}},
    ]
    more = {"serviceAccountName": "macroscope-flow", "volumes": volumes}
    cluster.apply(job("flow", "python", "-c", WORK, container=container, **more))
    flow = cluster.wait(lambda: cluster.pods(job_name="flow"), WAIT_S, "flow")[0]

    def ended() -> Any:
        phase = cluster.store.get(POD, "em", flow["metadata"]["name"])["status"]["phase"]
        return phase in ("Succeeded", "Failed")

    cluster.wait(lambda: "at work" in cluster.log(flow) or ended(), WAIT_S, "work begun")
    [first] = cluster.wait(lambda: dask_workers(cluster), WAIT_S, "a worker")
    cluster.delete(POD, first["metadata"]["name"], grace_seconds=0)
    done = f"the sum is {sum(n * n for n in range(20))}"
    cluster.wait(lambda: done in cluster.log(flow) or ended(), WAIT_S, "work done")
    with cluster.away():
        (cluster.folder / "pods" / flow["metadata"]["uid"] / "tmp" / "go").touch()
        time.sleep(AWAY_S)
        assert "closed" not in cluster.log(flow)
    cluster.wait(ended, WAIT_S, "cluster closed")
    assert cluster.store.get(POD, "em", flow["metadata"]["name"])["status"]["phase"] == "Succeeded"
    assert "is not supported" not in cluster.log(flow)
    cluster.wait(lambda: not cluster.store.list(CLUSTER), WAIT_S, "cluster gone")
    cluster.wait(lambda: not dask_workers(cluster), WAIT_S, "its workers gone")


def dask_workers(cluster: Cluster) -> list[Manifest]:
    return [
        pod
        for pod in cluster.store.list(POD, "em")
        if (pod["metadata"].get("labels") or {}).get("dask.org/component") == "worker"
    ]
