"""The temporary Dask cluster's manifest, and what is said when it does not come up."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from dask_kubernetes.operator.kubecluster.kubecluster import make_cluster_spec
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import ValidationError

from lib.errors import ConfigError
from lib.kubernetes.dask_cluster import (
    MAX_NAME,
    SETTINGS_VARIABLE,
    DaskSettings,
    Owner,
    Resources,
    cluster_name,
    cluster_request,
    cluster_spec,
    load_settings,
    parse_bytes,
)
from lib.kubernetes.kube_cluster import pod_reasons
from tests.kubernetes.kube_checks import pod_specs, restricted_violations, validate

OWNER = Owner("wise-fox-abc", "0d9f", "em", "run-1")
SETTINGS = DaskSettings(
    image="macroscope:1",
    env_from=({"configMapRef": {"name": "macroscope-settings"}},),
    volumes=({"name": "data", "persistentVolumeClaim": {"claimName": "d"}},),
    volume_mounts=({"name": "data", "mountPath": "/store"},),
    worker=Resources(cpu="2", memory="3Gi", cpu_limit="4"),
    node_selector={"disk": "ssd"},
    priority_class="low",
    image_pull_secrets=("registry",),
)


@pytest.fixture
def cluster() -> dict[str, Any]:
    return cluster_spec("em-epfl-ab12-1", SETTINGS, OWNER)


def container(cluster: dict[str, Any], part: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster["spec"][part]["spec"]["containers"][0]
    return found


def test_cluster_satisfies_dasks_own_schema_and_is_restricted(cluster: dict[str, Any]) -> None:
    validate(cluster)
    assert len(list(pod_specs(cluster))) == 2
    for name, pod in pod_specs(cluster):
        assert restricted_violations(pod) == [], name
        assert pod["automountServiceAccountToken"] is False
        assert pod["priorityClassName"] == "low"
        assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_dasks_own_spec_would_be_refused() -> None:
    stock = make_cluster_spec(name="stock", image="x", n_workers=1)
    for name, pod in pod_specs(stock):
        found = restricted_violations(pod)
        assert "pod: runAsNonRoot is not true" in found, name
        assert any("does not drop ALL capabilities" in text for text in found)
    broken = cluster_spec("em-x-1", SETTINGS, OWNER)
    broken["spec"]["worker"]["replicas"] = "two"
    with pytest.raises(ValidationError):
        validate(broken)


def test_commands_are_those_that_distributed_still_has(cluster: dict[str, Any]) -> None:
    assert container(cluster, "scheduler")["args"] == ["dask", "scheduler", "--host", "0.0.0.0"]
    assert container(cluster, "worker")["args"][:2] == ["dask", "worker"]


def test_worker_is_told_the_memory_of_its_container(cluster: dict[str, Any]) -> None:
    worker = container(cluster, "worker")
    args = worker["args"]
    assert args[args.index("--memory-limit") + 1] == str(3 * 1024**3)
    assert worker["resources"]["limits"] == {
        "cpu": "4",
        "memory": "3Gi",
        "ephemeral-storage": "1Gi",
    }
    assert args[args.index("--name") + 1] == "$(DASK_WORKER_NAME)"


def test_cluster_goes_with_the_flows_pod(cluster: dict[str, Any]) -> None:
    assert cluster["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "wise-fox-abc",
            "uid": "0d9f",
            "controller": False,
            "blockOwnerDeletion": False,
        }
    ]
    assert cluster["spec"]["idleTimeout"] == 300


def test_prefects_worker_does_not_take_dask_pods_for_flows(cluster: dict[str, Any]) -> None:
    assert "prefect.io/flow-run-id" not in str(cluster)


def test_number_of_workers_can_be_given(cluster: dict[str, Any]) -> None:
    assert cluster["spec"]["worker"]["replicas"] == 2
    assert cluster_spec("em-x-1", SETTINGS, OWNER, workers=5)["spec"]["worker"]["replicas"] == 5


@given(st.text(min_size=1, max_size=80), st.uuids().map(str), st.integers(0, 99_999))
def test_names_are_valid_whatever_the_source_is_called(source: str, run: str, count: int) -> None:
    name = cluster_name(source, run, count)
    assert len(name) <= MAX_NAME
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
    assert len(f"{name}-default-worker-0123456789") <= 63
    cluster_spec(name, SETTINGS, OWNER)


def test_no_two_sources_runs_or_retries_share_a_name() -> None:
    names = {
        cluster_name(source, run, count)
        for source in ("ebi", "openorganelle")
        for run in ("a", "b")
        for count in (1, 2)
    }
    assert len(names) == 8


@pytest.mark.parametrize("name", ["Em-x", "-x", "x-", "a" * 41, "a b", ""])
def test_invalid_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no name for a Dask cluster"):
        cluster_spec(name, SETTINGS, OWNER)


def test_missing_owner_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"POD_UID, POD_NAMESPACE not set.*EM_DASK=local"):
        Owner.from_environment({"POD_NAME": "x"})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("512Mi", 512 * 1024**2),
        ("2Gi", 2 * 1024**3),
        ("1500M", 1_500_000_000),
        ("1.5Gi", 1610612736),
        ("7", 7),
    ],
)
def test_quantities_are_bytes(text: str, number: int) -> None:
    assert parse_bytes(text) == number


@pytest.mark.parametrize("text", ["", "Gi", "2GB", "two", "-1Gi", "0", "2 G i", "1e3"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity of bytes|no memory"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "the document"),
        ('{"image": "x", "wrokers": 2}', "wrokers"),
        ('{"image": "x", "worker": {"memory": "2 GB"}}', "worker.memory"),
        ('{"image": "x", "idle_timeout_seconds": 1}', "idle_timeout_seconds"),
    ],
)
def test_wrong_settings_name_the_key(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "dask.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_settings(path)


def test_settings_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "dask.json"
    path.write_text(SETTINGS.model_dump_json())
    assert load_settings(path) == SETTINGS


@pytest.mark.parametrize("maximum", [None, 6])
def test_task_runner_gets_everything_from_the_pods_environment(
    tmp_path: Path, maximum: int | None
) -> None:
    path = tmp_path / "dask.json"
    settings = SETTINGS.model_copy(update={"adaptive_maximum": maximum})
    path.write_text(settings.model_dump_json())
    environ = {
        "POD_NAME": OWNER.pod_name,
        "POD_UID": OWNER.pod_uid,
        "POD_NAMESPACE": "em",
        "PREFECT__FLOW_RUN_ID": "run-1",
        SETTINGS_VARIABLE: str(path),
    }
    request = cluster_request("epfl", "subflow-7", 2, environ)
    arguments = request["cluster_kwargs"]
    name = cluster_name("epfl", "subflow-7", 2)
    assert arguments["custom_cluster_spec"] == cluster_spec(name, settings, OWNER)
    assert arguments["namespace"] == "em"
    assert arguments["startup_timeout_seconds"] == 300
    scaling = request.get("adapt_kwargs")
    assert scaling == (None if maximum is None else {"minimum": 2, "maximum": 6})
    module, _, cls = request["cluster_class"].rpartition(".")
    assert hasattr(import_module(module), cls)


def test_pending_pods_are_explained_in_kubernetes_words() -> None:
    pod = {
        "metadata": {"name": "w-1"},
        "status": {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes are available: 1 Insufficient memory.",
                }
            ],
            "containerStatuses": [
                {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
                {"state": {"terminated": {"reason": "OOMKilled"}}},
                {"state": {"running": {}}},
            ],
        },
    }
    assert pod_reasons(pod) == [
        "w-1: Unschedulable: 0/1 nodes are available: 1 Insufficient memory.",
        "w-1: ImagePullBackOff: no such image",
        "w-1: OOMKilled",
    ]
    assert pod_reasons({"metadata": {"name": "w"}, "status": {}}) == []
