"""Pods for tests: whatever command, as restricted as the project's own."""

from __future__ import annotations

from typing import Any

from lib.kubernetes.dask_cluster import restricted_container, restricted_pod

Manifest = dict[str, Any]


def pod_spec(*words: str, **more: Any) -> Manifest:
    """A pod of one container that runs some words; ``container`` adds to it, others to the pod."""
    container: Manifest = {
        "name": "c",
        "image": "macroscope:0.1.0",
        "args": list(words),
        "securityContext": restricted_container(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
    }
    return {
        "restartPolicy": "Never",
        "securityContext": restricted_pod(),
        "containers": [container | more.pop("container", {})],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        **more,
    }


def job(name: str, *words: str, labels: dict[str, str] | None = None, **more: Any) -> Manifest:
    """A Job of one such pod."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "em", "labels": labels or {}},
        "spec": {"backoffLimit": 0, "template": {"spec": pod_spec(*words, **more)}},
    }
