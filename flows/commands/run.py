"""``macroscope run`` and ``macroscope consolidate``: the flows, from the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flows.environment import prepare
from lib.archives.registry import REGISTRY, archive
from lib.config_manager import ConfigManager, LoadedSettings
from lib.errors import ConfigError
from lib.execution import check_sources
from lib.execution import mode as find_mode
from lib.ingest.result import ProcessingResult


def run_command(
    *,
    sources: list[str] | None,
    mode: str | None,
    archives: str | None,
    data_dir: str | None,
    common: Mapping[str, Any],
    level: list[str] | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run the parent flow in this process; returns the exit code."""
    for name, value in (("EM_ARCHIVES", archives), ("EM_DATA_DIR", data_dir)):
        if value is not None:
            os.environ[name] = value
    settings = ConfigManager().load()
    find_mode(mode or settings.settings.execution_mode)
    selected = check_sources(sources or list(REGISTRY), REGISTRY)
    parameters = _parameters(selected, common, level)
    prepare()
    with stand_ins(settings):
        for source in selected:  # a wrong setting is refused before anything starts
            ConfigManager().load().loader(source, parameters.get(source))
        from flows.macroscope import macroscope

        state = macroscope(
            mode=mode,
            sources=list(selected),
            parameters=parameters,
            dry_run=dry_run,
            return_state=True,
        )
    return _report(state, as_json=as_json)


def consolidate_command(*, as_json: bool) -> int:
    """Catalogue the store; returns 1 where a record is invalid."""
    prepare()
    from flows.consolidate import consolidate

    result = consolidate()
    if as_json:
        print(
            json.dumps(
                {
                    "catalog": result.catalog_key,
                    "report": result.report_key,
                    "valid": result.valid,
                    "invalid": result.invalid,
                },
                indent=2,
            )
        )
    else:
        print(f"{result.valid} valid records, {result.invalid} invalid; {result.report_key}")
    return 0 if not result.invalid else 1


@contextmanager
def stand_ins(loaded: LoadedSettings) -> Iterator[None]:
    """Stand-in archives for this run, where they are wanted and nobody serves them yet."""
    if not loaded.needs_samples:
        yield
        return
    from lib.samples.serving import Samples

    with Samples() as running:
        os.environ["EM_SERVICES"] = json.dumps(running.endpoints)
        try:
            yield
        finally:
            del os.environ["EM_SERVICES"]


def _parameters(
    selected: tuple[str, ...], common: Mapping[str, Any], level: list[str] | None
) -> dict[str, dict[str, Any]]:
    """Options of the command line as settings of each selected loader."""
    given = {name: value for name, value in common.items() if value is not None}
    parameters: dict[str, dict[str, Any]] = {source: dict(given) for source in selected}
    if level:
        leveled = [s for s in selected if "scale_level" in archive(s).config_model.model_fields]
        if not leveled:
            raise ConfigError(
                f"--level: {', '.join(selected)} has no scale levels", location="scale_level"
            )
        for source in leveled:
            parameters[source]["scale_level"] = level[0] if len(level) == 1 else level
    return {source: values for source, values in parameters.items() if values}


def _report(state: Any, *, as_json: bool) -> int:
    results = state.result(raise_on_failure=False)
    if not isinstance(results, list):
        if isinstance(results, BaseException):
            raise results
        print(f"macroscope: {state.message}")
        return 1
    if as_json:
        print(json.dumps([result.model_dump(mode="json") for result in results], indent=2))
    else:
        print_summary(results)
    return 0 if all(result.success for result in results) else 1


def print_summary(results: list[ProcessingResult]) -> None:
    """One row for each volume, and each error below."""
    from rich.console import Console
    from rich.table import Table

    table = Table("source", "volume", "shape z,y,x", "voxel nm z,y,x", "bytes", "seconds", "status")
    for result in results:
        for volume in result.volumes:
            table.add_row(
                result.source,
                volume.name,
                " ".join(map(str, volume.shape_zyx)),
                " ".join(f"{v:.6g}" for v in volume.voxel_nm_zyx),
                f"{volume.stored_bytes:,}",
                f"{volume.seconds:.1f}" if volume.made else "-",
                volume.status if volume.made or volume.status != "complete" else "complete (kept)",
            )
    console = Console(width=None if os.isatty(1) else 160)
    console.print(table)
    for result in results:
        for error in result.errors:
            console.print(f"{result.source}: {error}", style="bold", markup=False)
