"""One source, volume by volume: plan -> fetch -> convert -> verify -> record."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import TagsContext
from prefect.futures import PrefectWrappedFuture
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import TaskRunner

from flows.logs import LOGGER, progress_told
from flows.run import Run, carried, open_run
from flows.runners import (
    DeadWorkersError,
    LostClusterError,
    cluster_is_lost,
    start_cluster,
    workers_died,
)
from lib.concurrency import cancel as stopping
from lib.config.loaders import LoaderConfig
from lib.errors import MacroscopeError, StoppedError
from lib.geometry import ShapeZYX
from lib.ingest import life
from lib.ingest.costs import cost_of
from lib.ingest.life import Batches, OnShare, Steps
from lib.ingest.record_tracker import not_made
from lib.ingest.request import VolumeRequest
from lib.ingest.result import ProcessingResult, VolumeResult
from lib.ingest.stages import Batch, note_batch, rest_of
from lib.plan import VolumePlan
from lib.storage.open import probe_once
from lib.volumes.job import VolumeJob
from tasks.artifacts import ProgressBar, show_plan, show_record, show_result
from tasks.outage import OutageBackoff, retry_through_outage, show
from tasks.steps import convert, fetch, plan, publish

T = TypeVar("T")

POLL_S = 0.2
"""How often a waiting flow looks up: a signal reaches the main thread between two looks."""


def ingest(source: str, config: LoaderConfig | Mapping[str, Any] | None) -> ProcessingResult:
    """Bring in one source; called inside its flow.

    A volume that fails does not keep the others of its source from being made.
    """
    mine: set[str] = set()
    # Prefect keeps a thread for each set of tags that tasks of a process ever had
    shared = {tag for tag in TagsContext.get().current_tags if ":" not in tag}
    with (
        TagsContext(current_tags=shared),
        open_run(source, config) as run,
        progress_told(mine, get_run_logger().info),
    ):
        try:
            if not run.config.dry_run:
                probe_once(run.data_uri, run.store_settings)
            sources = or_stopped(
                retry_through_outage(
                    lambda: plan(
                        source, run.config, run.scratch_dir, run.data_uri, run.store_settings
                    )
                )
            )
        except MacroscopeError as error:  # named, with its advice: no traceback says more
            said = {"success": False, "errors": [str(error)]}
            return run.result([], []).model_copy(update=said)
        costs = [cost_of(p, run.config, run.settings.assumed_compression) for p in sources.plans]
        mine |= {f"{source}/{one.name}" for one in sources.plans}
        show(lambda: show_plan(source, costs))
        volumes = [not_made(skipped, "skipped") for skipped in sources.skipped]
        for volume_plan in sources.plans:
            if run.config.dry_run:
                volumes.append(not_made(volume_plan, "planned"))
            else:
                volumes.append(make_volume(run, volume_plan))
                tell_of(volumes[-1])
        result = run.result(volumes, costs)
        retry_through_outage(lambda: show_result(result))  # a parent elsewhere reads it
        return result


def make_volume(run: Run, volume_plan: VolumePlan) -> VolumeResult:
    """One volume, its steps as Prefect tasks, so that each is seen and can be tried again."""

    def batches(request: VolumeRequest, job: VolumeJob, todo: Batches, on_share: OnShare) -> None:
        bar = ProgressBar(request)

        def both(share: float) -> None:
            on_share(share)
            bar.update(share)

        finished: set[int] = set()
        for last in (False, True):  # a cluster that is lost is replaced once
            try:
                with run.task_runner(job) as runner:
                    start_cluster(runner)
                    at_once = run.at_once(runner)
                    convert_all(
                        runner, request, job, todo, both, at_once=at_once, finished=finished
                    )
                return
            except Exception as error:
                if not cluster_is_lost(error):
                    raise
                if last:
                    raise LostClusterError(str(error), archive=run.source) from error

    steps = Steps(
        fetch=lambda request: or_stopped(retry_through_outage(lambda: fetch(request))),
        convert=batches,
        finish=lambda request, job: or_stopped(retry_through_outage(lambda: publish(request, job))),
        show=lambda request, record: show(lambda: show_record(request, record)),
    )
    return life.make_volume(run.request(volume_plan), run.name, steps)


def tell_of(volume: VolumeResult) -> None:
    """One line in the log for what came of a volume."""
    level = logging.ERROR if volume.error else logging.INFO
    kept = "" if volume.made else " (up to date)"
    if volume.repaired_files:
        kept = f" (repaired: {volume.repaired_files} files)"
    LOGGER.log(
        level,
        "%s %s: %s%s, %d bytes in %.1f s %s",
        volume.source_id,
        volume.name,
        volume.status,
        kept,
        volume.stored_bytes,
        volume.seconds,
        volume.error or "",
    )


def convert_all(
    runner: TaskRunner[Any],
    request: VolumeRequest,
    job: VolumeJob,
    todo: Batches,
    on_share: OnShare,
    *,
    at_once: int,
    finished: set[int],
) -> None:
    """All batches of one volume, some at once; the first that fails ends the volume.

    Parameters
    ----------
    finished
        Numbers (from 1) of the batches that need not be made; grows as others are.
    """
    waiting = [pair for pair in enumerate(todo, start=1) if pair[0] not in finished]
    running: dict[PrefectWrappedFuture[Batch, Any], tuple[int, list[ShapeZYX]]] = {}
    backoff = OutageBackoff()
    while waiting or running:
        while waiting and len(running) <= at_once:  # one waits, so that no worker ever does
            number, shard_indices = waiting.pop(0)
            parameters = {
                "request": request,
                "job": job,
                "shard_indices": shard_indices,
                "part": f"{number}/{len(todo)}",
            }
            running[runner.submit(convert, parameters=parameters)] = number, shard_indices
        for future in [f for f in running if f.wrapped_future.done()]:
            number, shard_indices = running.pop(future)
            try:
                note_batch(request, future.result())
            except Exception as error:
                if workers_died(error):
                    shard_indices = _rest_of_the_dead(request, job, shard_indices, error)
                elif not backoff.retries(error):
                    raise
                waiting.append((number, shard_indices))
                continue
            backoff.reset()
            finished.add(number)
            on_share(len(finished) / len(todo))
        if running:
            with suppress(Exception):  # one that fails meanwhile is looked at in the next turn
                next(iter(running)).wait(POLL_S)
        stopping.check()


def _rest_of_the_dead(
    request: VolumeRequest, job: VolumeJob, shard_indices: list[ShapeZYX], error: Exception
) -> list[ShapeZYX]:
    """What workers that died left of a batch; where that is all of it, it may be what kills them.

    Raises
    ------
    DeadWorkersError
    """
    rest = rest_of(request, job, shard_indices)
    if len(rest) == len(shard_indices):
        raise DeadWorkersError(str(error), archive=request.plan.source) from error
    return rest


def or_stopped(answer: T | State[T]) -> T:
    """What a task returned; `StoppedError` where it was cancelled (see `tasks.steps`)."""
    if isinstance(answer, State):
        raise StoppedError("the run was asked to stop")
    return answer


def as_state(result: ProcessingResult) -> State[ProcessingResult]:
    """A state that carries the result and says in a line what it came to."""
    if stopping.stop_requested():
        return Cancelled(message="the run was asked to stop", data=carried(result))
    if result.success:
        return Completed(message=result.in_words(), data=result)
    return Failed(message="; ".join(result.errors), data=carried(result))
