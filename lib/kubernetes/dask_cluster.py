"""The manifest of a temporary Dask cluster: one flow's, restricted, and gone with its flow.

dask-kubernetes' own default asks for scripts (``dask-scheduler``) that distributed dropped in
2026.6 and for a pod that "restricted" namespaces refuse, so the whole spec is made here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib.errors import ConfigError
from lib.kubernetes.dask_settings import DaskSettings
from lib.kubernetes.pod_security import restricted_container, restricted_pod

MANAGED_BY = {
    "app.kubernetes.io/managed-by": "macroscope",
    "app.kubernetes.io/name": "dask",
}
# The clean-up finds a cluster's flow by this label. It is not Prefect's own, because Prefect's
# worker watches every pod that carries that one, and would take Dask's pods for the flow's.
FLOW_RUN_LABEL = "macroscope/flow-run-id"
MAX_NAME = 37  # "<name>-default-worker-<10 hex>" must stay a valid label of 63 characters

_SCHEDULER_PORTS = (("tcp-comm", 8786), ("http-dashboard", 8787))


@dataclass(frozen=True, slots=True)
class Owner:
    """The flow's pod, from the downward API; Kubernetes deletes the cluster after it."""

    pod_name: str
    pod_uid: str
    namespace: str
    flow_run_id: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Owner:
        """Read ``POD_NAME``, ``POD_UID``, ``POD_NAMESPACE`` and the Job's flow run.

        Raises
        ------
        ConfigError
            One of the three is not set: this is not a pod of the job template.
        """
        missing = [key for key in ("POD_NAME", "POD_UID", "POD_NAMESPACE") if not environ.get(key)]
        if missing:
            raise ConfigError(
                f"{', '.join(missing)} not set, so a Dask cluster would have no owner",
                location="EM_DASK",
                advice="Use the work pool's job template (k8s/job-template.json), or EM_DASK=local",
            )
        return cls(
            pod_name=environ["POD_NAME"],
            pod_uid=environ["POD_UID"],
            namespace=environ["POD_NAMESPACE"],
            flow_run_id=environ.get("PREFECT__FLOW_RUN_ID"),
        )

    def reference(self) -> dict[str, Any]:
        # blocking the pod's deletion would need a permission on pods/finalizers
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": self.pod_name,
            "uid": self.pod_uid,
            "controller": False,
            "blockOwnerDeletion": False,
        }


def cluster_name(source: str, flow_run_id: str, run_count: int) -> str:
    """A name that no other source, run or retry has: ``em-<source>-<run>-<retry>``.

    A retry must not meet the cluster of the attempt before, which may still be going away.
    """
    stem = re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-") or "flow"
    run = hashlib.sha256(flow_run_id.encode()).hexdigest()[:10]
    tail = f"-{run}-{run_count}"
    return f"em-{stem}"[: MAX_NAME - len(tail)].rstrip("-") + tail


def cluster_spec(
    name: str, settings: DaskSettings, owner: Owner, *, workers: int | None = None
) -> dict[str, Any]:
    """The DaskCluster object to hand to ``KubeCluster(custom_cluster_spec=...)``.

    Parameters
    ----------
    name
        From `cluster_name`.
    settings
        How its pods look.
    owner
        The flow's pod, which becomes the cluster's owner.
    workers
        Number of workers, where it is not that of ``settings``.

    Raises
    ------
    ConfigError
        The name is too long or not a DNS label.
    """
    if len(name) > MAX_NAME or not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name):
        raise ConfigError(
            f"{name!r} is no name for a Dask cluster", advice="Report this with the name"
        )
    run = {FLOW_RUN_LABEL: owner.flow_run_id} if owner.flow_run_id else {}
    metadata = {
        "name": name,
        "namespace": owner.namespace,
        "labels": MANAGED_BY | run,
        "annotations": {"macroscope/flow-pod": owner.pod_name},
        "ownerReferences": [owner.reference()],
    }
    labels = {**settings.labels, **MANAGED_BY, **run}
    pod_metadata = {"labels": labels, "annotations": dict(settings.annotations)}
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": metadata,
        "spec": {
            "idleTimeout": settings.idle_timeout_seconds,
            "worker": {
                "metadata": pod_metadata,
                "replicas": workers or settings.workers,
                "spec": _pod(settings, _worker_container(settings)),
            },
            "scheduler": {
                "metadata": pod_metadata,
                "spec": _pod(settings, _scheduler_container(settings)),
                "service": _scheduler_service(name),
            },
        },
    }


def _pod(settings: DaskSettings, container: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "securityContext": restricted_pod(
            settings.run_as_user, settings.run_as_group, settings.fs_group
        ),
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *settings.volumes],
    }
    optional = {
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": settings.node_selector,
        "tolerations": list(settings.tolerations),
        "affinity": settings.affinity,
        "priorityClassName": settings.priority_class,
    }
    return pod | {key: value for key, value in optional.items() if value}


def _container(settings: DaskSettings, name: str, args: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": args,
        "env": list(settings.env),
        "envFrom": list(settings.env_from),
        "securityContext": restricted_container(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *settings.volume_mounts],
    }


def _worker_container(settings: DaskSettings) -> dict[str, Any]:
    # Left alone, Dask takes container limit x threads / CPUs of the node for its memory, pauses
    # far below the limit, and the run hangs. So it is told.
    args = [
        "dask",
        "worker",
        "--name",
        "$(DASK_WORKER_NAME)",
        "--nthreads",
        str(settings.threads_per_worker),
        "--memory-limit",
        str(settings.worker.memory_bytes),
        "--death-timeout",
        str(settings.death_timeout_seconds),
        "--no-dashboard",
    ]
    return _container(settings, "worker", args) | {"resources": settings.worker.manifest()}


def _scheduler_container(settings: DaskSettings) -> dict[str, Any]:
    health = {"httpGet": {"port": "http-dashboard", "path": "/health"}}
    return _container(settings, "scheduler", ["dask", "scheduler", "--host", "0.0.0.0"]) | {
        "resources": settings.scheduler.manifest(),
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in _SCHEDULER_PORTS
        ],
        "readinessProbe": {**health, "periodSeconds": 1, "timeoutSeconds": 5},
        "livenessProbe": {**health, "initialDelaySeconds": 30, "periodSeconds": 20},
    }


def _scheduler_service(name: str) -> dict[str, Any]:
    return {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": name, "dask.org/component": "scheduler"},
        "ports": [
            {
                "name": port_name,
                "protocol": "TCP",
                "port": port,
                "targetPort": port_name,
            }
            for port_name, port in _SCHEDULER_PORTS
        ],
    }
