"""The steps of every run as Prefect tasks: plan, fetch, convert, publish.

Prefect tries a step again only where another try can help. Single requests are tried again below,
by the transport. This is for what remains: a worker that died, a source that changed under the run,
a server that was away for minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Cancelled
from prefect.tasks import exponential_backoff

from lib.concurrency import cancel as stopping
from lib.config.loaders import LoaderConfig
from lib.errors import MacroscopeError, StoppedError
from lib.geometry import ShapeZYX
from lib.ingest.context import VolumeRequest
from lib.ingest.stages import (
    Batch,
    IngestedVolume,
    Sources,
    batches,
    convert_batch,
    finish_volume,
    plan_source,
)
from lib.ingest.stages import fetch as fetch_files
from lib.storage.base import StoreSettings
from lib.storage.open import open_store
from lib.volumes.job import VolumeJob
from tasks.limits import rate_limited

P = ParamSpec("P")
R = TypeVar("R")


def cancellable(function: Callable[P, R]) -> Callable[P, R]:
    """Make a request to stop end the task as Cancelled: who stops a run wants no tracebacks.

    A task that is called, and not submitted, then returns its state in place of its result.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except StoppedError as error:
            return cast(R, Cancelled(message=str(error)))

    return run


def can_help(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether the error says that another try can help; unknown errors get no second try."""
    if stopping.stop_requested():
        return False
    try:
        state.result(raise_on_failure=True)
    except MacroscopeError as error:
        return error.retryable
    except BaseException:
        return False
    return False


RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": exponential_backoff(backoff_factor=5),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": can_help,
}


@task(name="plan", task_run_name="plan {source}", tags=["plan"], **RETRIES)
@cancellable
@rate_limited
def plan(
    source: str,
    config: LoaderConfig,
    scratch_dir: Path,
    data_uri: str,
    store_settings: StoreSettings,
) -> Sources:
    """Ask one archive for everything that `config` names; metadata only.

    The store is asked for the names that its records hold.
    """
    return plan_source(source, config, scratch_dir, open_store(data_uri, store_settings))


@task(name="fetch", task_run_name="fetch {request.plan.name}", tags=["fetch"], **RETRIES)
@cancellable
@rate_limited
def fetch(request: VolumeRequest) -> tuple[VolumeJob, list[list[ShapeZYX]]]:
    """Raw files, the job, and the batches of shards that are still to be made."""
    job = fetch_files(request)
    return job, batches(request, job)


@task(
    name="convert", task_run_name="convert {request.plan.name} {part}", tags=["convert"], **RETRIES
)
@cancellable
@rate_limited
def convert(
    request: VolumeRequest, job: VolumeJob, shard_indices: list[ShapeZYX], part: str
) -> Batch:
    """Make the given shards and their ledger entries."""
    return convert_batch(request, job, shard_indices)


@task(name="publish", task_run_name="publish {request.plan.name}", tags=["publish"], **RETRIES)
@cancellable
@rate_limited
def publish(request: VolumeRequest, job: VolumeJob) -> IngestedVolume:
    """Prove that every shard is there, that the source is still the same, and publish."""
    return finish_volume(request, job)
