"""``macroscope plan``: what a run would cost, without running it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from flows.commands.run import source_parameters, stand_ins, take_options
from flows.credentials import store_settings
from lib.config.manager import ConfigManager
from lib.ingest.costs import Cost, available_memory, cost_of, row_of, warnings_for
from lib.ingest.selection import by_round
from lib.ingest.stages import plan_source
from lib.present.output import console, say_json
from lib.storage.open import open_store


def plan_command(
    *,
    addresses: list[str] | None,
    sources: list[str] | None,
    archives: str | None,
    data_dir: str | None,
    common: Mapping[str, Any],
    level: list[str] | None,
    as_json: bool,
    about: Mapping[str, Any] | None = None,
) -> int:
    """Print the cost of every volume and their total; metadata is all that is downloaded."""
    take_options(archives=archives, data_dir=data_dir)
    settings = ConfigManager().load().settings
    rounds = by_round(sources, addresses, {}, settings)
    selected = tuple(dict.fromkeys(source for given in rounds for source in given))
    parameters = source_parameters(selected, common, level, about)
    costs: list[Cost] = []
    with stand_ins(ConfigManager().load()), tempfile.TemporaryDirectory() as scratch:
        loaded = ConfigManager().load()
        access = store_settings(loaded)
        given = by_round(sources, addresses, parameters, loaded.settings)
        for source, own in (pair for one in given for pair in one.items()):
            config = loaded.loader(source, own).model_copy(update={"dry_run": True})
            place = open_store(str(config.output_dir or loaded.settings.data_dir), access)
            planned = plan_source(source, config, Path(scratch), place)
            ratio = loaded.settings.assumed_compression
            costs += [cost_of(plan, config, ratio) for plan in planned.plans]
        store = open_store(loaded.settings.data_dir, access)
        warnings = warnings_for(costs, store, available_memory())
        free = store.free_bytes()
    total = {
        "volumes": len(costs),
        "download_requests": sum(cost.download_requests for cost in costs),
        "download_bytes": sum(cost.download_bytes for cost in costs),
        "write_bytes": sum(cost.write_bytes for cost in costs),
        "disk_bytes": sum(cost.disk_bytes for cost in costs),
        "free_bytes": free,
        "peak_memory_bytes": max((cost.peak_memory_bytes for cost in costs), default=0),
        "expected_seconds": round(sum(cost.expected_seconds for cost in costs), 1),
    }
    if as_json:
        rows = [cost.model_dump(mode="json") for cost in costs]
        say_json({"volumes": rows, "total": total, "warnings": warnings})
        return 0
    _print(costs, total, warnings)
    return 0


def _print(costs: list[Cost], total: dict[str, Any], warnings: list[str]) -> None:
    out = console()
    for cost in costs:
        table = Table(title=f"{cost.source}: {cost.name}", show_header=False, title_justify="left")
        for name, value in row_of(cost).items():
            table.add_row(name, str(value))
        for note in cost.notes:
            table.add_row("note", note)
        out.print(table)
    free = "" if total["free_bytes"] is None else f" of {total['free_bytes'] / 1e9:.1f} GB free"
    out.print(
        f"volumes: {total['volumes']}, requests: {total['download_requests']}, "
        f"{total['download_bytes'] / 1e6:.1f} MB to download, "
        f"{total['disk_bytes'] / 1e6:.1f} MB of disk{free}, "
        f"about {total['expected_seconds']:g} s"
    )
    for warning in warnings:
        out.print(f"warning: {warning}", style="bold")
