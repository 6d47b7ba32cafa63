"""The work pool's job template, as Prefect's own code turns it into a Job."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from lib.kubernetes.dask_cluster import Owner, restricted_container, restricted_pod
from tests.kubernetes.kube_checks import pod_specs, restricted_violations, validate

TEMPLATE = Path(__file__).parents[2] / "k8s" / "job-template.json"


def job(**variables: Any) -> dict[str, Any]:
    """The Job that Prefect's worker would create, with a name as the API would give it."""
    template = json.loads(TEMPLATE.read_text())

    async def prepare() -> KubernetesWorkerJobConfiguration:
        async with PrefectClient("http://127.0.0.1:9/api") as client:  # nothing is asked of it
            configuration = await KubernetesWorkerJobConfiguration.from_template_and_values(
                template, variables, client=client
            )
        run = FlowRun(id=uuid.UUID(int=7), flow_id=uuid.UUID(int=8), name="wise-fox")
        configuration.prepare_for_flow_run(run)
        return configuration

    manifest: dict[str, Any] = asyncio.run(prepare()).job_manifest
    manifest["metadata"]["name"] = "wise-fox-x"
    return manifest


@pytest.fixture(scope="module")
def default_job() -> dict[str, Any]:
    return job()


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def test_job_is_valid_and_restricted(default_job: dict[str, Any]) -> None:
    validate(default_job)
    for name, pod in pod_specs(default_job):
        assert restricted_violations(pod) == [], name


def test_job_is_never_tried_again_by_kubernetes_and_goes_after_a_while(
    default_job: dict[str, Any],
) -> None:
    spec = default_job["spec"]
    assert (spec["backoffLimit"], spec["completions"], spec["parallelism"]) == (0, 1, 1)
    assert spec["ttlSecondsAfterFinished"] == 600
    assert pod_of(default_job)["terminationGracePeriodSeconds"] == 60


def test_flow_learns_who_owns_its_dask_cluster(default_job: dict[str, Any]) -> None:
    env = {item["name"]: item for item in pod_of(default_job)["containers"][0]["env"]}
    values = {
        name: env[name]["valueFrom"]["fieldRef"]["fieldPath"] for name in env if "POD" in name
    }
    assert values == {
        "POD_NAME": "metadata.name",
        "POD_UID": "metadata.uid",
        "POD_NAMESPACE": "metadata.namespace",
    }
    environ = {**values, "PREFECT__FLOW_RUN_ID": env["PREFECT__FLOW_RUN_ID"]["value"]}
    assert Owner.from_environment(environ).flow_run_id == str(uuid.UUID(int=7))


def test_clean_up_finds_the_job(default_job: dict[str, Any]) -> None:
    labels = default_job["metadata"]["labels"]
    assert labels["macroscope/part"] == "flow"
    assert labels["prefect.io/flow-run-id"] == str(uuid.UUID(int=7))


def test_variables_reach_the_pod() -> None:
    made = job(
        memory_limit="5Gi",
        node_selector={"disk": "ssd"},
        tolerations=[{"key": "spot", "operator": "Exists"}],
        priority_class_name="low",
        data_volume={"name": "data", "emptyDir": {}},
        env={"EM_DASK": "off"},
        labels={"team": "em"},
        grace_period_seconds=90,
        image="registry.example/macroscope:2",
    )
    validate(made)
    pod = pod_of(made)
    container = pod["containers"][0]
    assert container["resources"]["limits"]["memory"] == "5Gi"
    assert container["image"] == "registry.example/macroscope:2"
    assert {"name": "EM_DASK", "value": "off"} in container["env"]
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"] == [{"key": "spot", "operator": "Exists"}]
    assert pod["priorityClassName"] == "low"
    assert pod["terminationGracePeriodSeconds"] == 90
    assert {"name": "data", "emptyDir": {}} in pod["volumes"]
    assert made["spec"]["template"]["metadata"]["labels"]["team"] == "em"


def test_every_variable_is_described_and_used() -> None:
    template = json.loads(TEMPLATE.read_text())
    text = json.dumps(template["job_configuration"])
    for name, schema in template["variables"]["properties"].items():
        assert schema["description"], name
        assert f"{{{{ {name} }}}}" in text, f"{name} is not used"


def test_security_settings_are_those_of_the_dask_pods(default_job: dict[str, Any]) -> None:
    pod = pod_of(default_job)
    assert pod["securityContext"] == restricted_pod()
    assert pod["containers"][0]["securityContext"] == restricted_container()
