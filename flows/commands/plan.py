"""``macroscope plan``: what a run would cost, without running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from flows.commands.options import Wanted, ended_by_signals, exit_code, stand_ins, take
from flows.credentials import store_settings
from lib.config.manager import ConfigManager, LoadedSettings
from lib.ingest.costs import VolumeCost, available_memory, row_of, warnings_for
from lib.ingest.datasets import Job, check
from lib.ingest.planning import Planned, by_round, plan_all
from lib.present.formatting import duration_text, size_text
from lib.present.output import console, say, say_json
from lib.storage.open import open_store


def plan_command(wanted: Wanted, *, as_json: bool) -> int:
    """Print the cost of every volume and their total; metadata is all that is downloaded.

    Returns
    -------
    int
        1 where a source cannot be planned; the others are shown all the same.
    """
    taken = take(wanted)
    jobs = taken.jobs
    try:
        with ended_by_signals(), stand_ins(taken.loaded):
            loaded = ConfigManager().load()  # once more: stand-ins may have been started since
            planned, warnings, total = plan_jobs(
                loaded, wanted.sources, wanted.addresses, taken.parameters, jobs
            )
    except KeyboardInterrupt:
        return exit_code()
    costs = [cost for one in planned for cost in one.costs]
    of_jobs = planned[len(planned) - len(jobs) :]  # they are planned last, in their order
    labels = [one.source for one in planned[: len(planned) - len(jobs)]]
    labels += [job.label for job in jobs]
    errors = [
        (label, str(error))
        for label, one in zip(labels, planned, strict=True)
        for error in one.errors
    ]
    groups = _by_group(jobs, of_jobs)
    if as_json:
        rows = [cost.model_dump(mode="json") for cost in costs]
        told = [{"source": source, "error": error} for source, error in errors]
        document = {"volumes": rows, "total": total, "warnings": warnings, "errors": told}
        say_json({**document, **({"groups": groups} if groups else {})})
    else:
        if costs or not errors:  # sums of nothing say nothing beside an error
            _print(costs, total, warnings, brief=bool(jobs))
        for group, sums in groups.items():
            say(f"{group}: {_summed(sums)}")
        for source, error in errors:
            say(f"{source}: {error}", error=True)
    return 1 if errors else 0


def plan_jobs(
    loaded: LoadedSettings,
    sources: Sequence[str] | None,
    addresses: Sequence[str] | None,
    parameters: Mapping[str, Mapping[str, Any]],
    jobs: Sequence[Job],
) -> tuple[list[Planned], list[str], dict[str, Any]]:
    """Every source's plans, what will not do at the destination, and the sums."""
    check(jobs, loaded)
    access = store_settings(loaded)
    rounds = by_round(sources, addresses, parameters, loaded.settings, jobs)
    planned = plan_all(loaded, rounds, access)
    costs = [cost for one in planned for cost in one.costs]
    store = open_store(loaded.settings.data_dir, access)
    warnings = warnings_for(costs, store, available_memory())
    requests = sum(one.requests for one in planned)
    return planned, warnings, totals(costs, store.free_bytes()) | {"planning_requests": requests}


def _by_group(jobs: Sequence[Job], planned: Sequence[Planned]) -> dict[str, dict[str, Any]]:
    """The sums of each group of datasets, where there are groups."""
    found: dict[str, list[VolumeCost]] = {}
    for job, one in zip(jobs, planned, strict=True):
        found.setdefault(job.group or "without a group", []).extend(one.costs)
    if not any(job.group for job in jobs):
        return {}
    return {group: totals(costs, None) for group, costs in sorted(found.items())}


def totals(costs: list[VolumeCost], free_bytes: int | None) -> dict[str, Any]:
    """The costs of all volumes together, under the names that `VolumeCost` has for them."""
    return {
        "volumes": len(costs),
        "download_requests": sum(cost.download_requests for cost in costs),
        "download_bytes": sum(cost.download_bytes for cost in costs),
        "write_bytes": sum(cost.write_bytes for cost in costs),
        "disk_bytes": sum(cost.disk_bytes for cost in costs),
        "free_bytes": free_bytes,
        "peak_memory_bytes": max((cost.peak_memory_bytes for cost in costs), default=0),
        "expected_seconds": round(sum(cost.expected_seconds for cost in costs), 1),
    }


def _print(
    costs: list[VolumeCost], total: dict[str, Any], warnings: list[str], *, brief: bool
) -> None:
    """A table for each volume, or a line where they are many; the sums."""
    out = console()
    for cost in costs if brief else ():
        shape = " × ".join(map(str, cost.shape_zyx))
        say(f"{cost.source}: {cost.name}  {shape}, {_summed(cost.model_dump())}")
    for cost in () if brief else costs:
        table = Table(title=f"{cost.source}: {cost.name}", show_header=False, title_justify="left")
        for name, value in row_of(cost).items():
            table.add_row(name, str(value))
        for note in cost.notes:
            table.add_row("note", note)
        out.print(table)
    requests = total["download_requests"] + total["planning_requests"]
    free = "" if total["free_bytes"] is None else f" of {total['free_bytes'] / 1e9:.1f} GB free"
    out.print(
        f"volumes: {total['volumes']}, requests: {requests}, {total['planning_requests']} of them "
        "to plan, "
        f"{total['download_bytes'] / 1e6:.1f} MB to download, "
        f"{total['disk_bytes'] / 1e6:.1f} MB of disk{free}, "
        f"about {total['expected_seconds']:g} s"
    )
    for warning in warnings:
        out.print(f"warning: {warning}", style="bold")


def _summed(cost: Mapping[str, Any]) -> str:
    many = f"{cost['volumes']} volumes, " if "volumes" in cost else ""
    return (
        f"{many}{size_text(cost['download_bytes'])} to download, {size_text(cost['disk_bytes'])} "
        f"of disk, about {duration_text(cost['expected_seconds'])}"
    )
