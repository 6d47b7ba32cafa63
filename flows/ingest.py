"""One source, volume by volume: plan -> fetch -> convert -> verify -> record."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TagsContext
from prefect.futures import PrefectWrappedFuture
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.credentials import store_settings
from flows.logs import LOGGER, log_file, progress_told
from flows.runners import (
    DeadWorkersError,
    LostClusterError,
    cluster_is_lost,
    start_cluster,
    task_runner,
    workers_died,
)
from lib.concurrency import cancel as stopping
from lib.config.loaders import LoaderConfig
from lib.config.manager import ConfigManager
from lib.config.settings import Settings
from lib.errors import MacroscopeError, StoppedError
from lib.execution import is_heavy
from lib.geometry import ShapeZYX
from lib.ingest import life
from lib.ingest.context import VolumeRequest
from lib.ingest.costs import VolumeCost, cost_of
from lib.ingest.life import Batches, OnShare, Steps
from lib.ingest.record_tracker import volume_result
from lib.ingest.result import ProcessingResult, VolumeResult
from lib.ingest.stages import Batch, note_batch, rest_of
from lib.plan import VolumePlan
from lib.storage.base import StoreSettings
from lib.storage.local_lock import scratch_folder
from lib.storage.open import probe_once
from lib.volumes.job import VolumeJob
from tasks.artifacts import ProgressBar, show_plan, show_record, show_result
from tasks.outage import (
    OutageBackoff,
    deployed_run,
    heeding_cancel,
    retry_through_outage,
    show,
)
from tasks.steps import convert, fetch, plan, publish


@dataclass(frozen=True, slots=True)
class Run:
    """What the steps of one source share."""

    source: str
    config: LoaderConfig
    settings: Settings
    store_settings: StoreSettings
    name: str
    scratch_dir: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def data_uri(self) -> str:
        """Where the volumes of this source go."""
        return str(self.config.output_dir or self.settings.data_dir)

    def request(self, plan: VolumePlan) -> VolumeRequest:
        holder = f"{self.name} on {socket.gethostname()}, process {os.getpid()}"
        return VolumeRequest(
            plan,
            self.config,
            self.data_uri,
            self.store_settings,
            self.scratch_dir,
            holder,
        )

    def task_runner(self, job: VolumeJob) -> TaskRunner[Any]:
        """Where the batches of one of its volumes run; enter it."""
        grid = job.grid
        heavy = is_heavy(
            math.prod(grid.shape_zyx) * job.dtype.itemsize,
            len(grid),
            wanted=self.config.heavy,
            min_bytes=self.settings.dask_min_mb * 1e6,
        )
        return task_runner(
            self.source,
            heavy=heavy,
            setting=self.settings.dask,
            workers=self.config.max_workers,
            settings=self.settings,
        )

    def at_once(self, runner: TaskRunner[Any]) -> int:
        """Batches that a task runner is given at once: enough for each of its workers."""
        if isinstance(runner, ThreadPoolTaskRunner):
            return self.config.max_workers
        return max(self.config.max_workers, self.settings.dask_workers)

    def result(
        self,
        volumes: list[VolumeResult],
        costs: list[VolumeCost],
        failed: Sequence[MacroscopeError] = (),
    ) -> ProcessingResult:
        """Sum up the volumes of this source, and what could not be planned."""
        done = [volume for volume in volumes if volume.status == "complete"]
        ids = sorted({volume.source_id for volume in volumes})
        return ProcessingResult(
            success=not failed and all(volume.error is None for volume in volumes),
            source=self.source,
            source_id=", ".join(ids),
            files_processed=len(done),
            metadata_paths=[volume.metadata_path for volume in done if volume.metadata_path],
            errors=[
                *map(str, failed),
                *(f"{volume.name}: {volume.error}" for volume in volumes if volume.error),
            ],
            processing_time_seconds=time.monotonic() - self.began,
            total_size_bytes=sum(volume.stored_bytes for volume in done),
            volumes=volumes,
            plan=costs,
        )


@contextmanager
def open_run(source: str, config: LoaderConfig | Mapping[str, Any] | None) -> Iterator[Run]:
    """Settings of all layers with the flow's own on top, and a scratch folder that goes at the end.

    A signal or a cancel is passed on to everything that works in this process.
    """
    loaded = ConfigManager().load()
    own = loaded.loader(source, config)
    with (
        stopping.fresh(),
        log_file(loaded.settings.logs_dir, source, debug=own.debug_mode),
        scratch_folder(source) as scratch,
    ):
        try:
            yield Run(
                source=source,
                config=own,
                settings=loaded.settings,
                store_settings=store_settings(loaded),
                name=run_name(),
                scratch_dir=scratch,
            )
        except Exception:
            raise
        except BaseException:
            stopping.request_stop()
            raise


def run_name() -> str:
    """The flow run's name as the Prefect UI shows it."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return "a run without Prefect"
    return f"flow run {context.flow_run.name}"


def carried(data: T) -> T | None:
    """What a failed or cancelled state carries of what was achieved, for whoever called the flow.

    Nothing where the run is a deployment's own: nobody takes the data there, and Prefect would
    resolve them into an exception, and print that it cannot.
    """
    return data if deployed_run() is None else None


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
        heeding_cancel(),
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
        volumes = [volume_result(skipped, "skipped", made=False) for skipped in sources.skipped]
        for volume_plan in sources.plans:
            if run.config.dry_run:
                volumes.append(volume_result(volume_plan, "planned", made=False))
            else:
                volumes.append(make_volume(run, volume_plan))
                tell_of(volumes[-1])
        result = run.result(volumes, costs, sources.failed)
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
        "%s %s: %s%s, %d bytes in %.1f s%s",
        volume.source_id,
        volume.name,
        volume.status,
        kept,
        volume.stored_bytes,
        volume.seconds,
        f": {volume.error}" if volume.error else "",
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
                    rest = rest_of(request, job, shard_indices)
                    if len(rest) == len(shard_indices):  # it may be what kills them
                        raise DeadWorkersError(str(error), archive=request.plan.source) from error
                    shard_indices = rest
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
