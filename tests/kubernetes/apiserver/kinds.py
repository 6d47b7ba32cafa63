"""The kinds of objects that the stand-in knows, and how the API announces them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.documents import documents

CRDS = Path(__file__).parents[3] / "helm" / "macroscope" / "crds"
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object: where it lives in the API, and its subresources."""

    group: str
    version: str
    plural: str
    name: str
    namespaced: bool = True
    subresources: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def _custom() -> list[Kind]:
    """The chart's own resource definitions."""
    found = []
    for path in sorted(CRDS.glob("*.yaml")):
        [document] = documents(path.read_text())
        spec = document["spec"]
        version = spec["versions"][0]
        names = spec["names"]
        more = tuple(version.get("subresources") or ())
        found.append(
            Kind(spec["group"], version["name"], names["plural"], names["kind"], True, more)
        )
    return found


_RBAC = "rbac.authorization.k8s.io"
KINDS: tuple[Kind, ...] = (
    Kind("", "v1", "namespaces", "Namespace", False, ("status",)),
    Kind("", "v1", "nodes", "Node", False, ("status",)),
    Kind("", "v1", "pods", "Pod", True, ("status", "log")),
    Kind("", "v1", "services", "Service", True, ("status",)),
    Kind("", "v1", "events", "Event"),
    Kind("", "v1", "configmaps", "ConfigMap"),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "serviceaccounts", "ServiceAccount"),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("status",)),
    Kind("batch", "v1", "jobs", "Job", True, ("status",)),
    Kind("batch", "v1", "cronjobs", "CronJob", True, ("status",)),
    Kind("apps", "v1", "deployments", "Deployment", True, ("status", "scale")),
    Kind(_RBAC, "v1", "roles", "Role"),
    Kind(_RBAC, "v1", "rolebindings", "RoleBinding"),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("status",)),
    *_custom(),
)
POD, JOB, CRON_JOB, DEPLOYMENT, SERVICE, CONFIGMAP, SECRET, EVENT = (
    next(kind for kind in KINDS if kind.name == name)
    for name in (
        "Pod",
        "Job",
        "CronJob",
        "Deployment",
        "Service",
        "ConfigMap",
        "Secret",
        "Event",
    )
)
ROLE, ROLE_BINDING = (
    next(kind for kind in KINDS if kind.name == name) for name in ("Role", "RoleBinding")
)
CLUSTER = next(kind for kind in KINDS if kind.name == "DaskCluster")


def by_path(group: str, version: str, plural: str) -> Kind | None:
    """The kind at a place in the API."""
    for kind in KINDS:
        if (kind.group, kind.version, kind.plural) == (group, version, plural):
            return kind
    return None


def by_manifest(manifest: dict[str, Any]) -> Kind:
    """The kind of an object; KeyError where the stand-in does not know it."""
    for kind in KINDS:
        if (kind.api_version, kind.name) == (manifest["apiVersion"], manifest["kind"]):
            return kind
    raise KeyError(f"{manifest['apiVersion']} {manifest['kind']}")


def api_versions() -> dict[str, Any]:
    """What ``/api`` answers."""
    return {"kind": "APIVersions", "versions": ["v1"]}


def api_groups() -> dict[str, Any]:
    """What ``/apis`` answers."""
    groups = []
    for group in dict.fromkeys(kind.group for kind in KINDS if kind.group):
        version = next(kind.version for kind in KINDS if kind.group == group)
        one = {"groupVersion": f"{group}/{version}", "version": version}
        groups.append({"name": group, "versions": [one], "preferredVersion": one})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def openapi(path: str) -> dict[str, Any] | None:
    """What ``/openapi/v3`` answers, or a document below it; or None.

    Only that every kind may be patched with ``fieldValidation``: what helm looks for before it
    leaves the validation to the server.
    """
    places = {f"apis/{k.api_version}" if k.group else "api/v1": k for k in KINDS}
    if not path:
        return {"paths": {p: {"serverRelativeURL": f"/openapi/v3/{p}"} for p in places}}
    if path not in places:
        return None
    patched = {}
    for kind in KINDS:
        if kind.api_version == places[path].api_version:
            gvk = {"group": kind.group, "version": kind.version, "kind": kind.name}
            patched[f"/{kind.plural}"] = {
                "patch": {
                    "x-kubernetes-group-version-kind": gvk,
                    "parameters": [{"name": "fieldValidation", "in": "query"}],
                    "responses": {},
                }
            }
    about = {"title": "stand-in", "version": "1"}
    return {"openapi": "3.0.0", "info": about, "paths": patched}


def api_resources(group: str, version: str) -> dict[str, Any] | None:
    """What ``/api/v1`` or ``/apis/<group>/<version>`` answers, or None."""
    kinds = [kind for kind in KINDS if (kind.group, kind.version) == (group, version)]
    if not kinds:
        return None
    rows = []
    for kind in kinds:
        row = {
            "name": kind.plural,
            "singularName": kind.name.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.name,
            "verbs": VERBS,
        }
        rows.append(row)
        for more in kind.subresources:
            verbs = ["get"] if more == "log" else ["get", "patch", "update"]
            rows.append({**row, "name": f"{kind.plural}/{more}", "verbs": verbs})
    name = f"{group}/{version}" if group else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": name,
        "resources": rows,
    }


_FIXED = {
    "Deployment": ("selector",),
    "PersistentVolumeClaim": ("accessModes", "storageClassName", "volumeName", "volumeMode"),
    "Job": ("selector", "template", "completions"),
}


def changed_for_good(kind: Kind, old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first field that Kubernetes does not let change, and that did; or nothing."""
    before, after = old.get("spec") or {}, new.get("spec") or {}
    for field in _FIXED.get(kind.name, ()):
        if field in after and after[field] != before.get(field):
            return f"spec.{field}"
    if kind.name == "RoleBinding" and old["roleRef"] != new["roleRef"]:
        return "roleRef"
    return ""
