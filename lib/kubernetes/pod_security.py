"""The security settings that Pod Security "restricted" asks of every pod, in one place."""

from __future__ import annotations

from typing import Any

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
