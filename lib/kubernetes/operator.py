"""The Dask operator, as a module for kopf: ``kopf run -m lib.kubernetes.operator``.

It is dask-kubernetes' own controller with two remedies:

- dask-kubernetes 2026.3.0 writes a cluster's phase ``Running`` and then overwrites it with
  ``Pending`` (dask-kubernetes#968, fix #977 unreleased), so that clusters never get ready. A
  handler here lifts a Pending cluster to Running as soon as its scheduler's Deployment is up.
- kopf scans for namespaces and custom resources with rights that a namespaced Role cannot give,
  and retries for minutes. Scanning is off; start it with ``--namespace`` and ``--standalone``.
"""

from __future__ import annotations

from typing import Any

import kopf
from dask_kubernetes.operator._objects import DaskCluster
from dask_kubernetes.operator.controller import controller
from kr8s.asyncio.objects import Deployment

# importing the wheel's controller registers its handlers with kopf
__all__ = ["controller", "lift_pending_to_running", "no_scanning", "scheduler_is_up"]


@kopf.on.startup()
async def no_scanning(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Watch the given namespace only, and do not look for others."""
    settings.scanning.disabled = True


def scheduler_is_up(deployment: dict[str, Any]) -> bool:
    """Whether a scheduler's Deployment has a replica that passed its readiness probe."""
    return int(deployment.get("status", {}).get("readyReplicas") or 0) > 0


@kopf.timer(
    "daskcluster.kubernetes.dask.org",
    interval=1.0,
    field="status.phase",
    value="Pending",
)
async def lift_pending_to_running(
    *, name: str, namespace: str | None, logger: kopf.Logger, **_: Any
) -> None:
    """Mark a Pending cluster Running once its scheduler is ready."""
    deployments: list[Any] = [
        deployment
        async for deployment in Deployment.list(
            namespace=namespace,
            label_selector={
                "dask.org/cluster-name": name,
                "dask.org/component": "scheduler",
            },
        )
    ]
    if any(scheduler_is_up(deployment.raw) for deployment in deployments):
        cluster = await DaskCluster.get(name, namespace=namespace)
        await cluster.patch({"status": {"phase": "Running"}})
        logger.info("DaskCluster %s is running: its scheduler is ready", name)
