"""``macroscope run`` and ``macroscope consolidate``: the flows, from the command line."""

from __future__ import annotations

import logging
import os
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any

from rich.measure import Measurement
from rich.table import Table

from flows import prepare
from flows.commands.options import (
    Taken,
    Wanted,
    ended_by_signals,
    exit_code,
    stand_ins,
    take,
    take_options,
)
from flows.commands.server import start_own_server
from flows.credentials import store_settings
from flows.logs import LOGGER, written
from lib.archives.address.grammar import absolute
from lib.concurrency import cancel as stopping
from lib.config.loaders import LoaderConfig
from lib.config.manager import ConfigManager, LoadedSettings
from lib.errors import MacroscopeError
from lib.ingest.context import progress_events
from lib.ingest.datasets import check
from lib.ingest.planning import by_round, configs
from lib.ingest.result import ProcessingResult, ProgressEvent, VolumeResult, subscribe
from lib.present.formatting import lengths_text
from lib.present.output import console, say, say_json
from lib.present.terminal import ProgressView
from lib.storage.keys import require_contents
from lib.storage.open import is_remote, open_store, probe_once

EVERY_S = 0.5
"""How often bytes are looked at; finished shards are told at once."""


@contextmanager
def live_view(*, shown: bool, verbose: bool = False) -> Iterator[None]:
    """Draw every volume's progress on standard error, so that standard output stays for results.

    Parameters
    ----------
    verbose
        What goes into the log is written above it, too.
    """
    if not shown:
        yield
        return
    with ProgressView() as view:

        def listener(event: ProgressEvent) -> None:
            view.update(*astuple(event))

        handler = _Above(view)
        if verbose:
            LOGGER.addHandler(handler)
        try:
            with subscribe(listener, progress_events, every_s=EVERY_S):
                yield
        finally:
            LOGGER.removeHandler(handler)


class _Above(logging.Handler):
    def __init__(self, view: ProgressView) -> None:
        super().__init__(logging.INFO)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.say(record.getMessage())


def run_command(
    wanted: Wanted, *, as_json: bool = False, quiet: bool = False, verbose: bool = False
) -> int:
    """Run the parent flow in this process; returns the exit code."""
    taken = take(wanted, verbose=verbose or None)
    prepare()
    view = live_view(shown=not (as_json or quiet), verbose=verbose)
    try:
        with ended_by_signals(), stand_ins(taken.loaded), view:
            state = run_flow(taken)
    except KeyboardInterrupt:
        say("macroscope: stopped; run again to go on", error=True)
        return exit_code()
    return _report(state, ConfigManager().load(), as_json=as_json, quiet=quiet)


def run_flow(taken: Taken) -> Any:
    """The parent flow's final state, once every source has been looked at for wrong settings.

    Raises `KeyboardInterrupt` where the run was asked to stop: the first was swallowed, see
    `ended_by_signals`.
    """
    loaded, jobs = ConfigManager().load(), taken.jobs
    sources, addresses = taken.wanted.sources, taken.wanted.addresses
    # a wrong setting is refused before anything starts
    check(jobs, loaded)
    rounds = by_round(sources, addresses, taken.parameters, loaded.settings, jobs)
    chosen = configs(loaded, rounds)
    try_destinations(loaded, [config for _, config in chosen])
    wait_for_server = start_own_server()
    from flows.macroscope import macroscope
    from tasks.outage import named_where_away

    wait_for_server()
    with named_where_away():
        state = macroscope(
            mode=taken.wanted.mode,
            sources=sources,
            addresses=[absolute(one) for one in addresses or ()] or None,
            parameters=taken.parameters,
            datasets=[*taken.listed] or None,
            return_state=True,
        )
    if stopping.stop_requested():
        raise KeyboardInterrupt
    return state


def try_destinations(loaded: LoadedSettings, chosen: list[LoaderConfig]) -> None:
    """Try every place that a run will write to, and say what it cannot do.

    Raises
    ------
    DestinationError, AccessDeniedError
        It cannot be written to, or not safely; a key is wrong, a bucket is not there.
    """
    access, settings = store_settings(loaded), loaded.settings
    folders = [str(config.output_dir or settings.data_dir) for config in chosen]
    for uri in dict.fromkeys([*folders, settings.metadata_dir]):
        if is_remote(uri):  # names a missing bucket and a wrong key best
            open_store(uri, access).list_folder()
        for missing in probe_once(uri, access):
            say(f"macroscope: {uri} has {missing}", error=True)


def consolidate_command(*, data_dir: str | None = None, as_json: bool) -> int:
    """Catalogue the store; returns 1 where a record is invalid, or a volume has none.

    Raises
    ------
    NothingThereError
        The store holds neither a record nor a volume; told before a server is started.
    """
    take_options(data_dir=data_dir)
    prepare()
    loaded = ConfigManager().load()
    require_contents(open_store(loaded.settings.data_dir, store_settings(loaded)), "catalogue")
    wait_for_server = start_own_server()
    from flows.consolidate import consolidate

    wait_for_server()
    result = consolidate()
    if as_json:
        say_json(
            {
                "catalog": result.catalog_key,
                "report": result.report_key,
                "valid": result.valid,
                "invalid": result.invalid,
            }
        )
    else:
        say(f"{result.valid} valid records, {result.invalid} invalid; {result.report_key}")
    return 0 if not result.invalid else 1


def _report(state: Any, loaded: LoadedSettings, *, as_json: bool, quiet: bool) -> int:
    """Print what a run came to; returns the exit code."""
    from flows.calling import returned

    results = returned(state)
    if not isinstance(results, list):
        if isinstance(results, BaseException):
            raise results
        say(f"macroscope: {state.message}", error=True)
        return 1
    if as_json:
        say_json([result.model_dump(mode="json") for result in results])
    elif quiet:
        for result in results:
            for error in result.errors:
                say(f"{result.label}: {error}", error=True)
    else:
        print_summary(results)
        print_places(results, loaded)
    if state.is_completed() and all(result.success for result in results):
        return 0
    if all(result.success for result in results):  # what failed is no source: the catalogue
        say(f"macroscope: {state.message}", error=True)
    return 1


_MOST_LOGS = 6  # as many as there are sources
_COLUMNS = ("source", "volume", "shape z,y,x", "voxel nm z,y,x", "bytes", "seconds", "status")


def print_summary(results: list[ProcessingResult]) -> None:
    """A row for each volume, or lines where a row would not fit, and each error below."""
    out, table = console(), Table(*_COLUMNS)
    volumes = [(result.label, volume) for result in results for volume in result.volumes]
    rows = [_row(source, volume) for source, volume in volumes]
    for row in rows:
        table.add_row(*row)
    if Measurement.get(out, out.options.update(width=10_000), table).maximum <= out.width:
        out.print(table)
    else:
        for source, name, shape, voxel, size, seconds, status in rows:
            say(f"{source}: {name}")
            say(f"    {status}: {shape} voxels of {voxel} nm, {size} bytes, {seconds} s")
    asked: Counter[str] = Counter()
    for _, volume in volumes:
        asked.update(volume.store_requests)
    if asked:
        counted = ", ".join(f"{kind} {count}" for kind, count in sorted(asked.items()))
        say(f"requests to the store: {counted}")
    for result in results:
        for error in result.errors:
            out.print(f"{result.label}: {error}", style="bold")


def print_places(results: list[ProcessingResult], loaded: LoadedSettings) -> None:
    """Where data, report and logs are, and the command that shows the volumes."""
    records = [path for result in results for path in result.metadata_paths]
    for folder in sorted({path.rsplit("/", 2)[0] for path in records}):
        say(f"data    {_absolute(folder)}")
    if records and (report := newest_report(loaded)):
        say(f"report  {report}")
    for path in written if len(written) <= _MOST_LOGS else ():
        say(f"log     {_absolute(path)}")
    if len(written) > _MOST_LOGS:
        say(f"log     {_absolute(os.path.dirname(written[0]))} ({len(written)} new files)")
    if records:
        given = loaded.origins.get("data_dir", "").startswith("environment")
        where = f" --data-dir {shlex.quote(loaded.settings.data_dir)}" if given else ""
        say(f"look    macroscope view{where}")


def newest_report(loaded: LoadedSettings) -> str | None:
    """Where the newest report of the store is; None where there is none, or nobody can say."""
    try:
        store = open_store(loaded.settings.metadata_dir, store_settings(loaded))
        names = [one.key for one in store.list_folder().objects]
    except MacroscopeError:
        return None
    reports = [name for name in names if name.startswith("report_") and name.endswith(".html")]
    return _absolute(f"{store.uri}/{max(reports)}") if reports else None


def _row(source: str, volume: VolumeResult) -> tuple[str, ...]:
    return (
        source,
        volume.name,
        " ".join(map(str, volume.shape_zyx)),
        lengths_text(volume.voxel_nm_zyx, volume.assumed_axes, " "),
        f"{volume.stored_bytes:,}",
        f"{volume.seconds:.1f}" if volume.made else "-",
        _status(volume),
    )


def _status(volume: VolumeResult) -> str:
    if volume.repaired_files:
        return f"{volume.status} (repaired: {volume.repaired_files} files)"
    return volume.status if volume.made or volume.status != "complete" else "up to date"


def _absolute(place: str) -> str:
    return place if is_remote(place) else os.path.abspath(place)
