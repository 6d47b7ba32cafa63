"""The parent flow: the mode decides who starts when, every source is a flow of its own.

What may start is started, then what then may, until all have ended. One source failing does not
stop the others. Every source's start and end are recorded, so that order and overlap can be proven
afterwards.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Generic, TypeVar

from prefect import tags
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed
from pydantic import AfterValidator, Field, WithJsonSchema

from flows.calling import Form, flow, parent_run_name, shown
from flows.consolidate import consolidate
from flows.credentials import store_settings
from flows.ingest import carried
from flows.sources import cancel_children, cancel_children_of, run_source
from lib.archives.registry import REGISTRY, archive
from lib.concurrency import cancel as stopping
from lib.config.manager import ConfigManager
from lib.errors import (
    ConfigError,
    MacroscopeError,
    NothingThereError,
    StoppedError,
    in_one_sentence,
)
from lib.execution import MODES, Step, check_sources, ready, schedule
from lib.execution import mode as find_mode
from lib.ingest.datasets import Dataset, Job, check, jobs_of
from lib.ingest.planning import by_round, with_parameters
from lib.ingest.result import ProcessingResult
from lib.records.catalogue import note_groups
from lib.storage.keys import require_contents
from lib.storage.open import open_store
from tasks.artifacts import run_in_words, show_run, show_volumes
from tasks.outage import heeding_cancel, retry_through_outage, show

T = TypeVar("T")

STAGGER_S = 0.3
"""Flow runs that start in the same instant meet Prefect's SQLite "database is locked" and back off
for seconds; started this far apart they do not."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How one source ended: a result or an error, and when (seconds since the epoch)."""

    source: str
    started: float
    ended: float
    result: T | None = None
    error: BaseException | None = None


def run_schedule(
    steps: Iterable[Step], start: Callable[[str], T], *, workers: int
) -> list[Outcome[T]]:
    """Call `start` for each source when those it waits for have ended, well or not.

    Calls run in threads that carry this thread's context, so that flow runs become children.

    Parameters
    ----------
    workers
        Sources at once, at most.

    Returns
    -------
    list of Outcome
        One for each source, in the order in which they ended.
    """
    steps = tuple(steps)
    outcomes: list[Outcome[T]] = []
    running: dict[Future[Outcome[T]], str] = {}

    def one(source: str) -> Outcome[T]:
        began = time.time()
        try:
            result = start(source)
            return Outcome(source, began, time.time(), result=result)
        except BaseException as error:
            return Outcome(source, began, time.time(), error=error)

    with ThreadPoolExecutor(workers, thread_name_prefix="source") as pool:
        try:
            while len(outcomes) < len(steps):
                finished = {outcome.source for outcome in outcomes}
                for source in ready(steps, finished, set(running.values())):
                    if len(running) >= workers:
                        break
                    stopping.check()
                    running[pool.submit(contextvars.copy_context().run, one, source)] = source
                    time.sleep(STAGGER_S)
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    running.pop(future)
                    outcomes.append(future.result())
        except BaseException:
            # a cancel or a signal: loaders see the request between units of work and end
            stopping.request_stop()
            raise
    return outcomes


def _known(name: str) -> str:
    try:
        check_sources([name], REGISTRY)
    except ConfigError as error:
        raise ValueError(error.message) from None
    return name


def _known_mode(name: str) -> str:
    try:
        return find_mode(name).name
    except ConfigError as error:
        raise ValueError(error.message) from None


ModeName = Annotated[
    Annotated[str, AfterValidator(_known_mode)] | None,
    WithJsonSchema({"enum": [*MODES, None]}),
    shown("Mode", "In which order sources run; empty: as the installation sets it.", "staged"),
]
SourceName = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": [*REGISTRY]})]
SourceNames = Annotated[
    list[SourceName] | None,
    Form(),
    shown(
        "Sources",
        "Only these; empty: all, or none where addresses or datasets are given.",
        ["ebi", "idr"],
        default=[],
    ),
]
SourceSettings = Annotated[
    dict[str, dict[str, Any]] | None,
    Form(),
    shown(
        "Settings by source",
        "Settings of single sources, by their names in config/config.yaml.",
        {"flyem": {"crop_size": "z=64,y=128,x=128"}},
        default={},
    ),
]
DryRun = Annotated[bool, shown("Plan only", "Show what it would cost; fetch no voxels.", True)]
AddressList = Annotated[
    list[str] | None,
    Form(),
    shown(
        "Addresses",
        "Volumes by their addresses.",
        ["empiar:10310", "s3://bucket/x.zarr|zarr:em"],
        default=[],
    ),
]
DatasetList = Annotated[
    list[Dataset] | None,
    Form(),
    shown(
        "Datasets",
        "Addresses with options of their own, each a run of its own; one that fails stops no "
        "other.",
        [{"address": "empiar:10310", "group": "worms"}],
        default=[],
    ),
]


@flow(
    name="macroscope",
    flow_run_name=parent_run_name,
    description=__doc__,
    on_cancellation=[cancel_children],
)
def macroscope(
    mode: ModeName = None,
    sources: SourceNames = None,
    parameters: SourceSettings = None,
    dry_run: DryRun = False,
    addresses: AddressList = None,
    datasets: DatasetList = None,
) -> list[ProcessingResult] | State[Any]:
    """Bring in all sources, or some, then catalogue what the store holds.

    Parameters
    ----------
    mode
        A name in `lib.execution.MODES`; EM_EXECUTION_MODE where it is not given.
    sources
        Which of them; all by default, none where addresses or datasets are given.
    parameters
        Settings of single loaders, by source: ``{"flyem": {"crop_size": [256, 256, 256]}}``.
    dry_run
        Plan only.
    addresses
        Volumes by their addresses: ``empiar:10310``, ``s3://bucket/x.zarr|zarr:em``, a path.
    datasets
        Addresses with options of their own, each a run of its own.
    """
    loaded = ConfigManager().load()
    settings = loaded.settings
    chosen = find_mode(mode or settings.execution_mode)
    outcomes: list[Outcome[ProcessingResult]] = []
    jobs = {job.label: job for job in jobs_of(datasets or ())}
    check(jobs.values(), loaded)
    only_jobs = bool(jobs) and not (sources or addresses)
    rounds = [] if only_jobs else by_round(sources, addresses, parameters or {}, settings)
    try:
        with stopping.fresh(), heeding_cancel(cancel_children_of):
            for given in rounds:
                heavy = {name for name in given if archive(name).heavy}
                if dry_run:
                    given = {name: {**one, "dry_run": True} for name, one in given.items()}
                start = partial(_start, given, settings.subflows)
                steps = schedule(chosen, given, heavy)
                outcomes += run_schedule(steps, start, workers=chosen.workers)
            if jobs:
                alone = [Step(label, frozenset()) for label in jobs]
                start_job = partial(_start_job, jobs, parameters or {}, settings.subflows, dry_run)
                outcomes += run_schedule(alone, start_job, workers=settings.datasets_at_once)
    except StoppedError:
        if not stopping.stop_requested():
            raise
    results = [_result(outcome, jobs) for outcome in outcomes]
    if stopping.stop_requested():
        return Cancelled(message="the run was asked to stop", data=carried(results))
    failures = []
    if not dry_run:
        try:
            note_groups(settings.metadata_dir, settings.data_dir, store_settings(loaded), results)
            require_contents(open_store(settings.data_dir, store_settings(loaded)), "catalogue")
            with tags("macroscope", "catalog"):  # as its deployment has
                retry_through_outage(consolidate)
        except NothingThereError:
            pass  # nothing was made, and the sources say why
        except MacroscopeError as error:  # what the sources came to must not be lost with it
            failures.append(f"catalogue: {error}")
    times = [(outcome.source, outcome.started, outcome.ended) for outcome in outcomes]
    show(lambda: retry_through_outage(lambda: show_run(chosen.name, results, times)))
    if not dry_run:
        shown = partial(show_volumes, results, store_settings(loaded))
        show(lambda: retry_through_outage(shown))
    failures += [f"{r.label}: {'; '.join(r.errors)}" for r in results if not r.success]
    if failures:
        return Failed(message=" | ".join(failures), data=carried(results))
    return Completed(message=run_in_words(results), data=results)


def _start(given: Mapping[str, Mapping[str, Any]], where: str, source: str) -> ProcessingResult:
    return run_source(source, given[source], where=where)


def _start_job(
    jobs: Mapping[str, Job],
    parameters: Mapping[str, Mapping[str, Any]],
    where: str,
    dry_run: bool,
    label: str,
) -> ProcessingResult:
    job = jobs[label]
    given = with_parameters(job, parameters)[job.source]
    if dry_run:
        given["dry_run"] = True
    with tags(*([f"group:{job.group}"] if job.group else [])):
        return run_source(job.source, given, where=where, dataset=label)


def _result(outcome: Outcome[ProcessingResult], jobs: Mapping[str, Job]) -> ProcessingResult:
    """What a source came to, also where its flow ended in an error of its own."""
    job = jobs.get(outcome.source)
    if outcome.result is not None:
        result = outcome.result
    else:
        error = outcome.error or RuntimeError("ended without a result")
        result = ProcessingResult(
            success=False,
            source=outcome.source if job is None else job.source,
            source_id="",
            errors=[in_one_sentence(error)],
            processing_time_seconds=outcome.ended - outcome.started,
        )
    told = {} if job is None else {"dataset": job.label, "group": job.group}
    return result.model_copy(update=told)
