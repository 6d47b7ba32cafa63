"""The real helm at work in a stand-in cluster: installs and upgrades of the chart."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.apiserver.kinds import DEPLOYMENT, SECRET
from tests.kubernetes.installation import Installation
from tests.kubernetes.kube_binaries import program

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "macroscope"
CHART_0_1_0 = ROOT / "tests" / "fixtures" / "chart_0_1_0" / "macroscope-0.1.0.tgz"
# the chart's resource definitions are built into the stand-in
FLAGS = ("--wait=hookOnly", "--skip-crds")


class Release:
    """A release named ``macroscope`` in the namespace ``em``."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def helm(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run helm as the administrator of the cluster."""
        config = str(self.cluster.kubeconfig())
        command = [program("helm"), *words, "--namespace", "em", "--kubeconfig", config]
        return subprocess.run(command, capture_output=True, text=True)

    def put(self, verb: str, *sets: str, chart: Path = CHART, hooks: bool = True) -> str:
        """``helm install`` or ``helm upgrade``; returns what it said where it refused, or nothing.

        Parameters
        ----------
        sets
            For ``--set-json``.
        """
        flags = [part for text in sets for part in ("--set-json", text)]
        flags += [] if hooks else ["--no-hooks"]
        done = self.helm(verb, "macroscope", str(chart), *FLAGS, "--timeout=15m", *flags)
        return done.stderr if done.returncode else ""

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """The specification of an object in the cluster."""
        for known, manifest in self.cluster.store.everything():
            if (known.name, manifest["metadata"]["name"]) == (kind, name):
                return dict(manifest["spec"])
        return None

    def keep_secret(self, name: str, **data: str) -> None:
        """Make or change a Secret of somebody's own."""
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
        store = self.cluster.store
        if not store.change(SECRET, "em", name, lambda found: found.update(data=encoded)):
            made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
            self.cluster.apply({**made, "data": encoded})

    def password(self) -> str:
        """What the Prefect API asks for, as its Secret has it."""
        data = self.cluster.store.get(SECRET, "em", "macroscope-prefect")["data"]
        return base64.b64decode(data["auth-string"]).decode()

    def template(self, name: str) -> dict[str, Any]:
        """The pod template of a Deployment; another one means other pods."""
        found = self.cluster.store.get(DEPLOYMENT, "em", f"macroscope-{name}")
        template: dict[str, Any] = found["spec"]["template"]
        return template


class Released(Installation):
    """An installation that helm looks after, hooks and all."""

    def __init__(self, cluster: Cluster, *sets: str, chart: Path = CHART) -> None:
        self.release = Release(cluster)
        self.refused = self.release.put("install", *sets, chart=chart)
        assert not self.refused, self.refused
        super().__init__(cluster, [], {})

    @property
    def auth(self) -> str | None:
        """The auth string that the chart made; None where it made none."""
        there = self.cluster.store.find(SECRET, "em", "macroscope-prefect") is not None
        return self.release.password() if there else None

    def _is_ready(self) -> bool:
        """helm waited for the registration; every Deployment has all its pods, of this revision."""
        found = self.cluster.store.list(DEPLOYMENT, "em")
        return all(
            (one.get("status") or {}).get("readyReplicas") == one["spec"]["replicas"]
            and one["status"]["observedGeneration"] == one["metadata"]["generation"]
            and one["status"]["replicas"] == one["spec"]["replicas"]
            for one in found
        )


def beside(endpoints: dict[str, Any]) -> str:
    """The value that leads every pod to stand-in archives that run beside the cluster."""
    env = {"EM_ARCHIVES": "samples", "EM_SERVICES": json.dumps(endpoints)}
    return f"extraEnv={json.dumps([{'name': key, 'value': env[key]} for key in env])}"
