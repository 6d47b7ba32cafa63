"""What the control plane does by itself: Jobs, Deployments, garbage collection."""

from __future__ import annotations

import copy
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from tests.kubernetes.apiserver.kinds import DEPLOYMENT, JOB, POD, Kind
from tests.kubernetes.apiserver.store import Manifest, Store, now

TRACKED = "batch.kubernetes.io/job-tracking"  # the real Job controller's own finalizer
HASH = "pod-template-hash"


def reconcile(store: Store) -> None:
    """One look at everything."""
    for job in store.list(JOB):
        reconcile_job(store, job)
    for deployment in store.list(DEPLOYMENT):
        reconcile_deployment(store, deployment)
    uids = {job["metadata"]["uid"] for job in store.list(JOB)}
    for pod in store.list(POD):  # of a Job that is no longer there to count it
        meta = pod["metadata"]
        owners = {owner["uid"] for owner in meta.get("ownerReferences") or []}
        if TRACKED in (meta.get("finalizers") or []) and not owners & uids:
            store.change(POD, meta["namespace"], meta["name"], _untrack)
    collect_garbage(store)


def owned(store: Store, kind: Kind, owner: Manifest) -> list[Manifest]:
    """Objects of a kind that an object owns."""
    uid = owner["metadata"]["uid"]
    return [
        found
        for found in store.list(kind, owner["metadata"].get("namespace", ""))
        if uid in [one["uid"] for one in found["metadata"].get("ownerReferences") or []]
    ]


def reconcile_job(store: Store, job: Manifest) -> None:
    """Count the pods that ended, start one where one is wanted, say how the Job fares."""
    meta, spec = job["metadata"], job["spec"]
    status = copy.deepcopy(job.get("status") or {})
    pods = owned(store, POD, job)
    for pod in pods:
        if TRACKED in (pod["metadata"].get("finalizers") or []) and _ended(pod):
            what = "succeeded" if pod["status"]["phase"] == "Succeeded" else "failed"
            status[what] = status.get(what, 0) + 1
            store.change(POD, meta["namespace"], pod["metadata"]["name"], _untrack)
    active = [pod for pod in pods if not _ended(pod)]
    finished = any(c["status"] == "True" for c in status.get("conditions") or [])
    if "deletionTimestamp" not in meta and not finished:
        status.setdefault("startTime", now())
        if status.get("succeeded", 0) >= spec["completions"]:
            _finish(status, "Complete", "CompletionsReached")
        elif status.get("failed", 0) > spec["backoffLimit"]:
            _finish(status, "Failed", "BackoffLimitExceeded")
        elif _overdue(status, spec):
            _finish(status, "Failed", "DeadlineExceeded")
        elif not active:
            labels = {"job-name": meta["name"], "batch.kubernetes.io/job-name": meta["name"]}
            active = [store.create(pod_of(JOB, job, labels, finalizers=[TRACKED]))]
    if any(c["type"] == "Failed" for c in status.get("conditions") or []):
        for pod in active:
            if "deletionTimestamp" not in pod["metadata"]:
                store.delete(POD, meta["namespace"], pod["metadata"]["name"])
    status["active"] = len(active)
    if status != (job.get("status") or {}):
        store.change(JOB, meta["namespace"], meta["name"], lambda m: m.update(status=status))
    ttl = spec.get("ttlSecondsAfterFinished")
    ended = [_seconds_since(c["lastTransitionTime"]) for c in status.get("conditions") or []]
    if ttl is not None and ended and max(ended) >= ttl and "deletionTimestamp" not in meta:
        store.delete(JOB, meta["namespace"], meta["name"], propagation="Background")


def reconcile_deployment(store: Store, deployment: Manifest) -> None:
    """As many pods as there shall be, and of the template that is there now."""
    meta, spec = deployment["metadata"], deployment["spec"]
    if "deletionTimestamp" in meta:
        return
    wanted, template = spec.get("replicas", 1), _digest(spec["template"])
    pods = [pod for pod in owned(store, POD, deployment) if not _ended(pod)]
    there = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    new = [pod for pod in there if pod["metadata"]["labels"][HASH] == template]
    old = [pod for pod in pods if pod["metadata"]["labels"][HASH] != template]
    recreate = (spec.get("strategy") or {}).get("type") == "Recreate"
    if not (recreate and old):
        for _ in range(wanted - len(new)):
            new.append(store.create(pod_of(DEPLOYMENT, deployment, {HASH: template})))
    ready = sum(is_ready(pod) for pod in new)
    going = new[wanted:] + (old if recreate or ready >= wanted else [])
    for pod in going:
        if "deletionTimestamp" not in pod["metadata"]:
            store.delete(POD, meta["namespace"], pod["metadata"]["name"])
    available = {"type": "Available", "status": str(ready >= wanted), "reason": "Counted"}
    status = {
        "observedGeneration": meta.get("generation", 1),
        "replicas": len(new[:wanted]) + len([pod for pod in old if pod in there]),
        "updatedReplicas": len(new[:wanted]),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "conditions": [available],
    }
    if status != deployment.get("status"):
        store.change(DEPLOYMENT, meta["namespace"], meta["name"], lambda m: m.update(status=status))


def _digest(template: Manifest) -> str:
    """The label by which a Deployment knows the pods of its template."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def collect_garbage(store: Store) -> None:
    """Delete what has lost all its owners, and end deletions in the foreground."""
    everything = store.everything()
    uids = {manifest["metadata"]["uid"] for _, manifest in everything}
    going = {
        manifest["metadata"]["uid"]
        for _, manifest in everything
        if "foregroundDeletion" in (manifest["metadata"].get("finalizers") or [])
    }
    holding: set[str] = set()
    for kind, manifest in everything:
        meta = manifest["metadata"]
        owners = meta.get("ownerReferences") or []
        blocking = {owner["uid"] for owner in owners if owner.get("blockOwnerDeletion")} & going
        holding |= blocking
        there = {owner["uid"] for owner in owners} & uids - blocking
        if owners and not there and "deletionTimestamp" not in meta:
            how = "Foreground" if blocking else "Background"
            store.delete(kind, meta.get("namespace", ""), meta["name"], propagation=how)
    for kind, manifest in everything:
        meta = manifest["metadata"]
        if meta["uid"] in going - holding:
            store.change(kind, meta.get("namespace", ""), meta["name"], _release)


def pod_of(
    kind: Kind, owner: Manifest, labels: dict[str, str], *, finalizers: list[str] | None = None
) -> Manifest:
    """A pod from an object's template."""
    template, meta = owner["spec"]["template"], owner["metadata"]
    mine = copy.deepcopy(template.get("metadata") or {})
    reference = {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata: dict[str, Any] = {
        "generateName": f"{meta['name']}-",
        "namespace": meta["namespace"],
        "labels": {**(mine.get("labels") or {}), **labels},
        "annotations": mine.get("annotations") or {},
        "ownerReferences": [reference],
    }
    if finalizers:
        metadata["finalizers"] = finalizers
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": copy.deepcopy(template["spec"]),
    }


def is_ready(pod: Manifest) -> bool:
    """Whether a pod's condition Ready is true."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod["status"].get("conditions") or []
    )


def _ended(pod: Manifest) -> bool:
    return pod["status"]["phase"] in ("Succeeded", "Failed")


def _untrack(pod: Manifest) -> None:
    pod["metadata"]["finalizers"].remove(TRACKED)


def _release(manifest: Manifest) -> None:
    manifest["metadata"]["finalizers"].remove("foregroundDeletion")


def _finish(status: Manifest, what: str, reason: str) -> None:
    status["conditions"] = [
        {"type": what, "status": "True", "reason": reason, "lastTransitionTime": now()}
    ]
    if what == "Complete":
        status["completionTime"] = now()


def _overdue(status: Manifest, spec: Manifest) -> bool:
    limit = spec.get("activeDeadlineSeconds")
    return limit is not None and _seconds_since(status["startTime"]) > limit


def _seconds_since(time: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()
