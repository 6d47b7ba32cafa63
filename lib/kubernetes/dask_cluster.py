"""The manifest of a temporary Dask cluster: one flow's, restricted, and gone with its flow.

dask-kubernetes' own default asks for scripts (``dask-scheduler``) that distributed dropped in
2026.6 and for a pod that "restricted" namespaces refuse, so the whole spec is made here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lib.errors import ConfigError

RUN_AS = 1001  # the image's user


def restricted_pod(
    user: int | None = RUN_AS, group: int | None = RUN_AS, fs_group: int | None = RUN_AS
) -> dict[str, Any]:
    """A pod's ``securityContext``: non-root, default seccomp profile.

    Parameters
    ----------
    user, group, fs_group
        Numeric ids; None leaves one to the platform, which has to give one that is not root's
        (OpenShift refuses pods that bring their own).
    """
    given = {"runAsUser": user, "runAsGroup": group, "fsGroup": fs_group}
    return {
        "runAsNonRoot": True,
        **{key: value for key, value in given.items() if value is not None},
        # a volume of many shards would otherwise be walked through at each start of each pod
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def restricted_container() -> dict[str, Any]:
    """A container's ``securityContext``: no escalation, no capability, read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


# Not EM_...: those are settings of a run, and an unknown one among them is refused.
SETTINGS_VARIABLE = "MACROSCOPE_DASK_SETTINGS"
DEFAULT_SETTINGS = "/etc/macroscope/dask.json"  # where the chart and k8s/base mount the file


_FACTORS = {
    "": 1,
    **{suffix: 1000**power for power, suffix in enumerate("kMGTPE", start=1)},
    **{suffix + "i": 1024**power for power, suffix in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([a-zA-Z]*)")


def parse_bytes(quantity: str) -> int:
    """Bytes that a quantity names: ``"2Gi"`` is 2147483648, ``"1500M"`` is 1500000000.

    Raises
    ------
    ValueError
        Not a quantity of bytes, or none at all.
    """
    match = _QUANTITY.fullmatch(quantity.strip())
    if match is None or match[2] not in _FACTORS:
        raise ValueError(f"{quantity!r} is not a quantity of bytes such as 512Mi or 2Gi")
    value = int(float(match[1]) * _FACTORS[match[2]])
    if value < 1:
        raise ValueError(f"{quantity!r} is no memory at all")
    return value


class Resources(BaseModel):
    """CPU, memory and ephemeral disk of one container; what is requested is also the limit.

    ``cpu``, ``memory`` and ``ephemeral_storage`` are Kubernetes quantities (``500m``, ``2Gi``).
    The CPU limit may be left out (None), so that a pod may use idle cores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str = "1"
    memory: str = "2Gi"
    ephemeral_storage: str = "1Gi"
    cpu_limit: str | None = None

    @field_validator("memory", "ephemeral_storage")
    @classmethod
    def _is_a_quantity(cls, value: str) -> str:
        parse_bytes(value)
        return value

    @property
    def memory_bytes(self) -> int:
        return parse_bytes(self.memory)

    def manifest(self) -> dict[str, dict[str, str]]:
        """The ``resources`` of a container. Memory is never overcommitted."""
        same = {"memory": self.memory, "ephemeral-storage": self.ephemeral_storage}
        limits = same if self.cpu_limit is None else {"cpu": self.cpu_limit, **same}
        return {"requests": {"cpu": self.cpu, **same}, "limits": dict(limits)}


class DaskSettings(BaseModel):
    """Everything about Dask pods that does not change from run to run.

    Field names are those of the chart's ``dask`` values, in snake case. Lists and mappings with
    ``Any`` inside are passed to Kubernetes as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str = "macroscope-dask"
    workers: int = Field(default=2, ge=1, le=1000)
    adaptive_maximum: int | None = Field(default=None, ge=1)
    threads_per_worker: int = Field(default=1, ge=1)
    worker: Resources = Resources()
    scheduler: Resources = Resources(cpu="250m", memory="1Gi")
    idle_timeout_seconds: int = Field(default=300, ge=30)
    startup_timeout_seconds: int = Field(default=300, ge=10)
    death_timeout_seconds: int = Field(default=120, ge=10)
    env: tuple[dict[str, Any], ...] = ()
    env_from: tuple[dict[str, Any], ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[dict[str, Any], ...] = ()
    run_as_user: int | None = Field(default=RUN_AS, ge=1)
    run_as_group: int | None = Field(default=RUN_AS, ge=1)
    fs_group: int | None = Field(default=RUN_AS, ge=1)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = Field(default_factory=dict)
    priority_class: str | None = None


def load_settings(path: str | Path) -> DaskSettings:
    """Read the settings from a JSON file.

    Raises
    ------
    ConfigError
        The file is absent, not JSON, or holds an unknown or impossible setting.
    """
    try:
        return DaskSettings.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(
            f"the settings of the Dask pods cannot be read: {error.strerror}",
            location=str(path),
            advice=f"{SETTINGS_VARIABLE} must name the mounted file; EM_DASK=off does without Dask",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ConfigError(
            f"the settings of the Dask pods are wrong: {key}: {first['msg']}",
            location=str(path),
        ) from error


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


CLUSTER_CLASS = "lib.kubernetes.kube_cluster.PatientKubeCluster"


def cluster_request(
    source: str, flow_run_id: str, run_count: int, environ: Mapping[str, str]
) -> dict[str, Any]:
    """Keyword arguments of a ``DaskTaskRunner`` (or of anything that starts clusters by class).

    Parameters
    ----------
    source
        Registry name of the archive; part of the cluster's name.
    flow_run_id, run_count
        The run and which attempt it is: each attempt gets a cluster of another name.
    environ
        The pod's environment: downward API, job's flow run, and where the settings lie.

    Raises
    ------
    ConfigError
        This is no pod of the job template, or the settings are absent or wrong.
    """
    owner = Owner.from_environment(environ)
    settings = load_settings(environ.get(SETTINGS_VARIABLE, DEFAULT_SETTINGS))
    spec = cluster_spec(cluster_name(source, flow_run_id, run_count), settings, owner)
    arguments: dict[str, Any] = {
        "cluster_class": CLUSTER_CLASS,
        "cluster_kwargs": {
            "custom_cluster_spec": spec,
            "namespace": owner.namespace,
            "startup_timeout_seconds": settings.startup_timeout_seconds,
        },
    }
    if settings.adaptive_maximum is not None:
        arguments["adapt_kwargs"] = {
            "minimum": settings.workers,
            "maximum": settings.adaptive_maximum,
        }
    return arguments
