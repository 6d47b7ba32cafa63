"""The chart, installed into a stand-in cluster: its own objects, its own pods, its own Roles."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import requests
import zarr

from emulators.catalogue import dvid_voxels, truth
from emulators.control import Control
from lib.archives.registry import REGISTRY, default_sources
from lib.config.loaders import OPENORGANELLE_EM_PATHS
from lib.config.manager import ConfigManager
from lib.kubernetes.cleanup import is_active
from tests.kit.prefect_server import ask
from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.apiserver.kinds import (
    CLUSTER,
    CRON_JOB,
    DEPLOYMENT,
    JOB,
    POD,
    SECRET,
    by_manifest,
)
from tests.kubernetes.kube_checks import pod_specs, restricted_violations

Manifest = dict[str, Any]
PREFECT = str(Path(sys.executable).with_name("prefect"))
START_S = 900  # a machine with a load of 27 had no server, worker and operator within 240 s
RUN_S = 900  # for a run
HEAVY = "openorganelle"  # a source that gets a Dask cluster
# what a run brings in that names no source
SOURCES = default_sources(ConfigManager().load(environ={}, dotenv=None).settings.sources)

# small pods, short waits; the stand-in archives run beside the test, not in a pod
VALUES = (
    "samples.enabled=true",
    'flow.executionMode="sequential"',
    "dask.workers=1",
    # what the demo (k8s/kind-values.yaml) says of the stand-ins' small volumes
    'config={"sources":{"epfl":{"heavy":true},"openorganelle":{"heavy":true}}}',
    "dask.startupTimeoutSeconds=240",
    "dask.idleTimeoutSeconds=60",
)
UNFINISHED = ["RUNNING", "PENDING", "CANCELLING"]
_LEFT_OUT = {"macroscope-test", "macroscope-cleanup-uninstall", "macroscope-samples"}
_ENDS = ("Succeeded", "Failed")


def withhold_chunks(faults: Control) -> None:
    """Let no chunk of the heavy source come until faults are cleared: no run of it ends before.

    A read gives up after a minute and is tried again, five times.
    """
    chunk = r"/s\d+/\d+[./]\d+[./]\d+$"
    faults.add("stall", "s3", match=chunk, before=True, seconds=3600)


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
        self._services = services
        self.manifests = list(manifests)
        self.install()

    def install(self) -> None:
        """``helm install``; what is there already (claims that were kept) stays."""
        for manifest in self.manifests:
            if manifest["metadata"]["name"] in _LEFT_OUT and manifest["kind"] != "Service":
                continue
            if manifest["metadata"]["name"] == "macroscope-settings":
                settings = manifest["data"] | {"EM_SERVICES": json.dumps(self._services)}
                manifest = manifest | {"data": settings}
            kind = by_manifest(manifest)
            if self.cluster.store.find(kind, "em", manifest["metadata"]["name"]) is None:
                self.cluster.apply(manifest)

    def hook(self, name: str) -> str:
        """Run a hook that is a Job or a Pod to its end; returns what it printed."""
        [manifest] = [m for m in self.manifests if m["metadata"]["name"] == name]
        cluster = self.cluster
        made = cluster.apply(manifest)
        uid = made["metadata"]["uid"]

        def ended() -> list[Manifest]:
            return [
                pod
                for pod in cluster.store.list(POD, "em")
                if uid in [pod["metadata"]["uid"], *_owners(pod)]
                and pod["status"]["phase"] in _ENDS
            ]

        [pod] = cluster.wait(ended, RUN_S, f"{name} ended")
        printed = cluster.log(pod)
        assert pod["status"]["phase"] == "Succeeded", printed
        cluster.delete(by_manifest(manifest), name)
        return printed

    def uninstall(self) -> str:
        """``helm uninstall``: the hook, then every object but the claims, which are kept."""
        printed = self.hook("macroscope-cleanup-uninstall")
        for manifest in self.manifests:
            kind, name = by_manifest(manifest), manifest["metadata"]["name"]
            kept = kind.name == "PersistentVolumeClaim"
            if not kept and self.cluster.store.find(kind, "em", name) is not None:
                self.cluster.delete(kind, name)
        self.cluster.wait(lambda: not self.cluster.store.list(POD, "em"), START_S, "pods gone")
        return printed

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

    def api(self, path: str, body: Any = None) -> Any:
        """Ask the Prefect API, as its UI does: POST with a body, else GET."""
        url = f"http://{self.cluster.address(self.server())}:4200/api"
        return ask(url, path, body, self.auth)

    @property
    def auth(self) -> str | None:
        """The auth string that the chart made."""
        data = self.cluster.store.get(SECRET, "em", "macroscope-prefect")["data"]
        return base64.b64decode(data["auth-string"]).decode()

    def start(self, deployment: str, **parameters: Any) -> str:
        """Start a run of a deployment; returns its id."""
        found = self.api(f"deployments/name/{deployment}")
        run = self.api(f"deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(run["id"])

    def state(self, run: str) -> Manifest:
        """The state of a run."""
        state: Manifest = self.api(f"flow_runs/{run}")["state"]
        return state

    def final_state(self, run: str, seconds: float) -> Manifest:
        """The state in which a run ends; a server that is away for a while is waited for."""
        found: list[Manifest] = []

        def final() -> bool:
            with suppress(requests.RequestException, AssertionError, KeyError):
                found[:] = [self.state(run)]
            return bool(found) and found[0]["type"] in (
                "COMPLETED",
                "FAILED",
                "CRASHED",
                "CANCELLED",
            )

        try:
            self.cluster.wait(final, seconds, f"run {run} ended")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {found}") from None
        return found[0]

    def children(self, run: str) -> dict[str, Manifest]:
        """States of the runs that a run started, by the source among their tags."""
        found = self.api("flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}})
        named = [(set(one["tags"]) & set(REGISTRY), one["state"]) for one in found]
        return {sources.pop(): state for sources, state in named if sources}

    def messages(self, run: str) -> list[str]:
        """What the logs of a run's children say, as the UI shows them."""
        asked = {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}}
        ids = [one["id"] for one in self.api("flow_runs/filter", asked)]
        found = self.api("logs/filter", {"logs": {"flow_run_id": {"any_": ids}}})
        return [str(line["message"]) for line in found]

    def unfinished(self) -> list[str]:
        """What Prefect holds for at work."""
        asked = {"flow_runs": {"state": {"type": {"any_": UNFINISHED}}}}
        found = self.api("flow_runs/filter", asked)
        return [f"{one['name']}: {one['state']['name']}" for one in found]

    def tidy(self, *, grace_seconds: int) -> str:
        """``kubectl create job --from=cronjob/macroscope-cleanup``; returns what it printed."""
        cron = self.cluster.store.get(CRON_JOB, "em", "macroscope-cleanup")
        spec = cron["spec"]["jobTemplate"]["spec"]
        args = spec["template"]["spec"]["containers"][0]["args"]
        assert args[-1].startswith("--grace-seconds=")
        args[-1] = f"--grace-seconds={grace_seconds}"
        job = {"apiVersion": "batch/v1", "kind": "Job", "spec": spec}
        made = self.cluster.apply({**job, "metadata": {"generateName": "tidy-"}})
        name = made["metadata"]["name"]

        def ended() -> Any:
            return (self.cluster.store.get(JOB, "em", name).get("status") or {}).get("conditions")

        [condition] = self.cluster.wait(ended, START_S, "the clean-up ended")
        [pod] = self.cluster.pods(job_name=name)
        printed = self.cluster.log(pod)
        assert condition["type"] == "Complete", printed
        return printed

    def server(self) -> Manifest:
        """The pod of the Prefect server."""
        return self._component("server")

    def components(self, name: str) -> list[Manifest]:
        """Pods of a part of the chart, also those that are being deleted."""
        return [
            pod
            for pod in self.cluster.store.list(POD, "em")
            if (pod["metadata"].get("labels") or {}).get("app.kubernetes.io/component") == name
        ]

    def _component(self, name: str) -> Manifest:
        for pod in self.components(name):
            if "deletionTimestamp" not in pod["metadata"]:
                return pod
        raise AssertionError(f"no pod of {name}")

    def worker(self) -> Manifest:
        """The pod of the Prefect worker."""
        return self._component("worker")

    def operator(self) -> Manifest:
        """The pod of the Dask operator."""
        return self._component("operator")

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

    def assert_nothing_left(self, seconds: float = RUN_S) -> None:
        """No Dask cluster, no run or Job at work, no process of a pod that is over."""
        self.cluster.wait(lambda: not self.unfinished(), seconds, "no run unfinished")
        self.cluster.wait(lambda: not self._jobs_at_work(), seconds, "no Job at work")
        self.cluster.wait(lambda: not self.cluster.store.list(CLUSTER), seconds, "clusters gone")
        self.cluster.wait(lambda: not self.flow_pods(), seconds, "flow pods ended")
        self.cluster.wait(lambda: not self._dask_left(), seconds, "Dask pods gone")
        for pod in self.cluster.store.list(POD, "em"):
            if pod["status"]["phase"] in ("Succeeded", "Failed"):
                assert self.cluster.processes(pod) == []

    def _jobs_at_work(self) -> list[str]:
        jobs = self.cluster.store.list(JOB, "em")
        return [job["metadata"]["name"] for job in jobs if is_active(job)]

    def _dask_left(self) -> list[Manifest]:
        return [
            pod
            for pod in self.cluster.store.list(POD, "em")
            if "dask.org/component" in (pod["metadata"].get("labels") or {})
        ]


def _owners(pod: Manifest) -> list[str]:
    return [owner["uid"] for owner in pod["metadata"].get("ownerReferences") or []]


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
