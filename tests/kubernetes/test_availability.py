"""Several servers, workers and nodes: what the chart renders for them, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT

from tests.kubernetes.kube_checks import pod_specs
from tests.kubernetes.network_rules import OUTSIDE, may_connect
from tests.kubernetes.test_chart import AVAILABLE, PROXY, by_name, env_of
from tests.kubernetes.test_network import peers_of

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


def pod(objects: list[Manifest], key: str) -> Manifest:
    """The pod spec of one object."""
    [(_, spec)] = pod_specs(by_name(objects, key))
    return spec


def test_several_api_servers_and_the_services_apart_share_one_database_and_redis(
    render: Render,
) -> None:
    objects = render(*AVAILABLE)
    server, services = (f"Deployment/macroscope-{name}" for name in ("server", "services"))
    assert by_name(objects, server)["spec"]["replicas"] == 2
    assert by_name(objects, server)["spec"]["strategy"] == {"type": "RollingUpdate"}
    assert "--no-services" in pod(objects, server)["containers"][0]["args"]
    started = pod(objects, services)["containers"][0]["args"]
    assert started == ["prefect", "server", "services", "start"]
    own = {"PREFECT_SERVER_UI_STATIC_DIRECTORY", "PREFECT_SERVER_UI_API_URL"}
    own |= {"PREFECT_SERVER_CORS_ALLOWED_ORIGINS"}
    first, second = env_of(by_name(objects, server)), env_of(by_name(objects, services))
    assert {key: first[key] for key in set(first) - own} == second
    assert second["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == ("pg", "connection-url")
    for name in ("REDIS_MESSAGING", "REDIS_WORKER_CLEANUP_QUEUE", "SERVER_DOCKET"):
        assert second[f"PREFECT_{name}_URL"] == ("redis", "connection-url")


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (('server={"database":{"existingSecret":"pg"}}',), ["server"]),
        (AVAILABLE, ["server", "services"]),
    ],
)
def test_a_busy_postgresql_is_waited_for_as_long_as_a_client_waits_for_the_server(
    render: Render, values: tuple[str, ...], parts: list[str]
) -> None:
    """By default a connection has 5 s and a statement 10; what takes longer ends in a traceback."""
    objects = render(*values)
    patience = PREFECT_API_REQUEST_TIMEOUT.value()
    for name in parts:
        env = env_of(by_name(objects, f"Deployment/macroscope-{name}"))
        for what in ("CONNECTION_TIMEOUT", "TIMEOUT"):
            assert float(env[f"PREFECT_SERVER_DATABASE_{what}"]) >= patience


def test_every_variable_of_the_servers_is_a_setting_of_prefect_and_every_module_is_there(
    render: Render,
) -> None:
    """A setting whose name is wrong is passed over in silence."""
    import importlib

    from prefect.settings import Settings
    from prefect_redis.cleanup_queue import RedisWorkerCleanupQueueSettings
    from prefect_redis.client import RedisMessagingSettings

    known = {name.upper() for name in _names(Settings)}
    known |= {name.upper() for name in _names(RedisMessagingSettings, "PREFECT_REDIS_MESSAGING")}
    queue = "PREFECT_REDIS_WORKER_CLEANUP_QUEUE"
    known |= {name.upper() for name in _names(RedisWorkerCleanupQueueSettings, queue)}
    found = env_of(by_name(render(*AVAILABLE), "Deployment/macroscope-services"))
    assert {name for name in found if name.startswith("PREFECT_")} - known == set()
    for module in (value for value in found.values() if str(value).startswith("prefect_redis.")):
        importlib.import_module(module)


def _names(settings: Any, prefix: str = "PREFECT") -> set[str]:
    found = set()
    for name, field in settings.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            found |= _names(field.annotation, f"{prefix}_{name}")
        else:
            found.add(f"{prefix}_{name}")
    return found


def test_a_hook_migrates_the_database_before_servers_that_do_not(render: Render) -> None:
    objects = render(*AVAILABLE)
    hooks = {
        manifest["kind"]: manifest["metadata"]["annotations"]
        for manifest in objects
        if manifest["metadata"]["name"] == "macroscope-migrate"
    }
    assert set(hooks) == {"Job", "NetworkPolicy", "ServiceAccount"}
    assert {hook["helm.sh/hook"] for hook in hooks.values()} == {"pre-install,pre-upgrade"}
    weights = {kind: int(hook.get("helm.sh/hook-weight", 0)) for kind, hook in hooks.items()}
    assert weights["Job"] > max(weights["NetworkPolicy"], weights["ServiceAccount"])
    env = env_of(by_name(objects, "Job/macroscope-migrate"))
    assert env["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == ("pg", "connection-url")
    assert not [name for name in env if "AUTH_STRING" in name]  # its Secret comes after the hook
    for name in ("server", "services"):
        env = env_of(by_name(objects, f"Deployment/macroscope-{name}"))
        assert env["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] == "false"
    assert not [o for o in render() if o["metadata"]["name"] == "macroscope-migrate"]


def test_replicas_spread_over_nodes_and_leave_them_one_at_a_time(render: Render) -> None:
    objects = render(*AVAILABLE)
    for name in ("server", "worker"):
        [spread] = pod(objects, f"Deployment/macroscope-{name}")["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        assert spread["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == name
    zoned = pod(objects, "Deployment/macroscope-services")["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in zoned] == ["topology.kubernetes.io/zone"]
    budgets = {
        o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "PodDisruptionBudget"
    }
    named = {f"macroscope-{part}" for part in ("server", "services", "worker", "operator")}
    assert set(budgets) == named
    assert all(spec["maxUnavailable"] == 1 for spec in budgets.values())


def test_a_component_is_placed_by_its_own_values_and_else_by_those_of_all(render: Render) -> None:
    objects = render(*AVAILABLE)
    server = pod(objects, "Deployment/macroscope-server")
    assert (server["nodeSelector"], server["priorityClassName"]) == ({"disk": "ssd"}, "high")
    assert pod(objects, "Deployment/macroscope-worker")["priorityClassName"] == "low"
    for job in ("Job/macroscope-register", "Job/macroscope-migrate", "CronJob/macroscope-cleanup"):
        assert pod(objects, job)["nodeSelector"] == {"pool": "small"}
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    template = json.loads(maps["macroscope-register"]["job-template.json"])
    variables = template["variables"]["properties"]
    dask = json.loads(maps["macroscope-config"]["dask.json"])
    assert variables["node_selector"]["default"] == {"pool": "big"}
    assert variables["priority_class_name"]["default"] == "low"
    assert (dask["node_selector"], dask["priority_class"]) == ({"disk": "ssd"}, "spot")
    assert dask["tolerations"] == [{"key": "spot", "operator": "Exists"}]


def test_containers_are_added_to_the_component_that_is_named(render: Render) -> None:
    objects = render(*AVAILABLE)
    server = pod(objects, "Deployment/macroscope-server")
    assert [one["name"] for one in server["containers"]] == ["server", "proxy"]
    assert server["initContainers"] == [PROXY]
    worker = pod(objects, "Deployment/macroscope-worker")
    assert [one["name"] for one in worker["containers"]] == ["worker"]
    assert "initContainers" not in worker


def test_the_image_is_held_where_flows_run(render: Render) -> None:
    held = pod(render(*AVAILABLE), "DaemonSet/macroscope-prepull")
    assert held["nodeSelector"] == {"pool": "big"}
    assert held["containers"][0]["image"] == "macroscope:0.1.0"
    assert not [o for o in render() if o["kind"] == "DaemonSet"]


@pytest.mark.parametrize(
    ("port", "allowed"), [(5432, {"server", "services", "migrate"}), (6379, {"server", "services"})]
)
def test_database_and_redis_are_reached_by_those_who_need_them(
    render: Render, port: int, allowed: set[str]
) -> None:
    objects = render(*AVAILABLE, 'networkPolicy={"archivePorts":[{"port":443}]}')
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    peers = peers_of(objects)
    assert {n for n, peer in peers.items() if may_connect(policies, peer, OUTSIDE, port)} == allowed
