"""The parent flow: the mode decides who starts when, every source is a flow of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from prefect import tags
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.calling import flow
from flows.consolidate import consolidate
from flows.credentials import store_settings
from flows.deployed import cancel_children
from flows.naming import parent_run_name
from flows.run import carried, in_one_sentence
from flows.schedule import Outcome, run_schedule
from flows.sources import run_source
from lib.archives.registry import archive
from lib.config.manager import ConfigManager
from lib.errors import MacroscopeError, NothingThereError
from lib.execution import mode as find_mode
from lib.execution import schedule
from lib.ingest.planning import by_round
from lib.ingest.result import ProcessingResult
from lib.records.catalogue import require_contents
from lib.storage.open import open_store
from tasks.artifacts import run_in_words, show_run, show_volumes
from tasks.outage import retry_through_outage


@flow(
    name="macroscope",
    flow_run_name=parent_run_name,
    description=__doc__,
    on_cancellation=[cancel_children],
)
def macroscope(
    mode: str | None = None,
    sources: list[str] | None = None,
    parameters: dict[str, dict[str, Any]] | None = None,
    dry_run: bool = False,
    addresses: list[str] | None = None,
) -> list[ProcessingResult] | State[list[ProcessingResult]]:
    """Bring in all sources, or some, then catalogue what the store holds.

    Parameters
    ----------
    mode
        staged, background, parallel or sequential; EM_EXECUTION_MODE where it is not given.
    sources
        Which of them; all by default, none where addresses are given.
    parameters
        Settings of single loaders, by source: ``{"flyem": {"crop_size": [256, 256, 256]}}``.
    dry_run
        Plan only.
    addresses
        Volumes by their addresses: ``empiar:10310``, ``s3://bucket/x.zarr|zarr:em``, a path.
    """
    loaded = ConfigManager().load()
    settings = loaded.settings
    chosen = find_mode(mode or settings.execution_mode)
    outcomes: list[Outcome[ProcessingResult]] = []
    for given in by_round(sources, addresses, parameters or {}, settings):
        heavy = {name for name in given if archive(name).heavy}
        if dry_run:
            given = {name: {**one, "dry_run": True} for name, one in given.items()}
        start = partial(_start, given, settings.subflows)
        outcomes += run_schedule(schedule(chosen, given, heavy), start, workers=chosen.workers)
    results = [_result(outcome) for outcome in outcomes]
    failures = []
    if not dry_run:
        try:
            require_contents(open_store(settings.data_dir, store_settings(loaded)))
            with tags("macroscope", "catalog"):  # as its deployment has
                retry_through_outage(consolidate)
        except NothingThereError:
            pass  # nothing was made, and the sources say why
        except MacroscopeError as error:  # what the sources came to must not be lost with it
            failures.append(f"catalogue: {error}")
    times = [(outcome.source, outcome.started, outcome.ended) for outcome in outcomes]
    retry_through_outage(lambda: show_run(chosen.name, results, times))
    if not dry_run:
        retry_through_outage(lambda: show_volumes(results, store_settings(loaded)))
    failures += [f"{r.source}: {'; '.join(r.errors)}" for r in results if not r.success]
    if failures:
        return Failed(message=" | ".join(failures), data=carried(results))
    return Completed(message=run_in_words(results), data=results)


def _start(given: Mapping[str, Mapping[str, Any]], where: str, source: str) -> ProcessingResult:
    return run_source(source, given[source], where=where)


def _result(outcome: Outcome[ProcessingResult]) -> ProcessingResult:
    """What a source came to, also where its flow ended in an error of its own."""
    if outcome.result is not None:
        return outcome.result
    error = outcome.error or RuntimeError("ended without a result")
    return ProcessingResult(
        success=False,
        source=outcome.source,
        source_id="",
        errors=[in_one_sentence(error)],
        processing_time_seconds=outcome.ended - outcome.started,
    )
