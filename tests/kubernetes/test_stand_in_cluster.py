"""The stand-in cluster keeps to what Kubernetes does, seen by the real clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import kr8s
import pytest
from kr8s.asyncio.objects import Job, Pod, Service
from kubernetes_asyncio import client, config, watch

from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.apiserver.kinds import CLUSTER, JOB, POD
from tests.kubernetes.installation import refused
from tests.kubernetes.pods import job, pod_spec

Manifest = dict[str, Any]
WAIT_S = 240


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), refused) as running:
        yield running


def as_account(cluster: Cluster, account: str, what: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run something with kr8s, under a service account ("" is the administrator)."""

    async def run() -> Any:
        api = await kr8s.asyncio.api(kubeconfig=str(cluster.kubeconfig("em", account)))
        return await what(api)

    return asyncio.run(run())


def condition(cluster: Cluster, name: str) -> str:
    status = (cluster.store.find(JOB, "em", name) or {}).get("status", {})
    return "".join(found["type"] for found in status.get("conditions", []))


@pytest.mark.parametrize(("code", "end"), [(0, "Complete"), (3, "Failed")])
def test_a_job_runs_its_command_and_says_how_it_ended(
    cluster: Cluster, code: int, end: str
) -> None:
    name = f"exits-{code}"
    env = [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "PLACE", "value": "/tmp/place"},
    ]
    script = 'echo "$POD_NAME at $PLACE"; exit ' + str(code)
    cluster.apply(job(name, "sh", "-c", script, container={"env": env}))
    cluster.wait(lambda: condition(cluster, name), WAIT_S, "Job ended")
    assert condition(cluster, name) == end
    [pod] = cluster.pods(job_name=name)
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert state["exitCode"] == code

    async def logs(api: Any) -> list[str]:
        found = await Pod.get(pod["metadata"]["name"], namespace="em", api=api)
        return [line async for line in found.logs()]

    [line] = as_account(cluster, "", logs)
    assert line.startswith(f"{pod['metadata']['name']} at {cluster.folder}")


def test_a_job_deleted_in_the_foreground_ends_its_process_first(cluster: Cluster) -> None:
    cluster.apply(job("long", "sleep", "600"))
    pod = cluster.wait(
        lambda: [p for p in cluster.pods(job_name="long") if p["status"]["phase"] == "Running"],
        WAIT_S,
        "pod running",
    )[0]
    assert cluster.processes(pod)

    async def delete(api: Any) -> None:
        found = await Job.get("long", namespace="em", api=api)
        await found.delete(propagation_policy="Foreground")

    as_account(cluster, "", delete)
    cluster.wait(lambda: cluster.store.find(JOB, "em", "long") is None, WAIT_S, "Job gone")
    assert cluster.pods(job_name="long") == []
    assert cluster.processes(pod) == []


def test_what_a_pod_owns_goes_with_it_once_its_finalizer_is_off(cluster: Cluster) -> None:
    made = cluster.apply(job("owner", "sleep", "600"))
    pod = cluster.wait(lambda: cluster.pods(job_name="owner"), WAIT_S, "pod")[0]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": pod["metadata"]["uid"]}
    metadata = {"name": "d", "namespace": "em", "ownerReferences": [owner], "finalizers": ["a/b"]}
    document = {"apiVersion": "kubernetes.dask.org/v1", "kind": "DaskCluster"}
    cluster.apply({**document, "metadata": metadata, "spec": {}})
    cluster.delete(JOB, made["metadata"]["name"])

    def going() -> bool:
        return "deletionTimestamp" in cluster.store.get(CLUSTER, "em", "d")["metadata"]

    cluster.wait(going, WAIT_S, "cluster going")
    cluster.store.change(CLUSTER, "em", "d", lambda m: m["metadata"].update(finalizers=[]))
    assert cluster.store.find(CLUSTER, "em", "d") is None


def test_a_container_killed_for_its_memory_says_so_and_starts_again(cluster: Cluster) -> None:
    spec = pod_spec("sleep", "600", restartPolicy="Always")
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fat"}, "spec": spec})

    def container() -> Any:
        status = cluster.store.get(POD, "em", "fat")["status"]
        return status.get("containerStatuses", [{}])[0]

    cluster.wait(lambda: "running" in container().get("state", {}), WAIT_S, "pod running")
    cluster.out_of_memory(cluster.store.get(POD, "em", "fat"))
    cluster.wait(lambda: container()["restartCount"] == 1, WAIT_S, "container ended")
    cluster.wait(lambda: "running" in container()["state"], WAIT_S, "container again")
    last = container()["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "OOMKilled")
    cluster.delete(POD, "fat", grace_seconds=0)


def test_a_drained_node_evicts_what_it_runs_and_takes_nothing_until_it_is_back(
    tmp_path: Path,
) -> None:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": pod_spec("sleep", "600")}
    template["spec"]["restartPolicy"] = "Always"
    document = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "x"}}, "template": template},
    }
    with Cluster(tmp_path, refused) as cluster:
        cluster.apply(document)
        first = cluster.wait(lambda: cluster.pods(app="x"), WAIT_S, "a pod")[0]["metadata"]["uid"]
        cluster.wait(lambda: first in cluster.kubelet.running, WAIT_S, "pod running")
        with cluster.drained():
            [other] = cluster.wait(lambda: cluster.pods(app="x"), WAIT_S, "another pod")
            assert other["metadata"]["uid"] != first
            assert cluster.processes(other) == []
        uid = other["metadata"]["uid"]
        cluster.wait(lambda: uid in cluster.kubelet.running, WAIT_S, "pod running again")


def test_pods_are_refused_that_restricted_would_refuse(cluster: Cluster) -> None:
    spec = pod_spec("true", securityContext={})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}, "spec": spec}

    async def create(api: Any) -> None:
        await (await Pod(pod, namespace="em", api=api)).create()

    with pytest.raises(kr8s.ServerError, match="PodSecurity"):
        as_account(cluster, "", create)
    assert cluster.store.find(POD, "em", "bad") is None


def test_a_service_account_may_do_what_its_role_says_and_no_more(cluster: Cluster) -> None:
    group = "rbac.authorization.k8s.io"
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    meta = {"name": "reader", "namespace": "em"}
    cluster.apply({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": [rule]})
    cluster.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "em"}],
        }
    )

    async def listed(kind: Any, api: Any) -> list[Any]:
        return [one async for one in kind.list(namespace="em", api=api)]

    as_account(cluster, "reader", lambda api: listed(Pod, api))
    with pytest.raises(kr8s.ServerError, match='cannot list resource "services"'):
        as_account(cluster, "reader", lambda api: listed(Service, api))


def test_a_watch_tells_what_changed_since_the_listing(cluster: Cluster) -> None:
    async def watched() -> list[tuple[str, str]]:
        api = await config.new_client_from_config(str(cluster.kubeconfig()))
        async with api:
            batch = client.BatchV1Api(api)
            listed = await batch.list_namespaced_job("em")
            cluster.apply(job("seen", "true"))
            seen = []
            async with watch.Watch().stream(
                batch.list_namespaced_job,
                "em",
                resource_version=listed.metadata.resource_version,
                field_selector="metadata.name=seen",
                timeout_seconds=WAIT_S,
            ) as stream:
                async for event in stream:
                    seen.append((event["type"], event["object"].metadata.name))
                    if event["object"].status.succeeded:
                        break
            return seen

    seen = asyncio.run(watched())
    assert seen[0] == ("ADDED", "seen")
    assert {what for what, _ in seen[1:]} == {"MODIFIED"}
