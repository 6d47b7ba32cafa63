"""dask-kubernetes' KubeCluster, with an end to its waiting.

Left alone it waits for ever for a scheduler pod that no node can take, returns before any worker
is there, and waits an hour for a cluster whose operator is gone.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import kr8s
from dask_kubernetes.operator import KubeCluster
from kr8s.asyncio.objects import Pod

from lib.errors import MacroscopeError

_log = logging.getLogger(__name__)


class DaskClusterError(MacroscopeError):
    """A temporary Dask cluster did not come up in time."""

    retryable = True
    advice = (
        "See `kubectl describe pod` for its pods; give it room, ask for fewer or smaller workers, "
        "or run with EM_DASK=off"
    )


class PatientKubeCluster(KubeCluster):
    """A KubeCluster that is ready with its first worker, or fails by name.

    Parameters
    ----------
    startup_timeout_seconds
        From the request to the first worker that reported in.
    close_timeout_seconds
        How long to wait for Kubernetes to confirm that the cluster is gone. What is left then
        goes by its owner reference, its ``idleTimeout`` or the clean-up.
    **kwargs
        As for `dask_kubernetes.operator.KubeCluster`.

    Raises
    ------
    DaskClusterError
        The cluster was not ready in time; it has been deleted, and the error says what
        Kubernetes gave as its reason.
    """

    def __init__(
        self,
        *,
        startup_timeout_seconds: float = 300,
        close_timeout_seconds: float = 60,
        **kwargs: Any,
    ) -> None:
        self._startup_timeout = startup_timeout_seconds
        self._close_timeout = close_timeout_seconds
        super().__init__(**{"quiet": True, "resource_timeout": startup_timeout_seconds} | kwargs)

    async def _start(self) -> None:
        try:
            await asyncio.wait_for(self._start_with_a_worker(), self._startup_timeout)
        except Exception as error:
            waited = isinstance(error, TimeoutError)
            why = await self._reasons()
            await self._close()
            what = f"not ready after {self._startup_timeout:g} s" if waited else f"failed: {error}"
            raise DaskClusterError(
                f"the Dask cluster {self.name} is {what}" + (f" ({why})" if why else ""),
                location=f"namespace {self.namespace}",
            ) from error

    async def _start_with_a_worker(self) -> None:
        await super()._start()  # type: ignore[no-untyped-call]
        while not self.scheduler_info.get("workers"):
            await asyncio.sleep(0.25)

    async def _close(self, timeout: float = 3600) -> None:
        try:
            await super()._close(  # type: ignore[no-untyped-call]
                timeout=min(timeout, self._close_timeout)
            )
        except TimeoutError:
            _log.warning("Dask cluster %s is still being deleted; left to Kubernetes", self.name)

    async def _reasons(self) -> str:
        """What Kubernetes says about pods of this cluster that are not ready."""
        reasons: set[str] = set()
        try:
            pods: list[Any] = [
                pod
                async for pod in Pod.list(
                    namespace=self.namespace,
                    label_selector={"dask.org/cluster-name": self.name},
                )
            ]
        except (kr8s.ServerError, kr8s.APITimeoutError, OSError) as error:
            return f"its pods cannot be listed: {error}"
        for pod in pods:
            reasons.update(pod_reasons(pod.raw))
        return "; ".join(sorted(reasons)) if pods else "it has no pods: is the Dask operator up?"


def pod_reasons(pod: dict[str, Any]) -> list[str]:
    """Why a pod is not ready, in Kubernetes' own words; empty when it is.

    Parameters
    ----------
    pod
        The Pod object as the API gives it.
    """
    name = pod.get("metadata", {}).get("name", "pod")
    status = pod.get("status", {})
    found = []
    for condition in status.get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            found.append(
                f"{name}: {condition.get('reason')}: {condition.get('message', '')}".rstrip(": ")
            )
    for container in status.get("containerStatuses", []):
        for phase in ("waiting", "terminated"):
            state = container.get("state", {}).get(phase)
            if state:
                message = f"{name}: {state.get('reason')}: {state.get('message', '')}"
                found.append(message.rstrip(": "))
    return found
