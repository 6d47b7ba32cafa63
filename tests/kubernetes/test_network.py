"""Who reaches whom, with the labels that the pods really have: Prefect and Dask add their own."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import Flow, FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from lib.kubernetes.dask_cluster import DaskSettings, Owner, cluster_spec
from tests.kubernetes.kube_checks import pod_specs
from tests.kubernetes.network_rules import OUTSIDE, Peer, isolated, may_connect

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]
SAMPLES = ("samples.enabled=true",)
ID = uuid.UUID(int=7)


def peers_of(objects: list[Manifest]) -> dict[str, Peer]:
    """Every pod that an installation has in its life, by component."""
    found = {}
    for manifest in objects:
        for _, spec in pod_specs(manifest):
            template = manifest
            for key in ("jobTemplate", "template"):
                template = template.get("spec", {}).get(key, template)
            labels = template["metadata"]["labels"]
            ports = spec["containers"][0].get("ports") or []
            component = labels["app.kubernetes.io/component"]
            found[component] = Peer(
                component, labels, {port["name"]: port["containerPort"] for port in ports}
            )
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    found["flow"] = flow_pod(json.loads(maps["macroscope-register"]["job-template.json"]))
    settings = DaskSettings.model_validate_json(maps["macroscope-config"]["dask.json"])
    dask = cluster_spec("em-epfl-0-1", settings, Owner("pod", "uid", "em", str(ID)))
    found["dask"] = Peer("dask", dask["spec"]["worker"]["metadata"]["labels"])
    return found


def flow_pod(template: Manifest) -> Peer:
    """A flow's pod, labelled by Prefect's own worker."""

    async def prepare() -> Manifest:
        async with PrefectClient("http://127.0.0.1:9/api") as client:  # nothing is asked of it
            made = await KubernetesWorkerJobConfiguration.from_template_and_values(
                template, {}, client=client
            )
        made.prepare_for_flow_run(
            FlowRun(id=ID, flow_id=ID, name="wise-fox"),
            DeploymentResponse(id=ID, flow_id=ID, name="ingest"),
            Flow(id=ID, name="ebi"),
        )
        return dict(made.job_manifest)

    return Peer("flow", asyncio.run(prepare())["spec"]["template"]["metadata"]["labels"])


@pytest.mark.parametrize("values", [(), SAMPLES], ids=["public", "samples"])
def test_no_pod_escapes_the_default_deny(render: Render, values: tuple[str, ...]) -> None:
    objects = render(*values)
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    peers = peers_of(objects)
    assert {"flow", "dask", "server", "worker", "operator", "register", "cleanup"} <= set(peers)
    loose = [
        name for name, pod in peers.items() if isolated(policies, pod) != {"Ingress", "Egress"}
    ]
    assert loose == []


@pytest.mark.parametrize(
    ("target", "port", "allowed"),
    [
        ("server", 4200, {"worker", "flow", "dask", "register", "cleanup", "test"}),
        ("dask", 8786, {"flow", "dask", "operator"}),
        ("dask", 8787, {"flow", "dask", "operator"}),
        ("samples", 8100, {"flow", "dask"}),
        ("samples", 8125, {"flow", "dask"}),
        ("worker", 8080, set()),
        ("flow", 22, set()),
    ],
)
def test_pods_are_reached_by_those_who_need_them_and_by_no_others(
    render: Render, target: str, port: int, allowed: set[str]
) -> None:
    objects = render(*SAMPLES)
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    peers = peers_of(objects) | {"stranger": Peer("stranger", {"app": "other"}), "outside": OUTSIDE}
    reached = {
        name
        for name, pod in peers.items()
        if name != target and may_connect(policies, pod, peers[target], port)
    }
    assert reached == allowed - {target}
    assert may_connect(policies, peers[target], peers[target], port) is (target in allowed)


@pytest.mark.parametrize(
    ("port", "allowed"),
    [
        # 443 is also that of the archives
        (443, {"worker", "flow", "operator", "cleanup", "dask"}),
        (6443, {"worker", "flow", "operator", "cleanup", "dask"}),  # kind, k3s; FTP data
        (21, {"flow", "dask"}),
        (25, set()),
    ],
)
def test_only_loaders_and_those_who_use_its_api_leave_the_cluster(
    render: Render, port: int, allowed: set[str]
) -> None:
    objects = render()
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    peers = peers_of(objects)
    left = {name for name, pod in peers.items() if may_connect(policies, pod, OUTSIDE, port)}
    assert left == allowed


@pytest.mark.parametrize(
    "port", [443, 6443, 8443, 16443]
)  # cloud, kind and k3s, minikube, MicroK8s
def test_the_kubernetes_api_is_reached_behind_its_service_too(render: Render, port: int) -> None:
    objects = render(*SAMPLES)
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    peers = peers_of(objects)
    left = {name for name, pod in peers.items() if may_connect(policies, pod, OUTSIDE, port)}
    assert left == {"worker", "flow", "operator", "cleanup"}
