"""The security settings that Pod Security "restricted" asks of every pod, in one place."""

from __future__ import annotations

from typing import Any

RUN_AS = 1001  # the image's user; has a passwd entry there, because getpass.getuser() wants one


def restricted_pod() -> dict[str, Any]:
    """A pod's ``securityContext``: numeric non-root user and group, default seccomp profile."""
    return {
        "runAsNonRoot": True,
        "runAsUser": RUN_AS,
        "runAsGroup": RUN_AS,
        "fsGroup": RUN_AS,
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
