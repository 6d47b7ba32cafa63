"""Where a volume's batches run: threads, a local Dask cluster, or one of its own on Kubernetes.

The choice is made inside the flow, because a cluster's name must be new for each retry and because
a volume that is complete already needs none.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from itertools import count as counted
from typing import Any

from prefect.context import FlowRunContext
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from lib.config.settings import Settings
from lib.errors import ConfigError, MacroscopeError
from lib.execution import dask_choice, on_kubernetes
from lib.jobqueue import read_options, start_queue

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


def task_runner(
    source: str, *, heavy: bool, setting: str, workers: int, settings: Settings | None = None
) -> TaskRunner[Any]:
    """A task runner for the batches of one volume; enter it before submitting.

    Parameters
    ----------
    heavy
        Whether the volume is worth a cluster of its own.
    setting
        ``EM_DASK``.
    workers
        Batches at once, where no cluster decides.
    settings
        What else the settings say of Dask; the defaults where it is None.
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
    if choice != "kubernetes":
        return DaskTaskRunner(**_elsewhere(choice, settings or Settings.model_validate({})))
    from lib.kubernetes.dask_cluster import cluster_request

    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    run_id, count = (str(run.id), run.run_count) if run is not None else ("local", 1)
    nth = next(_clusters)  # each volume has its own, and that of the one before may still be going
    if nth > 1:
        run_id = f"{run_id} {nth}"
    return DaskTaskRunner(**cluster_request(source, run_id, count, os.environ))


def _elsewhere(choice: str, settings: Settings) -> dict[str, Any]:
    """Arguments of a task runner on somebody else's machines."""
    if choice == "address":
        return {"address": settings.dask_address}
    options = read_options(settings.dask_options)
    if choice == "gateway":
        if find_spec("dask_gateway") is None:
            raise ConfigError(
                "dask: gateway needs dask-gateway, which is not installed",
                location="EM_DASK",
                advice="Install it in the version of your gateway's server",
            )
        return {
            "cluster_class": "dask_gateway.GatewayCluster",
            "cluster_kwargs": options,
            "adapt_kwargs": {"minimum": settings.dask_workers, "maximum": settings.dask_workers},
        }
    return {
        "cluster_class": start_queue,
        "cluster_kwargs": {
            "kind": choice,
            "workers": settings.dask_workers,
            "log_directory": os.path.join(settings.logs_dir, "dask"),
            "options": options,
        },
        # a job that ended is followed by another one
        "adapt_kwargs": {"minimum": settings.dask_workers, "maximum": settings.dask_workers},
    }


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
