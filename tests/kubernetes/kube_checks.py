"""Checkers: Pod Security "restricted", the Kubernetes schema, Dask's own resource definitions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator

from tests.kit.documents import documents

Manifest = dict[str, Any]
CRDS = Path(__file__).parents[2] / "helm" / "macroscope" / "crds"
KUBERNETES = "1.37"
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def pod_specs(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Every pod spec inside an object, with a name to report."""
    name = f"{manifest['kind']}/{manifest['metadata'].get('name', '?')}"
    spec = manifest.get("spec", {})
    match manifest["kind"]:
        case "Pod":
            yield name, spec
        case "Deployment" | "Job" | "DaemonSet":
            yield name, spec["template"]["spec"]
        case "CronJob":
            yield name, spec["jobTemplate"]["spec"]["template"]["spec"]
        case "DaskCluster":
            yield f"{name} worker", spec["worker"]["spec"]
            yield f"{name} scheduler", spec["scheduler"]["spec"]


def restricted_violations(pod: Manifest) -> list[str]:
    """What Pod Security "restricted" would refuse, and what this project asks beyond it."""
    found = []
    context = pod.get("securityContext") or {}
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("uses a namespace of the host")
    if context.get("runAsNonRoot") is not True:
        found.append("pod: runAsNonRoot is not true")
    ids = [context.get(key) for key in ("runAsUser", "runAsGroup", "fsGroup")]
    if 0 in ids or (None in ids and ids != [None] * 3):
        found.append("pod: user, group or fsGroup is 0, or only some are given")
    if (context.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        found.append("pod: no seccomp profile")
    for volume in pod.get("volumes") or []:
        if kinds := set(volume) - {"name"} - _VOLUMES:
            found.append(f"volume {volume['name']}: {', '.join(sorted(kinds))}")
    for container in [*(pod.get("initContainers") or []), *pod["containers"]]:
        found += [f"{container['name']}: {text}" for text in _container_violations(container)]
    return found


def _container_violations(container: Manifest) -> Iterator[str]:
    context = container.get("securityContext") or {}
    if context.get("privileged"):
        yield "privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if context.get("runAsNonRoot") is False or context.get("runAsUser") == 0:
        yield "runs as root"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield "does not drop ALL capabilities"
    if set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield "adds capabilities"
    if any("hostPort" in port for port in container.get("ports") or []):
        yield "opens a port of the host"
    # beyond "restricted"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "its root file system is writable"
    if "/tmp" not in [mount["mountPath"] for mount in container.get("volumeMounts") or []]:
        yield "nothing writable at /tmp"
    resources = container.get("resources") or {}
    for part, wanted in (("requests", {"cpu", "memory"}), ("limits", {"memory"})):
        if missing := wanted - set(resources.get(part) or {}):
            yield f"no {part} of {', '.join(sorted(missing))}"


@cache
def _dask_validator(kind: str) -> Draft202012Validator:
    [definition] = documents((CRDS / f"{kind.lower()}.yaml").read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return Draft202012Validator(schema)


def validate(manifest: Manifest) -> None:
    """Raise unless the object satisfies the schema of its kind, without unknown fields."""
    _validate(json.dumps(manifest, sort_keys=True))


@cache  # most objects are the same in many renderings
def _validate(text: str) -> None:
    manifest = json.loads(text)
    if manifest["apiVersion"].startswith(("monitoring.coreos.com/", "gateway.networking.k8s.io/")):
        return  # not Kubernetes' own; what Prometheus reads in them is checked by promtool
    if manifest["apiVersion"].startswith("kubernetes.dask.org/"):
        _dask_validator(manifest["kind"]).validate(manifest)
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
