"""The chart: valid, restricted and least-privileged; what is wrong is refused."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from emulators.serving import Samples
from flows.commands.server import LEASES_ON_DISK
from lib.archives.registry import REGISTRY
from lib.kubernetes.dask_cluster import DaskSettings, Owner, cluster_spec, parse_bytes
from tests.kit.documents import documents
from tests.kubernetes.kube_checks import pod_specs, restricted_violations, validate

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "macroscope"
Render = Callable[..., list[dict[str, Any]]]

CLOUD = (
    "server.enabled=false",
    'prefect={"apiUrl":"https://api.prefect.cloud/api/accounts/a/workspaces/b",'
    '"existingSecret":"cloud","apiKeyKey":"key"}',
)
BUCKET = (
    'storage={"type":"bucket","bucket":{"uri":"s3://b/em/","endpointUrl":"http://minio:9000",'
    '"existingSecret":"minio"}}',
)
EVERYWHERE = (
    'podLabels={"team":"em"}',
    'podAnnotations={"note":"x"}',
    'nodeSelector={"disk":"ssd"}',
    'tolerations=[{"key":"spot","operator":"Exists"}]',
    'affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":'
    '{"nodeSelectorTerms":[{"matchExpressions":[{"key":"a","operator":"Exists"}]}]}}}',
    'priorityClassName="low"',
    'extraEnv=[{"name":"HTTPS_PROXY","value":"http://proxy:3128"}]',
    'extraVolumes=[{"name":"ca","configMap":{"name":"ca"}}]',
    'extraVolumeMounts=[{"name":"ca","mountPath":"/etc/ca","readOnly":true}]',
    'image={"digest":"sha256:' + "0" * 64 + '","pullSecrets":["registry"]}',
    'commonLabels={"owner":"me"}',
)
CONTROLLER = (
    'networkPolicy={"uiFrom":[{"namespaceSelector":{"matchLabels":'
    '{"kubernetes.io/metadata.name":"ingress-nginx"}}}]}'
)
INGRESS = (
    'server={"ingress":{"enabled":true,"host":"em.lab","className":"nginx",'
    '"tls":{"secretName":"cert"}}}',
    CONTROLLER,
)
GATEWAY = (
    'server={"gateway":{"enabled":true,"host":"em.lab","parentRefs":[{"name":"lab"}]}}',
    CONTROLLER,
)
PROXY = {
    "name": "proxy",
    "image": "proxy:1",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
    "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "8Mi"}},
    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
}
PLACEMENT = {
    "server": {"priorityClassName": "high"},
    "services": {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "DoNotSchedule",
            }
        ]
    },
    "jobs": {"nodeSelector": {"pool": "small"}},
    "flow": {"nodeSelector": {"pool": "big"}},
    "dask": {
        "priorityClassName": "spot",
        "tolerations": [{"key": "spot", "operator": "Exists"}],
    },
}
AVAILABLE = (
    'server={"replicas":2,"database":{"existingSecret":"pg"},'
    '"redis":{"existingSecret":"redis"},"services":{"replicas":2}}',
    "worker.replicas=2",
    'nodeSelector={"disk":"ssd"}',
    'priorityClassName="low"',
    f"placement={json.dumps(PLACEMENT)}",
    f"extraContainers={json.dumps({'server': [PROXY]})}",
    f"extraInitContainers={json.dumps({'server': [PROXY]})}",
    "image.prePull=true",
)
MATRIX = {
    "defaults": (),
    "several servers": AVAILABLE,
    "samples": ("samples.enabled=true",),
    "cloud": CLOUD,
    "own server with a password": ('prefect={"existingSecret":"p","authStringKey":"auth"}',),
    "postgresql": ('server={"database":{"existingSecret":"pg"}}',),
    "no persistence": ("server.persistence.enabled=false",),
    "bucket": BUCKET,
    "bucket by role": (
        'storage={"type":"bucket","bucket":{"uri":"s3://b"}}',
        'serviceAccount={"annotations":{"eks.amazonaws.com/role-arn":"arn:aws:iam::1:role/em"}}',
    ),
    "bucket with keys": (
        'storage={"type":"bucket","bucket":{"uri":"s3://b","accessKey":"a","secretKey":"b"}}',
    ),
    "existing claim": ('storage={"volume":{"existingClaim":"mine"}}',),
    "bare": (
        "operator.enabled=false",
        'dask={"mode":"off"}',
        "networkPolicy.enabled=false",
        "podDisruptionBudget.enabled=false",
        "rbac.create=false",
        'cleanup={"onUninstall":false,"schedule":""}',
        "register.enabled=false",
    ),
    "adaptive": ('dask={"adaptiveMaximum":8}',),
    "everything set": EVERYWHERE,
    "ids by the platform": ('podSecurity={"runAsUser":null,"runAsGroup":null,"fsGroup":null}',),
    "ingress": INGRESS,
    "gateway": GATEWAY,
    "metrics": (
        'metrics={"enabled":true,"serviceMonitor":{"enabled":true},"rules":{"enabled":true},'
        '"dashboard":{"enabled":true}}',
        *BUCKET,
    ),
    "scheduled": ('sources={"ebi":{"enabled":true,"schedule":"0 3 * * *"}}',),
    "claims made by hand": (
        'server={"database":{"existingSecret":"pg"},"persistence":{"existingClaim":"mine"}}',
        'storage={"volume":{"storageClass":"-"}}',
    ),
    "a quota of limits": (
        'dask={"worker":{"cpuLimit":"2"},"scheduler":{"cpuLimit":"1"}}',
        "image.prePull=true",
    ),
}


@pytest.fixture(params=MATRIX.values(), ids=MATRIX.keys())
def objects(request: pytest.FixtureRequest, render: Render) -> list[dict[str, Any]]:
    """What the chart renders, for each row of the matrix."""
    return render(*request.param)


def by_name(objects: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """One object by ``Kind/name``."""
    return next(o for o in objects if f"{o['kind']}/{o['metadata']['name']}" == key)


def test_lint_finds_nothing(helm: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("row", ["defaults", "postgresql"])
def test_a_server_alone_keeps_leases_of_slots_where_a_new_pod_finds_them(
    render: Render, row: str
) -> None:
    """Prefect ends a run whose deployment's slot the server no longer knows."""
    server = by_name(render(*MATRIX[row]), "Deployment/macroscope-server")["spec"]
    pod = server["template"]["spec"]
    (container,) = pod["containers"]
    given = {one["name"]: one.get("value") for one in container["env"]}
    assert given["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == LEASES_ON_DISK
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "database"]
    assert given["PREFECT_HOME"].startswith(f"{mount['mountPath']}/")
    (volume,) = [one for one in pod["volumes"] if one["name"] == "database"]
    assert volume["persistentVolumeClaim"] == {"claimName": "macroscope-server"}
    assert server["strategy"] == {"type": "Recreate"}, "two nodes cannot have one claim"


def test_every_object_is_valid(objects: list[dict[str, Any]]) -> None:
    for manifest in objects:
        validate(manifest)


def test_every_pod_is_restricted(objects: list[dict[str, Any]]) -> None:
    pods = [pod for manifest in objects for pod in pod_specs(manifest)]
    assert pods
    assert {name: bad for name, pod in pods if (bad := restricted_violations(pod))} == {}


@pytest.mark.parametrize("given", [1001, 4242, None])
def test_every_pod_runs_as_the_ids_that_are_given_or_leaves_them_to_the_platform(
    render: Render, given: int | None
) -> None:
    """Dask's pods and flow pods, which the chart does not make, included."""
    ids = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), given)
    objects = render("samples.enabled=true", f"podSecurity={json.dumps(ids)}")
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    template = json.loads(maps["macroscope-register"]["job-template.json"])
    settings = DaskSettings.model_validate_json(maps["macroscope-config"]["dask.json"])
    cluster = cluster_spec("em-ebi-0-1", settings, Owner("pod", "uid", "em", "run"))
    flow = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    pods = [pod for one in (*objects, cluster) for _, pod in pod_specs(one)]
    for pod in (*pods, flow):
        assert {key: pod["securityContext"].get(key) for key in ids} == ids
    assert "1001" not in json.dumps(objects) or given == 1001


def test_no_object_is_rendered_twice(objects: list[dict[str, Any]]) -> None:
    names = [(o["kind"], o["metadata"]["name"]) for o in objects]
    assert len(names) == len(set(names))


def test_nothing_needs_more_than_the_namespace(objects: list[dict[str, Any]]) -> None:
    assert not {o["kind"] for o in objects} & {"ClusterRole", "ClusterRoleBinding", "Namespace"}


def test_only_pods_that_need_it_get_a_token(objects: list[dict[str, Any]]) -> None:
    for manifest in objects:
        for name, pod in pod_specs(manifest):
            part = pod["serviceAccountName"].rpartition("-")[2]
            wanted = part in ("worker", "operator", "cleanup")
            assert pod["automountServiceAccountToken"] is wanted, name


def test_names_that_pods_refer_to_exist(objects: list[dict[str, Any]]) -> None:
    there = {(o["kind"], o["metadata"]["name"]) for o in objects}
    given = {"mine", "ca"}
    for manifest in objects:
        for name, pod in pod_specs(manifest):
            assert ("ServiceAccount", pod["serviceAccountName"]) in there, name
            for volume in pod["volumes"]:
                claim = volume.get("persistentVolumeClaim", {}).get("claimName")
                config = volume.get("configMap", {}).get("name")
                assert claim is None or claim in given or ("PersistentVolumeClaim", claim) in there
                assert config is None or config in given or ("ConfigMap", config) in there


def test_resource_definitions_name_no_format_that_kubernetes_warns_of() -> None:
    for path in sorted((CHART / "crds").glob("*.yaml")):
        assert "format: int-or-string" not in path.read_text(), path.name


def test_roles_allow_exactly_the_verbs_that_were_seen_to_be_needed(render: Render) -> None:
    roles = {
        o["metadata"]["name"].removeprefix("macroscope-"): {
            (group, resource): " ".join(rule["verbs"])
            for rule in o["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
        }
        for o in render()
        if o["kind"] == "Role"
    }
    dask = "kubernetes.dask.org"
    everything = "get list watch patch create delete"
    assert roles == {
        "flow": {
            (dask, "daskclusters"): "get list create delete",
            (dask, "daskworkergroups"): "list",
            ("", "pods"): "get list",
            ("", "services"): "get list",
        },
        "worker": {
            ("batch", "jobs"): "create get list watch delete",
            ("", "pods"): "get list watch",
            ("", "pods/log"): "get",
        },
        "operator": {
            (dask, "daskclusters"): everything,
            (dask, "daskworkergroups"): everything,
            (dask, "daskautoscalers"): everything,
            (dask, "daskworkergroups/scale"): "get patch update",
            ("", "pods"): "get list watch",
            ("", "services"): "get list watch create patch",
            ("apps", "deployments"): "get list create delete",
            ("", "events"): "create",
        },
        "cleanup": {
            ("batch", "jobs"): "get list delete",
            (dask, "daskclusters"): "get list delete",
        },
    }


@pytest.mark.parametrize(
    ("sets", "batches"),
    [
        ((), "2"),
        (('dask={"workers":6,"threadsPerWorker":2}',), "12"),
        (('dask={"adaptiveMaximum":8}',), "8"),
    ],
)
def test_a_cluster_is_given_a_batch_for_each_of_its_threads(
    render: Render, sets: tuple[str, ...], batches: str
) -> None:
    settings = by_name(render(*sets), "ConfigMap/macroscope-settings")["data"]
    assert settings["EM_DASK_WORKERS"] == batches


def test_without_dask_nobody_needs_rights_on_dask(render: Render) -> None:
    """Who grants a right must have it; an administrator of a namespace has none on these kinds."""
    without = ('dask={"mode":"off"}', "operator.enabled=false")
    objects = render(*without)
    roles = [o for o in objects if o["kind"] == "Role"]
    assert {o["metadata"]["name"] for o in roles} == {"macroscope-worker", "macroscope-cleanup"}
    assert "kubernetes.dask.org" not in json.dumps([o["rules"] for o in roles])
    for name in ("CronJob/macroscope-cleanup", "Job/macroscope-cleanup-uninstall"):
        for wanted, given in ((True, objects), (False, render())):
            assert ("--without-dask" in json.dumps(by_name(given, name))) is wanted


def test_scaling_rights_come_only_with_adaptive_clusters(render: Render) -> None:
    flow = by_name(render(*MATRIX["adaptive"]), "Role/macroscope-flow")
    added = [rule for rule in flow["rules"] if "daskautoscalers" in rule["resources"]]
    assert [rule["verbs"] for rule in added] == [["get", "create", "patch", "delete"]]


def env_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Environment of an object's first container: a value, or Secret and key that hold it."""
    [(_, pod)] = pod_specs(manifest)
    found = {}
    for item in pod["containers"][0]["env"]:
        source = item.get("valueFrom", {}).get("secretKeyRef")
        found[item["name"]] = item.get("value", source and (source["name"], source["key"]))
    return found


@pytest.mark.parametrize(
    ("sets", "secret"),
    [
        ((), ("macroscope-prefect", "auth-string")),
        (MATRIX["own server with a password"], ("p", "auth")),
        (("server.auth.generate=false",), None),
    ],
)
def test_the_prefect_api_asks_for_a_password_that_all_its_clients_have(
    render: Render, sets: tuple[str, ...], secret: tuple[str, str] | None
) -> None:
    objects = render(*sets)
    server = env_of(by_name(objects, "Deployment/macroscope-server"))
    assert server.get("PREFECT_SERVER_API_AUTH_STRING") == secret
    clients = ("Deployment/macroscope-worker", "Job/macroscope-register", "Pod/macroscope-test")
    for name in (*clients, "CronJob/macroscope-cleanup", "Job/macroscope-cleanup-uninstall"):
        assert env_of(by_name(objects, name)).get("PREFECT_API_AUTH_STRING") == secret, name
    worker = env_of(by_name(objects, clients[0]))
    told = "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME"
    assert worker.get(told) == (secret and secret[0]), "flow pods get it from the worker"
    dask = json.loads(by_name(objects, "ConfigMap/macroscope-config")["data"]["dask.json"])["env"]
    assert ("PREFECT_API_AUTH_STRING" in [item["name"] for item in dask]) is (secret is not None)
    made = [o for o in objects if o["kind"] == "Secret"]
    assert len(made) == (not sets)
    if made:
        user, _, password = base64.b64decode(made[0]["data"]["auth-string"]).decode().partition(":")
        assert (user, len(password)) == ("macroscope", 32)


NO_PROXY = (
    "localhost,127.0.0.1,$(KUBERNETES_SERVICE_HOST),.svc,.cluster.local,"
    "macroscope-server.em,macroscope-samples"
)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"HTTPS_PROXY": "http://proxy:3128"}, NO_PROXY),
        ({"http_proxy": "http://proxy:3128"}, NO_PROXY),
        ({"https_proxy": "http://proxy:3128", "NO_PROXY": ".lab"}, ".lab"),
        ({"A": "1"}, None),
    ],
    ids=str,
)
def test_behind_a_proxy_pods_reach_each_other_and_the_kubernetes_api_without_it(
    render: Render, given: dict[str, str], told: str | None
) -> None:
    env = [{"name": name, "value": value} for name, value in given.items()]
    objects = render(*MATRIX["own server with a password"], f"extraEnv={json.dumps(env)}")
    found = {}
    for name in (
        "Deployment/macroscope-server",
        "Deployment/macroscope-worker",
        "Deployment/macroscope-operator",
        "Job/macroscope-register",
        "CronJob/macroscope-cleanup",
        "Pod/macroscope-test",
    ):
        found[name] = env_of(by_name(objects, name)).get("NO_PROXY")
    template = json.loads(
        by_name(objects, "ConfigMap/macroscope-register")["data"]["job-template.json"]
    )
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    dask = json.loads(by_name(objects, "ConfigMap/macroscope-config")["data"]["dask.json"])
    for name, listed in (("flow", pod["containers"][0]["env"]), ("dask", dask["env"])):
        found[name] = {one["name"]: one.get("value") for one in listed}.get("NO_PROXY")
    assert set(found.values()) == {told}, found


def test_under_a_quota_of_limits_every_pod_can_have_them(render: Render) -> None:
    """A namespace whose quota counts limits.cpu refuses a container that has none."""
    objects = render(*MATRIX["a quota of limits"])
    config = by_name(objects, "ConfigMap/macroscope-config")["data"]["dask.json"]
    settings = DaskSettings.model_validate_json(config)
    cluster = cluster_spec("em-ebi-0-1", settings, Owner("pod", "uid", "em", "run"))
    limits = {
        name: pod["containers"][0]["resources"]["limits"].get("cpu")
        for one in (*objects, cluster)
        for name, pod in pod_specs(one)
        if "resources" not in schema_of(one)
    }
    assert len(limits) == 4 and all(limits.values()), limits


def schema_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """What values say of the pods of an object: empty where they say nothing of its resources."""
    part = manifest["metadata"]["labels"].get("app.kubernetes.io/component", "")
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    found: dict[str, Any] = values.get({"test": "tests"}.get(part, part), {})
    return found


def test_a_claim_may_ask_for_a_volume_that_was_made_by_hand(render: Render) -> None:
    objects = render(*MATRIX["claims made by hand"])
    [claim] = [o for o in objects if o["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["storageClassName"] == ""
    server = by_name(objects, "Deployment/macroscope-server")["spec"]["template"]["spec"]
    assert {"name": "database", "persistentVolumeClaim": {"claimName": "mine"}} in server["volumes"]


def test_names_are_asked_for_at_the_ports_that_the_cluster_has(render: Render) -> None:
    def ports(*sets: str) -> set[int]:
        rule = by_name(render(*sets), "NetworkPolicy/macroscope-default")["spec"]["egress"][0]
        return {one["port"] for one in rule["ports"]}

    assert ports() == {53, 5353}, "OpenShift's DNS pods listen at 5353"
    assert ports('networkPolicy={"dnsPorts":[53]}') == {53}


def test_a_roll_back_registers_the_image_and_schedules_that_it_goes_back_to(render: Render) -> None:
    hook = by_name(render(), "Job/macroscope-register")["metadata"]["annotations"]["helm.sh/hook"]
    assert hook.split(",") == ["post-install", "post-upgrade", "post-rollback"]


def test_pages_of_other_hosts_may_not_call_the_prefect_api(render: Render) -> None:
    def origins(*sets: str) -> str:
        server = env_of(by_name(render(*sets), "Deployment/macroscope-server"))
        return str(server["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"])

    assert origins() == "http://127.0.0.1:4200,http://localhost:4200"
    assert origins('server={"corsOrigins":["https://em.lab"]}').endswith(",https://em.lab")


@pytest.mark.parametrize("sets", [INGRESS, GATEWAY], ids=["Ingress", "HTTPRoute"])
def test_a_browser_is_led_to_the_server_over_https_and_through_the_policies(
    render: Render, sets: tuple[str, ...]
) -> None:
    objects = render(*sets)
    [route] = [o for o in objects if o["kind"] in ("Ingress", "HTTPRoute")]
    assert "em.lab" in json.dumps(route["spec"])
    assert "macroscope-server" in json.dumps(route["spec"])
    if route["kind"] == "Ingress":
        assert route["spec"]["tls"] == [{"hosts": ["em.lab"], "secretName": "cert"}]
    server = env_of(by_name(objects, "Deployment/macroscope-server"))
    assert "https://em.lab" in server["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    policy = by_name(objects, "NetworkPolicy/macroscope-server")["spec"]["ingress"][0]["from"]
    assert any("namespaceSelector" in peer for peer in policy)


def test_network_is_closed_but_for_named_peers(render: Render) -> None:
    policies = {o["metadata"]["name"]: o for o in render() if o["kind"] == "NetworkPolicy"}
    default = policies["macroscope-default"]["spec"]
    assert default["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in default
    assert [[p["port"] for p in rule["ports"]] for rule in default["egress"]] == [
        [53, 53, 5353, 5353]
    ]
    labels = default["podSelector"]["matchLabels"]
    for manifest in render():
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["metadata"]["labels"]
            assert labels.items() <= pod.items(), manifest["metadata"]["name"]


def test_external_prefect_opens_its_port_and_no_server_policy(render: Render) -> None:
    policies = {o["metadata"]["name"]: o for o in render(*CLOUD) if o["kind"] == "NetworkPolicy"}
    assert "macroscope-server" not in policies
    rule = policies["macroscope-prefect-api"]["spec"]["egress"][0]
    assert rule == {"ports": [{"port": 443, "protocol": "TCP"}]}


def test_bucket_opens_the_port_of_its_server(render: Render) -> None:
    policy = by_name(render(*BUCKET), "NetworkPolicy/macroscope-archives")
    assert {"ports": [{"port": 9000, "protocol": "TCP"}]} in policy["spec"]["egress"]


def test_pods_of_flows_and_of_dask_get_what_all_pods_get(render: Render) -> None:
    objects = render(*EVERYWHERE)
    register = by_name(objects, "ConfigMap/macroscope-register")["data"]
    template = json.loads(register["job-template.json"])
    variables = {k: v.get("default") for k, v in template["variables"]["properties"].items()}
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]
    dask = json.loads(by_name(objects, "ConfigMap/macroscope-config")["data"]["dask.json"])
    assert variables["node_selector"] == dask["node_selector"] == {"disk": "ssd"}
    assert variables["tolerations"] == dask["tolerations"] != []
    assert variables["affinity"] == dask["affinity"] != {}
    assert variables["priority_class_name"] == dask["priority_class"] == "low"
    assert variables["annotations"] == dask["annotations"] == {"note": "x"}
    assert variables["image"] == dask["image"] == "macroscope@sha256:" + "0" * 64
    assert variables["image_pull_secrets"] == [{"name": "registry"}]
    assert dask["image_pull_secrets"] == ["registry"]
    assert pod["metadata"]["labels"]["team"] == dask["labels"]["team"] == "em"
    assert {"name": "ca", "configMap": {"name": "ca"}} in pod["spec"]["volumes"]
    assert {"name": "ca", "configMap": {"name": "ca"}} in dask["volumes"]
    env = {item["name"] for item in pod["spec"]["containers"][0]["env"]}
    assert {"POD_NAME", "POD_UID", "POD_NAMESPACE", "HTTPS_PROXY"} <= env
    assert "HTTPS_PROXY" in {item["name"] for item in dask["env"]}


@pytest.mark.parametrize("name", MATRIX)
def test_dask_settings_of_the_chart_make_a_valid_restricted_cluster(
    render: Render, name: str
) -> None:
    config = by_name(render(*MATRIX[name]), "ConfigMap/macroscope-config")["data"]
    settings = DaskSettings.model_validate_json(config["dask.json"])
    cluster = cluster_spec("em-ebi-0-1", settings, Owner("pod", "uid", "em", "run"))
    validate(cluster)
    for pod_name, pod in pod_specs(cluster):
        assert restricted_violations(pod) == [], pod_name


def test_store_in_a_bucket_needs_no_claim_and_carries_no_key(render: Render) -> None:
    objects = render(*BUCKET)
    assert not [o for o in objects if o["metadata"]["name"] == "macroscope-data"]
    settings = by_name(objects, "ConfigMap/macroscope-settings")["data"]
    assert settings["EM_DATA_DIR"] == "s3://b/em/data"
    assert settings["EM_DEST_ENDPOINT_URL"] == "http://minio:9000"
    dask = json.loads(by_name(objects, "ConfigMap/macroscope-config")["data"]["dask.json"])
    sources = [item["valueFrom"]["secretKeyRef"]["name"] for item in dask["env"]]
    assert sources == ["minio", "minio", "macroscope-prefect"]
    assert dask["volumes"][0] == {"name": "data", "emptyDir": {}}


def test_inline_keys_land_in_a_secret_only(render: Render) -> None:
    objects = render(*MATRIX["bucket with keys"])
    secret = by_name(objects, "Secret/macroscope-bucket")
    assert secret["stringData"] == {"access-key": "a", "secret-key": "b"}


def test_samples_are_announced_at_the_ports_they_listen_on(render: Render) -> None:
    objects = render("samples.enabled=true")
    services = json.loads(by_name(objects, "ConfigMap/macroscope-settings")["data"]["EM_SERVICES"])
    samples = Samples(public_host="macroscope-samples", base_port=8100)
    names = ("ftp", "mirror", "epfl", "empiar", "omero", "dvid", "s3")
    samples.ports = {name: samples._port(name) for name in names}
    assert services == samples.endpoints
    service = by_name(objects, "Service/macroscope-samples")["spec"]
    assert {p["name"]: p["port"] for p in service["ports"]} == samples.ports
    assert service["clusterIP"] == "None"


def test_sources_are_those_of_the_registry(render: Render) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values["sources"]) <= set(REGISTRY)
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]["sources"]["propertyNames"]["enum"]) == set(REGISTRY)


@pytest.mark.parametrize(
    ("source", "raw_bytes"), [("ebi", 488_985_701), ("epfl", 3_353_674_357), ("idr", 159_884_524)]
)
def test_raw_files_that_go_to_a_bucket_fit_on_the_disk_of_their_pod(
    render: Render, source: str, raw_bytes: int
) -> None:
    """They are gathered in /tmp; a pod that writes more there than its limit is evicted."""
    data = by_name(render(*BUCKET), "ConfigMap/macroscope-register")["data"]
    variables = yaml.safe_load(data["overrides.yaml"])[f"{source}/ingest"]["job_variables"]
    assert parse_bytes(variables["ephemeral_storage"]) > 1.2 * raw_bytes


def test_disabled_and_scheduled_sources_reach_the_registration(render: Render) -> None:
    objects = render(
        'sources={"ebi":{"enabled":false},"idr":{"enabled":true,"schedule":"0 3 * * *"}}'
    )
    data = by_name(objects, "ConfigMap/macroscope-register")["data"]
    overrides = yaml.safe_load(data["overrides.yaml"])
    assert overrides["ebi/ingest"] == {"enabled": False}
    assert overrides["idr/ingest"]["schedules"] == [{"cron": "0 3 * * *", "timezone": "UTC"}]
    assert set(overrides["macroscope/full"]) == {"job_variables"}


def test_schedules_are_in_the_time_zone_that_is_given(render: Render) -> None:
    objects = render(
        'prefect={"timezone":"Europe/Berlin"}',
        'flow={"schedule":"0 4 * * *"}',
        'sources={"ebi":{"enabled":true,"schedule":"0 3 * * *"}}',
    )
    data = by_name(objects, "ConfigMap/macroscope-register")["data"]
    overrides = yaml.safe_load(data["overrides.yaml"])
    zones = [
        overrides[key]["schedules"][0]["timezone"] for key in ("macroscope/full", "ebi/ingest")
    ]
    cron = by_name(objects, "CronJob/macroscope-cleanup")["spec"]
    assert [*zones, cron["timeZone"]] == ["Europe/Berlin"] * 3


def test_a_list_of_datasets_with_a_schedule_is_a_mirror(
    render: Render,
) -> None:
    listed = [{"address": "empiar:10310", "group": "worms"}]
    objects = render(f"flow.datasets={json.dumps(listed)}", 'flow.schedule="0 4 * * *"')
    texts = [
        one["data"]["overrides.yaml"] for one in objects if "overrides.yaml" in one.get("data", {})
    ]
    full = yaml.safe_load(texts[0])["macroscope/full"]
    assert full["parameters"] == {"datasets": listed}
    assert full["schedules"] == [{"cron": "0 4 * * *", "timezone": "UTC"}]


def test_chart_carries_the_job_template_of_k8s() -> None:
    assert (CHART / "files" / "job-template.json").read_text() == (
        ROOT / "k8s" / "job-template.json"
    ).read_text()


def test_budgets_let_a_node_be_drained(render: Render) -> None:
    budgets = [o for o in render() if o["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == 3
    assert {o["spec"]["maxUnavailable"] for o in budgets} == {1}


def test_uninstall_empties_the_namespace_before_the_operator_goes(render: Render) -> None:
    job = by_name(render(), "Job/macroscope-cleanup-uninstall")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    args = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "work-pool pause macroscope" in args[2]
    assert "lib.kubernetes.cleanup all" in args[2]


@pytest.mark.parametrize("name", ["defaults", "existing claim", "bucket", "postgresql"])
def test_every_claim_is_mounted_by_a_pod_of_the_release(render: Render, name: str) -> None:
    """Where volumes bind on first use, ``helm install --wait`` waits for claims nobody uses."""
    claims, mounted = set(), set()
    for manifest in render(*MATRIX[name]):
        if manifest["kind"] == "PersistentVolumeClaim":
            claims.add(manifest["metadata"]["name"])
        if "helm.sh/hook" in (manifest["metadata"].get("annotations") or {}):
            continue  # hooks run when the waiting is over
        for _, pod in pod_specs(manifest):
            sources = [volume.get("persistentVolumeClaim") for volume in pod["volumes"]]
            mounted |= {source["claimName"] for source in sources if source}
    assert claims <= mounted


def test_claims_outlive_the_release_unless_told_otherwise(render: Render) -> None:
    claims = [o for o in render() if o["kind"] == "PersistentVolumeClaim"]
    assert {c["metadata"]["annotations"]["helm.sh/resource-policy"] for c in claims} == {"keep"}


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (('prefect={"apiUrl":"http://x/api"}',), "server.enabled=false to use yours"),
        (("server.enabled=false",), "There is no Prefect API"),
        (
            (CLOUD[0], 'prefect={"apiUrl":"https://api.prefect.cloud/api/accounts/a"}'),
            "Prefect Cloud needs a key",
        ),
        (('prefect={"authStringKey":"a"}',), "does not say of which Secret"),
        (('storage={"type":"bucket"}',), "needs storage.bucket.uri"),
        (('storage={"bucket":{"uri":"s3://b"}}',), "but storage.type is volume"),
        (
            ('storage={"type":"bucket","bucket":{"uri":"s3://b","accessKey":"a"}}',),
            "only work together",
        ),
        (
            (
                'storage={"type":"bucket","bucket":{"uri":"s3://b","accessKey":"a",'
                '"secretKey":"b","existingSecret":"c"}}',
            ),
            "keep one of them",
        ),
        (('dask={"mode":"kubernetes"}', "operator.enabled=false"), "needs a Dask operator"),
        (('dask={"adaptiveMaximum":1}',), "is below dask.workers"),
        (("worker.enabled=false",), "leaves nobody to start the runs"),
        (('server={"ingress":{"enabled":true}}', CONTROLLER), "need a host"),
        (INGRESS[:1], "keep the controller"),
        (
            (
                'server={"ingress":{"enabled":true,"host":"a"},'
                '"gateway":{"enabled":true,"host":"a","parentRefs":[{"name":"g"}]}}',
                CONTROLLER,
            ),
            "enable one of them",
        ),
        (('server={"gateway":{"enabled":true,"host":"a"}}', CONTROLLER), "parentRefs is empty"),
        (("server.replicas=2",), "a SQLite file serves one server"),
        (('server={"replicas":2,"database":{"existingSecret":"pg"}}',), "through Redis"),
        (('server={"redis":{"existingSecret":"r"}}',), "both need one database"),
        (
            (
                'server={"enabled":false,"database":{"existingSecret":"pg"},'
                '"redis":{"existingSecret":"r"}}',
                'prefect={"apiUrl":"http://x/api"}',
            ),
            "are of the server of this chart",
        ),
        (("server.services.replicas=2",), "run inside the server"),
        (
            (
                'server={"database":{"existingSecret":"pg"},"redis":{"existingSecret":"r"},'
                '"persistence":{"existingClaim":"mine"}}',
            ),
            "keeps nothing on a claim",
        ),
        (
            ('storage={"volume":{"accessModes":["ReadWriteOncePod"]}}',),
            "lets one pod at a time have the store",
        ),
        (
            (
                'server={"auth":{"generate":false},"ingress":{"enabled":true,"host":"a"}}',
                CONTROLLER,
            ),
            "open to everybody",
        ),
        (('podLabels={"app.kubernetes.io/component":"x"}',), "podLabels has app.kubernetes.io/com"),
        (('commonLabels={"helm.sh/chart":"x"}',), "commonLabels has helm.sh/chart"),
        (('extraEnv=[{"name":"PREFECT_LOGGING_LEVEL","value":"DEBUG"}]',), "by a value of its own"),
        (('extraEnv=[{"name":"A","value":"1"},{"name":"A","value":"2"}]',), "has A twice"),
        (('extraVolumes=[{"name":"data","emptyDir":{}}]',), "extraVolumes has data"),
        (('extraVolumeMounts=[{"name":"ca","mountPath":"/ca"}]',), "no volume of that name"),
        (('extraVolumeMounts=[{"name":"tmp","mountPath":"/store"}]',), "mounted there"),
        (('extraContainers={"server":[{"name":"server","image":"x"}]}',), "container named server"),
        (('flow={"cpuRequest":"2","cpuLimit":"1500m"}',), "flow asks for 2 cores"),
        (('dask={"worker":{"cpuLimit":"250m"}}',), "dask.worker asks for 500m cores"),
        (('sources={"ebi":{"cpuRequest":"3"}}',), "sources.ebi asks for 3 cores"),
    ],
)
def test_contradictions_are_refused_with_a_sentence(
    refuse: Callable[..., str], sets: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refuse(*sets)


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (("sampels.enabled=true",), "sampels"),
        (('image={"repo":"x"}',), "repo"),
        (('dask={"workers":0}',), "workers"),
        (('dask={"workers":"two"}',), "workers"),
        (('flow={"memory":"2 GB"}',), "memory"),
        (('storage={"type":"nfs"}',), "type"),
        (('storage={"bucket":{"uri":"http://b"}}',), "uri"),
        (('sources={"ebi":{"enabled":true,"memmory":"1Gi"}}',), "memmory"),
        (('networkPolicy={"archivePorts":[{"port":70000}]}',), "port"),
        (('sources={"nosuch":{"enabled":true}}',), "nosuch"),
        (('sources={"ebi":{"enabled":true,"schedule":"abc"}}',), "schedule"),
        (('sources={"ebi":{"enabled":true,"schedule":"0 3 * *"}}',), "schedule"),
        (('cleanup={"schedule":"often"}',), "schedule"),
        (('cleanup={"schedule":"61 * * * *"}',), "schedule"),
        (('sources={"ebi":{"enabled":true,"schedule":"0 3 32 * *"}}',), "schedule"),
        (('flow={"schedule":"abc"}',), "schedule"),
        (('nameOverride="My Name"',), "nameOverride"),
        (('prefect={"timezone":"berlin time"}',), "timezone"),
        (('networkPolicy={"dnsPorts":[]}',), "dnsPorts"),
        (('fullnameOverride="Foo_Bar"',), "fullnameOverride"),
        (('commonLabels={"team":"electron microscopy"}',), "team"),
        (('server={"service":{"port":null}}',), "port"),
        (('server={"persistence":{"size":null}}',), "size"),
        (('storage={"volume":{"size":null}}',), "size"),
        (('image={"digest":"sha256:abc"}',), "digest"),
        (('image={"repository":"lab/macroscope:1.2"}',), "repository"),
        (('image={"tag":"a tag"}',), "tag"),
        (("server=null",), "server"),
        (('storage={"volume":{"keep":null}}',), "keep"),
        (('tolerations=[{"kye":"spot"}]',), "kye"),
        (('affinity={"nodeAfinity":{}}',), "nodeAfinity"),
        (('networkPolicy={"uiFrom":[{"namespaceSelektor":{}}]}',), "namespaceSelektor"),
        (('networkPolicy={"extraEgress":[{"port":[]}]}',), "port"),
        (('extraEnv=[{"name":"A","valeu":"b"}]',), "valeu"),
        (('extraVolumeMounts=[{"name":"a","path":"/b"}]',), "mountPath"),
        (('server={"gateway":{"parentRefs":[{"nmae":"g"}]}}',), "nmae"),
        (('placement={"sever":{}}',), "sever"),
        (('placement={"server":{"nodeSelektor":{}}}',), "nodeSelektor"),
        (('placement={"flow":{"topologySpreadConstraints":[]}}',), "topologySpreadConstraints"),
        (('extraContainers={"flow":[{"name":"a","image":"b"}]}',), "flow"),
    ],
)
def test_wrong_values_are_refused_by_name(
    refuse: Callable[..., str], sets: tuple[str, ...], key: str
) -> None:
    message = refuse(*sets)
    assert "values don't meet the specifications of the schema" in message
    assert key in message


@pytest.mark.parametrize(
    "empty",
    [
        "extraEnv=null",
        "extraVolumes=null",
        "extraVolumeMounts=null",
        "extraContainers=null",
        "extraInitContainers=null",
        "podAnnotations=null",
        "podLabels=null",
        "commonLabels=null",
        "nodeSelector=null",
        "tolerations=null",
        "placement=null",
        'server={"corsOrigins":null}',
    ],
)
def test_a_list_or_table_that_is_left_empty_in_a_file_of_values_is_the_empty_one(
    render: Render, empty: str
) -> None:
    """``extraEnv:`` and nothing behind it is null in YAML."""
    password = MATRIX["own server with a password"]  # else each rendering draws one
    assert render(*password, empty) == render(*password)


@pytest.mark.parametrize("release", ["3d-em", "lab.em"])
def test_a_release_whose_services_kubernetes_would_refuse_is_refused_before(
    helm: Callable[..., subprocess.CompletedProcess[str]], release: str
) -> None:
    done = helm("template", release, str(CHART))
    assert "fullnameOverride" in done.stderr
    assert helm("template", release, str(CHART), "--set", "fullnameOverride=em").returncode == 0
    # one that is there has a cluster that takes it
    assert helm("template", release, str(CHART), "--is-upgrade").returncode == 0


@pytest.mark.parametrize(("release", "namespace"), [("2024", "1e3"), ("true", "0123")])
def test_names_that_yaml_would_read_as_numbers_stay_names(
    helm: Callable[..., subprocess.CompletedProcess[str]], release: str, namespace: str
) -> None:
    own = ("--namespace", namespace, "--set", "fullnameOverride=em")
    done = helm("template", release, str(CHART), *own)
    assert done.returncode == 0, done.stderr
    for manifest in documents(done.stdout):
        validate(manifest)


def test_every_value_is_described_and_no_other_is_accepted() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def look(node: dict[str, Any], path: str) -> None:
        assert node.get("description") or path == "", f"{path} has no description"
        if "properties" in node:
            assert node.get("additionalProperties") is not True, path
            assert "additionalProperties" in node, path
            for key, child in node["properties"].items():
                look(child, f"{path}.{key}")

    look(schema, "")
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(node: dict[str, Any], given: dict[str, Any], path: str) -> None:
        for key, child in node.get("properties", {}).items():
            if key != "global":
                assert key in given, f"{path}.{key} has no default"
                if isinstance(given[key], dict):
                    compare(child, given[key], f"{path}.{key}")

    drop_resources(schema)
    compare(schema, values, "")


def drop_resources(node: dict[str, Any]) -> None:
    """CPU limits are offered but not set: drop what is optional by design."""
    for key, child in list(node.get("properties", {}).items()):
        if key == "resources":
            del node["properties"][key]
        elif isinstance(child, dict):
            drop_resources(child)


MAY_BE_NOTHING = re.compile(  # what it then means is in the templates
    r".*resources$|podSecurity\.(runAsUser|runAsGroup|fsGroup)$|sources|cleanup\.schedule$"
    r"|prefect\.timezone$|networkPolicy\.(dnsPorts|metricsFrom)$|metrics\.dashboard\.labels"
)


def test_a_value_that_is_left_empty_is_refused_where_nothing_would_not_do() -> None:
    """helm takes a bare ``keep:`` for no value at all: the claims would go with the release."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def unguarded(node: dict[str, Any], given: dict[str, Any], path: str) -> Iterator[str]:
        for key, default in given.items():
            here = f"{path}{key}"
            if default in ("", [], {}, None) or MAY_BE_NOTHING.match(here):
                continue
            if key not in node.get("required", ()):
                yield here
            if isinstance(default, dict):
                yield from unguarded(node["properties"][key], default, f"{here}.")

    assert list(unguarded(schema, values, "")) == []


def test_table_of_values_is_current() -> None:
    command = [sys.executable, str(ROOT / "helm" / "values_table.py"), "--check"]
    assert subprocess.run(command).returncode == 0, "run: python helm/values_table.py"


def test_notes_say_how_to_open_the_ui_and_warn(
    helm: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    base = ("install", "macroscope", str(CHART), "-n", "em", "--dry-run=client")
    plain = helm(*base)
    assert plain.returncode == 0, plain.stderr
    assert "port-forward service/macroscope-server 4200:4200" in plain.stdout
    assert "prefect deployment run macroscope/full --watch" in plain.stdout
    assert "must fit on one node" in plain.stdout
    risky = helm(*base, "--set", "server.persistence.enabled=false,operator.enabled=false")
    assert "forgotten when the server's pod goes" in risky.stdout
    assert "dask-kubernetes#968" in risky.stdout
    shut = helm(*base, "--set", "server.service.type=LoadBalancer,register.enabled=false")
    assert "say in networkPolicy.uiFrom who may open the UI" in shut.stdout
    assert '{{index .data \\"$file\\"}}' in shut.stdout
    assert "--template job-template.json --overrides overrides.yaml" in shut.stdout


def test_helm_test_starts_a_run_which_is_dry_where_no_samples_are_installed(
    render: Render,
) -> None:
    def arguments(*sets: str) -> list[str]:
        pod = by_name(render(*sets), "Pod/macroscope-test")
        args: list[str] = pod["spec"]["containers"][0]["args"]
        return args

    assert arguments("samples.enabled=true")[2:4] == ["flows.trial", "macroscope/full"]
    assert not any("dry_run" in word for word in arguments("samples.enabled=true"))
    assert arguments()[2:4] == ["flows.trial", "macroscope/full"]
    assert '--parameters={"dry_run": true}' in arguments()
