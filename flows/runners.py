"""Where a volume's batches run: threads, a local Dask cluster, or one of its own on Kubernetes.

The choice is made inside the flow, because a cluster's name must be new for each retry and because
a volume that is complete already needs none.
"""

from __future__ import annotations

import os
import sys
from itertools import count as counted
from typing import Any

from prefect.context import FlowRunContext
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from lib.errors import MacroscopeError
from lib.execution import dask_choice, on_kubernetes

_clusters = counted(1)


class LostClusterError(MacroscopeError):
    """The Dask cluster of a volume went away or did not start; the next one did no better."""

    retryable = True
    advice = (
        "See the events of the namespace for its scheduler's pod; run again: finished work is kept"
    )


class DeadWorkersError(MacroscopeError):
    """Workers died again and again over a batch of which nothing was finished meanwhile."""

    retryable = True
    advice = (
        "Where they ran out of memory, give them more of it or set smaller shards (shard_mb); run "
        "again: finished work is kept"
    )


def task_runner(source: str, *, heavy: bool, setting: str, workers: int) -> TaskRunner[Any]:
    """A task runner for the batches of one volume; enter it before submitting.

    Parameters
    ----------
    heavy
        Whether the volume is worth a cluster of its own.
    setting
        ``EM_DASK``: auto, kubernetes, local or off.
    workers
        Batches at once, where no cluster decides.
    """
    choice = dask_choice(setting, heavy, on_kubernetes(os.environ))  # type: ignore[arg-type]
    if choice == "off":
        return ThreadPoolTaskRunner(max_workers=workers)
    from prefect_dask.task_runners import (
        DaskTaskRunner,  # a second of imports that light sources do without
    )

    if choice == "local":
        return DaskTaskRunner(
            cluster_class="distributed.LocalCluster",
            cluster_kwargs={
                "n_workers": workers,
                "threads_per_worker": 1,
                "processes": True,
                "dashboard_address": ":0",
            },
            # A local cluster takes a worker off its list that exited by itself, or whose successor
            # was not there within 15 s; once the last is off, batches would wait for ever.
            adapt_kwargs={"minimum": workers, "maximum": workers},
        )
    from lib.kubernetes.request import cluster_request

    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    run_id, count = (str(run.id), run.run_count) if run is not None else ("local", 1)
    nth = next(_clusters)  # each volume has its own, and that of the one before may still be going
    if nth > 1:
        run_id = f"{run_id} {nth}"
    return DaskTaskRunner(**cluster_request(source, run_id, count, os.environ))


def start_cluster(runner: TaskRunner[Any]) -> None:
    """Start the cluster of a task runner that needs one, before anything is submitted.

    Raises
    ------
    LostClusterError
        One of its workers died as it started, which the whole cluster does not survive.
    """
    if isinstance(runner, ThreadPoolTaskRunner):
        return
    try:
        runner.client  # type: ignore[attr-defined]  # noqa: B018
    except RuntimeError as error:
        raise LostClusterError(f"the Dask cluster did not start: {error}") from error


def cluster_is_lost(error: BaseException) -> bool:
    """Whether a batch failed because its Dask cluster went away, and for no reason of its own."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    if isinstance(error, LostClusterError):
        return True
    lost = (distributed.client.FutureCancelledError, distributed.comm.CommClosedError)
    return isinstance(error, lost)


def workers_died(error: BaseException) -> bool:
    """Whether Dask gave a batch up because each of several workers died while it was on it."""
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(error, distributed.scheduler.KilledWorker)
