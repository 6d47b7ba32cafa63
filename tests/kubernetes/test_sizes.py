"""Everything that runs at once fits on one small node, by what its pods request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib.execution import MODES
from lib.kubernetes.dask_cluster import DaskSettings, Owner, cluster_spec, parse_bytes
from tests.kubernetes.kube_checks import pod_specs

Manifest = dict[str, Any]
KIND_VALUES = Path(__file__).parents[2] / "k8s" / "kind-values.yaml"
GIB = 2**30
# four cores and 8 GiB, less what kind's own pods and its node's system take
NODE = (3.0, 7.25)
LARGE_NODE = (3.0, 15.0)  # the same with 16 GiB
PUBLIC_HEAVY = {"epfl", "flyem", "openorganelle"}  # 3.4, 1.0 and 0.9 GB of voxels by default
SMALL_NODE = (2.0, 7.25)  # cores of which kind's own pods request nearly one


class Sum:
    """CPU (cores) and memory (GiB) that some pods request."""

    def __init__(self) -> None:
        self.cores, self.gib = 0.0, 0.0

    def add(self, requests: Manifest, times: int = 1) -> None:
        cpu = str(requests["cpu"])
        self.cores += times * (float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu))
        self.gib += times * parse_bytes(requests["memory"]) / GIB


Render = Callable[..., list[Manifest]]


def trial(render: Render) -> list[Manifest]:
    """What the chart makes of the values for kind."""
    values = yaml.safe_load(KIND_VALUES.read_text())
    return render(*(f"{key}={json.dumps(value)}" for key, value in values.items()))


def running(objects: list[Manifest], sources: Iterable[str], clusters: int) -> Sum:
    """Requests of the chart's own pods, of the parent, of some sources and of Dask clusters."""
    total = Sum()
    for manifest in objects:
        if manifest["kind"] == "Job":
            continue  # at install, upgrade and uninstall only
        for _, pod in pod_specs(manifest):
            total.add(pod["containers"][0]["resources"]["requests"])
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    overrides = yaml.safe_load(maps["macroscope-register"]["overrides.yaml"])
    for name in ("macroscope/full", *(f"{source}/ingest" for source in sources)):
        pod = overrides[name]["job_variables"]
        total.add({"cpu": pod["cpu_request"], "memory": pod["memory_request"]})
    settings = DaskSettings.model_validate_json(maps["macroscope-config"]["dask.json"])
    spec = cluster_spec("em-epfl-0-1", settings, Owner("pod", "uid", "em", "run"))["spec"]
    for part, times in (("scheduler", 1), ("worker", spec["worker"]["replicas"])):
        container = spec[part]["spec"]["containers"][0]
        total.add(container["resources"]["requests"], times * clusters)
    return total


@pytest.mark.parametrize(
    ("installed", "heavy", "node"),
    [
        (lambda render: render("samples.enabled=true"), set(), NODE),
        (trial, {"epfl", "openorganelle"}, SMALL_NODE),
        (lambda render: render(), PUBLIC_HEAVY, LARGE_NODE),
    ],
    ids=["stand-ins", "trial", "public"],
)
def test_a_staged_run_fits_on_one_node(
    render: Render,
    installed: Callable[[Render], list[Manifest]],
    heavy: set[str],
    node: tuple[float, float],
) -> None:
    objects = installed(render)
    for stage in MODES["staged"].stages:
        found = running(objects, stage.sources, len(heavy & set(stage.sources)))
        assert found.cores <= node[0], stage.name
        assert found.gib <= node[1], stage.name


def test_the_trial_has_room_for_two_clusters_at_once(render: Render) -> None:
    found = running(trial(render), ("epfl", "openorganelle"), 2)
    assert found.cores <= SMALL_NODE[0]
    assert found.gib <= SMALL_NODE[1]
