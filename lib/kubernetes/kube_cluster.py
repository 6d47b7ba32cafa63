"""dask-kubernetes' KubeCluster, with an end to its waiting.

Left alone it waits for ever for a scheduler pod that no node can take, returns before any worker
is there, waits an hour for a cluster whose operator is gone, and takes an API server that is away
for a moment for the end of the work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import httpx
import kr8s
from dask_kubernetes.operator import KubeCluster
from dask_kubernetes.operator._objects import DaskCluster
from kr8s.asyncio.objects import Pod

from lib.concurrency import cancel as stopping
from lib.errors import MacroscopeError

_log = logging.getLogger(__name__)

AGAIN_S = 1.0
CALL_S = 30.0  # of one call; kr8s itself would wait for an answer for ever
STOPPING_S = 20.0  # of closing in a run that was asked to stop: its pod is killed 60 s after that
AWAY = (httpx.TransportError, kr8s.APITimeoutError, kr8s.ServerError, OSError)
"""What calls end with while the API server is restarted. A verb that is missing in a Role looks the
same (kr8s hides the 403 in a read error), so whoever waits also has to end waiting."""


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
    delete_timeout_seconds
        How long to go on asking an API server for the deletion that is away; less where the run
        was asked to stop.
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
        delete_timeout_seconds: float = 600,
        **kwargs: Any,
    ) -> None:
        self._startup_timeout = startup_timeout_seconds
        self._close_timeout = close_timeout_seconds
        self._delete_timeout = delete_timeout_seconds
        self._last_error: BaseException | None = None
        super().__init__(**{"quiet": True, "resource_timeout": startup_timeout_seconds} | kwargs)

    async def _start(self) -> None:
        try:
            await asyncio.wait_for(self._start_with_a_worker(), self._startup_timeout)
        except Exception as error:
            waited = isinstance(error, TimeoutError)
            last = [] if self._last_error is None else [f"last error: {self._last_error!r}"]
            why = "; ".join([await self._reasons(), *last])
            await self._close()
            what = f"not ready after {self._startup_timeout:g} s" if waited else f"failed: {error}"
            raise DaskClusterError(
                f"the Dask cluster {self.name} is {what}" + (f" ({why})" if why else ""),
                location=f"namespace {self.namespace}",
            ) from error

    async def _start_with_a_worker(self) -> None:
        while True:
            try:
                await super()._start()  # type: ignore[no-untyped-call]
                break
            except AWAY as error:  # a second start connects to what the first has made
                if isinstance(error, TimeoutError) or _is_refusal(error):
                    raise
                _log.warning("starting Dask cluster %s again: %r", self.name, error)
                self._last_error = error
                await asyncio.sleep(AGAIN_S)
        while not self.scheduler_info.get("workers"):
            await asyncio.sleep(0.25)

    async def _close(self, timeout: float = 3600) -> None:
        """Ask for the deletion until it is taken, then see the cluster go for a while."""
        delete, self.shutdown_on_close = self.shutdown_on_close, False
        try:
            await super()._close()  # type: ignore[no-untyped-call]
        finally:
            self.shutdown_on_close = delete
        if not delete:
            return
        since, taken, why = time.monotonic(), False, ""
        while time.monotonic() - since < min(timeout, self._patience(taken)):
            try:
                if await asyncio.wait_for(self._delete(), CALL_S):
                    return
                if not taken:
                    since, taken, why = time.monotonic(), True, "is still being deleted"
            except AWAY as error:
                if not why:
                    _log.warning("deleting Dask cluster %s again: %r", self.name, error)
                why = f"could not be deleted: {error!r}"
                if _is_refusal(error):
                    break
            await asyncio.sleep(AGAIN_S)
        _log.warning("Dask cluster %s %s; left to Kubernetes and the clean-up", self.name, why)

    def _patience(self, taken: bool) -> float:
        """Seconds to wait: for the API server to take the deletion, then for the cluster to go."""
        if stopping.stop_requested():  # the pod has its grace period, and a record to write in it
            return STOPPING_S
        return self._close_timeout if taken else self._delete_timeout

    async def _delete(self) -> bool:
        """Ask for the deletion, unless that is done; True once the cluster is gone."""
        try:
            cluster = await DaskCluster.get(self.name, namespace=self.namespace)
            if "deletionTimestamp" not in cluster.raw["metadata"]:
                await cluster.delete()
        except kr8s.NotFoundError:
            return True
        return False

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
        except AWAY as error:
            return f"its pods cannot be listed: {error}"
        for pod in pods:
            reasons.update(pod_reasons(pod.raw))
        return "; ".join(sorted(reasons)) if pods else "it has no pods: is the Dask operator up?"


def _is_refusal(error: BaseException) -> bool:
    """Whether the API server is there, and says no."""
    response = error.response if isinstance(error, kr8s.ServerError) else None
    return response is not None and response.status_code < 500


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
