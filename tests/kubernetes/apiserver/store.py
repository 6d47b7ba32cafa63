"""The objects, their versions, and everybody who watches them."""

from __future__ import annotations

import copy
import secrets
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from tests.kubernetes.apiserver.kinds import JOB, POD, Kind, by_manifest

Manifest = dict[str, Any]
Key = tuple[Kind, str, str]
Change = tuple[int, Kind, "Manifest | None", "Manifest | None"]
Listener = Callable[[Change], None]


class ApiError(Exception):
    """An answer that is no success: HTTP status, reason, sentence."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def document(self) -> Manifest:
        """The API's own Status object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "reason": self.reason,
            "message": self.message,
            "code": self.status,
        }


def now() -> str:
    """Now, as the API writes times."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Objects by kind, namespace and name; every method may be called from any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._objects: dict[Key, Manifest] = {}
        self._changes: list[Change] = []
        self._version = 1
        self._listeners: list[Listener] = []

    @property
    def version(self) -> int:
        return self._version

    def changes_since(self, version: int, listener: Listener) -> list[Change]:
        """Register a listener, and return the changes that it missed."""
        with self.lock:
            self._listeners.append(listener)
            return [change for change in self._changes if change[0] > version]

    def forget(self, listener: Listener) -> None:
        """End a listener."""
        with self.lock:
            self._listeners.remove(listener)

    def list(self, kind: Kind, namespace: str = "") -> list[Manifest]:
        """Copies of all objects of a kind, oldest first."""
        with self.lock:
            return [
                copy.deepcopy(manifest)
                for (found, where, _), manifest in self._objects.items()
                if found == kind and namespace in ("", where)
            ]

    def everything(self) -> Sequence[tuple[Kind, Manifest]]:
        """Copies of all objects."""
        with self.lock:
            return [(key[0], copy.deepcopy(manifest)) for key, manifest in self._objects.items()]

    def find(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """A copy of one object, or None."""
        with self.lock:
            return copy.deepcopy(self._objects.get((kind, namespace, name)))

    def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        """A copy of one object; 404 where it is not."""
        found = self.find(kind, namespace, name)
        if found is None:
            raise ApiError(404, "NotFound", f'{kind.plural} "{name}" not found')
        return found

    def create(self, manifest: Manifest, namespace: str = "") -> Manifest:
        """Keep a new object."""
        kind = by_manifest(manifest)
        made = copy.deepcopy(manifest)
        meta = made.setdefault("metadata", {})
        where = (meta.get("namespace") or namespace) if kind.namespaced else ""
        with self.lock:
            if not meta.get("name"):
                if not meta.get("generateName"):
                    raise ApiError(422, "Invalid", "name or generateName is required")
                meta["name"] = meta["generateName"][:58] + secrets.token_hex(3)[:5]
            if (kind, where, meta["name"]) in self._objects:
                text = f'{kind.plural} "{meta["name"]}" already exists'
                raise ApiError(409, "AlreadyExists", text)
            if where:
                meta["namespace"] = where
            meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
            _complete(kind, made)
            self._put(kind, None, made)
            return copy.deepcopy(made)

    def replace(self, kind: Kind, old: Manifest, new: Manifest) -> Manifest:
        """Keep another version; an object that only finalizers held goes with the last of them."""
        with self.lock:
            kept = ("uid", "creationTimestamp", "namespace", "name", "deletionTimestamp")
            meta = new["metadata"]
            for key in kept:
                if key in old["metadata"]:
                    meta[key] = old["metadata"][key]
            if "deletionTimestamp" in meta and kind != POD and not meta.get("finalizers"):
                self._put(kind, old, None)
                return new
            if {**new, "metadata": {}} != {**old, "metadata": {}} or _bare(new) != _bare(old):
                self._put(kind, old, new)
            return copy.deepcopy(new)

    def change(
        self, kind: Kind, namespace: str, name: str, edit: Callable[[Manifest], None]
    ) -> bool:
        """Edit an object in place; False where it is gone."""
        with self.lock:
            old = self.find(kind, namespace, name)
            if old is None:
                return False
            new = copy.deepcopy(old)
            edit(new)
            self.replace(kind, old, new)
            return True

    def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        propagation: str | None = None,
        grace_seconds: float | None = None,
    ) -> Manifest:
        """Delete as the API does: pods once they ended, others once their finalizers are gone."""
        with self.lock:
            old = self.get(kind, namespace, name)
            new = copy.deepcopy(old)
            meta = new["metadata"]
            if kind == POD:
                given = new["spec"].get("terminationGracePeriodSeconds", 30)
                grace = given if grace_seconds is None else grace_seconds
                meta["deletionGracePeriodSeconds"] = grace
            finalizers = set(meta.get("finalizers") or [])
            # the API's default for a Job, for the sake of old clients, is to leave its pods alone
            how = propagation or ("Orphan" if kind == JOB else "Background")
            if how == "Foreground":
                finalizers.add("foregroundDeletion")
            elif how == "Orphan":
                self._orphan(old["metadata"]["uid"])
            if kind != POD and not finalizers:
                self._put(kind, old, None)
                return new
            if finalizers:
                meta["finalizers"] = sorted(finalizers)
            meta.setdefault("deletionTimestamp", now())
            self._put(kind, old, new)
            return copy.deepcopy(new)

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """Forget an object at once."""
        with self.lock:
            old = self._objects.get((kind, namespace, name))
            if old is not None:
                self._put(kind, old, None)

    def _orphan(self, uid: str) -> None:
        for kind, manifest in self.everything():
            owners = manifest["metadata"].get("ownerReferences") or []
            left = [owner for owner in owners if owner["uid"] != uid]
            if len(left) != len(owners):
                new = copy.deepcopy(manifest)
                new["metadata"]["ownerReferences"] = left
                self._put(kind, manifest, new)

    def _put(self, kind: Kind, old: Manifest | None, new: Manifest | None) -> None:
        self._version += 1
        shown = new if new is not None else copy.deepcopy(old)
        assert shown is not None
        shown["metadata"]["resourceVersion"] = str(self._version)
        meta = shown["metadata"]
        key = (kind, meta.get("namespace", ""), meta["name"])
        if new is None:
            del self._objects[key]
            change: Change = (self._version, kind, shown, None)
        else:
            self._objects[key] = copy.deepcopy(new)
            change = (self._version, kind, old, copy.deepcopy(new))
        self._changes.append(change)
        for listener in self._listeners:
            listener(change)


def _bare(manifest: Manifest) -> Manifest:
    return {key: value for key, value in manifest["metadata"].items() if key != "resourceVersion"}


def _complete(kind: Kind, manifest: Manifest) -> None:
    """What the API fills in itself."""
    if kind == POD:
        manifest["status"] = {"phase": "Pending"}
    elif kind == JOB:
        manifest["status"] = {}
        spec = manifest["spec"]
        for key, value in (("backoffLimit", 6), ("completions", 1), ("parallelism", 1)):
            if spec.get(key) is None:
                spec[key] = value
        spec.setdefault("selector", {"matchLabels": {"job-name": manifest["metadata"]["name"]}})
    elif kind.name == "Service":
        manifest["status"] = {"loadBalancer": {}}
