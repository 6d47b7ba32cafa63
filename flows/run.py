"""One source's run: its settings, its scratch folder, its requests, its result."""

from __future__ import annotations

import math
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prefect.context import FlowRunContext
from prefect.runtime import flow_run as current_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.credentials import store_settings
from flows.logs import log_file
from flows.runners import task_runner
from lib.concurrency import cancel as stopping
from lib.config.loaders import LoaderConfig
from lib.config.manager import ConfigManager
from lib.config.settings import Settings
from lib.errors import MacroscopeError
from lib.execution import is_heavy
from lib.ingest.costs import VolumeCost
from lib.ingest.request import VolumeRequest
from lib.ingest.result import ProcessingResult, VolumeResult
from lib.plan import VolumePlan
from lib.storage.base import StoreSettings
from lib.volumes.job import VolumeJob

T = TypeVar("T")


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

    def result(self, volumes: list[VolumeResult], costs: list[VolumeCost]) -> ProcessingResult:
        """Sum up the volumes of this source."""
        done = [volume for volume in volumes if volume.status == "complete"]
        ids = sorted({volume.source_id for volume in volumes})
        return ProcessingResult(
            success=all(volume.error is None for volume in volumes),
            source=self.source,
            source_id=", ".join(ids),
            files_processed=len(done),
            metadata_paths=[volume.metadata_path for volume in done if volume.metadata_path],
            errors=[f"{volume.name}: {volume.error}" for volume in volumes if volume.error],
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
        tempfile.TemporaryDirectory(prefix=f"macroscope-{source}-") as scratch,
    ):
        try:
            yield Run(
                source=source,
                config=own,
                settings=loaded.settings,
                store_settings=store_settings(loaded),
                name=run_name(),
                scratch_dir=Path(scratch),
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


def in_one_sentence(error: BaseException) -> str:
    """An error for a result or a table; named errors say what to do next."""
    return str(error) if isinstance(error, MacroscopeError) else f"{type(error).__name__}: {error}"


def carried(data: T) -> T | None:
    """What a failed or cancelled state carries of what was achieved, for whoever called the flow.

    Nothing where the run is a deployment's own: nobody takes the data there, and Prefect would
    resolve them into an exception, and print that it cannot.
    """
    deployed = os.environ.get("PREFECT__FLOW_RUN_ID", "inline") == current_run.get_id()
    return None if deployed else data
