"""The chart, installed into a stand-in cluster: its own objects, its own pods, its own Roles."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import requests
import zarr
from apiserver.cluster import Cluster
from apiserver.kinds import CLUSTER, DEPLOYMENT, JOB, POD
from kube_checks import pod_specs, restricted_violations

from lib.loader_config import OPENORGANELLE_EM_PATHS
from lib.samples.catalogue import dvid_voxels, truth

Manifest = dict[str, Any]
PREFECT = str(Path(sys.executable).with_name("prefect"))
START_S = 240  # a loaded machine starts a Prefect server in a minute

# small pods, short waits; the stand-in archives run beside the test, not in a pod
VALUES = (
    "samples.enabled=true",
    'flow.executionMode="sequential"',
    "dask.workers=1",
    "dask.startupTimeoutSeconds=240",
    "dask.idleTimeoutSeconds=60",
)
_LEFT_OUT = {"macroscope-test", "macroscope-cleanup-uninstall", "macroscope-samples"}


def refused(manifest: Manifest) -> str | None:
    """What a namespace under Pod Security "restricted" says to an object."""
    if manifest["kind"] != "Pod":
        return None
    found = [text for _, spec in pod_specs(manifest) for text in restricted_violations(spec)]
    return f"violates PodSecurity restricted: {', '.join(found)}" if found else None


class Installation:
    """A stand-in cluster with the chart in it, and what a person does with it."""

    def __init__(self, cluster: Cluster, manifests: Iterable[Manifest], services: Manifest) -> None:
        self.cluster = cluster
        for manifest in manifests:
            if manifest["metadata"]["name"] in _LEFT_OUT and manifest["kind"] != "Service":
                continue
            if manifest["metadata"]["name"] == "macroscope-settings":
                settings = manifest["data"] | {"EM_SERVICES": json.dumps(services)}
                manifest = manifest | {"data": settings}
            cluster.apply(manifest)

    def wait_until_ready(self) -> None:
        """Server, worker and operator are up, and the deployments are registered."""
        self.cluster.wait(self._is_ready, START_S, "server, worker and operator ready, registered")

    def _is_ready(self) -> bool:
        deployments = self.cluster.store.list(DEPLOYMENT, "em")
        job = self.cluster.store.find(JOB, "em", "macroscope-register") or {}
        registered = (job.get("status") or {}).get("succeeded")
        ready = [(one.get("status") or {}).get("readyReplicas") for one in deployments]
        return bool(registered and ready and all(ready))

    def prefect(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``kubectl exec deploy/macroscope-server -- prefect ...``."""
        server = self.server()
        api = f"http://{self.cluster.address(server)}:4200/api"
        env = self.cluster.environment(server) | {"PREFECT_API_URL": api, "NO_COLOR": "1"}
        env = {key: value for key, value in env.items() if key != "STANDIN_POD_UID"}
        return subprocess.Popen(
            [PREFECT, *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *sources: str) -> subprocess.Popen[str]:
        """Start ``prefect deployment run macroscope/full`` and follow it."""
        asked = ("--param", f"sources={json.dumps(sources)}") if sources else ()
        return self.prefect("deployment", "run", "macroscope/full", "--watch", *asked)

    def last_message(self, flow: str) -> str:
        """The message of the state of the latest run of a flow."""
        asked = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
        url = f"http://{self.cluster.address(self.server())}:4200/api/flow_runs/filter"
        runs = requests.post(url, json=asked, timeout=30).json()
        return str(runs[0]["state"]["message"])

    def server(self) -> Manifest:
        """The pod of the Prefect server."""
        return self._component("server")

    def _component(self, name: str) -> Manifest:
        for pod in self.cluster.store.list(POD, "em"):
            labels = pod["metadata"].get("labels") or {}
            here = labels.get("app.kubernetes.io/component") == name
            if here and "deletionTimestamp" not in pod["metadata"]:
                return pod
        raise AssertionError(f"no pod of {name}")

    def worker(self) -> Manifest:
        """The pod of the Prefect worker."""
        return self._component("worker")

    def flow_pods(self, flow: str = "") -> list[Manifest]:
        """Pods of flow runs that run, of one flow or of all."""
        return [
            pod
            for pod in self.cluster.store.list(POD, "em")
            if (pod["metadata"].get("labels") or {}).get("macroscope/part") == "flow"
            and pod["status"]["phase"] == "Running"
            and flow in ("", pod["metadata"]["labels"].get("prefect.io/flow-name"))
        ]

    def dask_pods(self, component: str) -> list[Manifest]:
        """Running pods of Dask clusters: scheduler or worker."""
        return [
            pod
            for pod in self.cluster.store.list(POD, "em")
            if (pod["metadata"].get("labels") or {}).get("dask.org/component") == component
            and pod["status"]["phase"] == "Running"
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def records(self) -> dict[str, Manifest]:
        """The records in the store, by source."""
        data = self.cluster.folder / "claims" / "macroscope-data" / "data"
        found = [json.loads(path.read_text()) for path in data.glob("*/metadata_*.json")]
        return {record["source"]: record for record in found}

    def assert_exact(self, *sources: str) -> None:
        """Every volume is complete, and holds the voxels of its source."""
        records = self.records()
        assert sorted(records) == sorted(sources)
        data = self.cluster.folder / "claims" / "macroscope-data" / "data"
        for source, record in records.items():
            assert record["status"] == "complete"
            voxels = zarr.open_group(data / record["files"]["volume"], mode="r")["0"]
            np.testing.assert_array_equal(np.asarray(voxels), expected(source, record))

    def assert_nothing_left(self, seconds: float = 60) -> None:
        """No Dask cluster, no flow at work, no process of a pod that is over."""
        self.cluster.wait(lambda: not self.cluster.store.list(CLUSTER), seconds, "clusters gone")
        self.cluster.wait(lambda: not self.flow_pods(), seconds, "flow pods ended")
        self.cluster.wait(lambda: not self._dask_left(), seconds, "Dask pods gone")
        for pod in self.cluster.store.list(POD, "em"):
            if pod["status"]["phase"] in ("Succeeded", "Failed"):
                assert self.cluster.processes(pod) == []

    def _dask_left(self) -> list[Manifest]:
        return [
            pod
            for pod in self.cluster.store.list(POD, "em")
            if "dask.org/component" in (pod["metadata"].get("labels") or {})
        ]


def expected(source: str, record: Manifest) -> np.ndarray[Any, Any]:
    """The voxels that a source's default volume must hold."""
    if source == "flyem":
        where = record["additional_metadata"]
        origin, size = where["crop_origin_xyz"][::-1], where["crop_size_xyz"][::-1]
        return dvid_voxels(tuple(origin), tuple(size))
    path = OPENORGANELLE_EM_PATHS["jrc_mus-nacc-2"]
    keys = {
        "ebi": "ebi/EMPIAR-11759",
        "epfl": "epfl/volumedata.tif",
        "idr": "idr/9846137",
        "openorganelle": f"openorganelle/jrc_mus-nacc-2/{path}/fibsem-int16/s1",
    }
    return truth(keys[source])
