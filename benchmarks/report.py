"""Medians, ratios and goals, as a table and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Run
from benchmarks.plan import Case

Runs = Mapping[str, Sequence[Run]]


def median_of(runs: Sequence[Run], metric: str = "seconds") -> float:
    """The median of one of the figures of a run."""
    return float(statistics.median(getattr(run, metric) for run in runs))


def print_case(case: Case, runs: Runs, console: Console) -> None:
    """One table a case, and one line a goal."""
    table = Table(title=f"{case.name}: {case.title}", title_justify="left")
    for heading in ("variant", "median s", "min-max", "CPU s", "peak MB", "imports s", "ratio"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    first = median_of(next(iter(runs.values())))
    for name, found in runs.items():
        seconds = sorted(run.seconds for run in found)
        imports = [run.import_s for run in found if run.import_s is not None]
        table.add_row(
            name,
            f"{median_of(found):.2f}",
            f"{seconds[0]:.2f}-{seconds[-1]:.2f}",
            f"{statistics.median(run.cpu_s for run in found):.2f}",
            f"{statistics.median(run.peak_mb for run in found):.0f}",
            f"{statistics.median(imports):.2f}" if imports else "",
            f"{first / median_of(found):.2f}",
        )
    console.print(table)
    for goal in goals(case, runs):
        verdict = "met" if goal["met"] else "MISSED"
        console.print(
            f"  {goal['one']} / {goal['other']} = {goal['ratio']:.2f} "
            f"(to reach {goal['limit']:.2f}): {verdict}"
        )


def goals(case: Case, runs: Runs) -> list[dict[str, Any]]:
    """The ratios that are wanted, reached or not; those of absent variants are left out."""
    return [
        {
            "one": goal.one,
            "other": goal.other,
            "metric": goal.metric,
            "ratio": (
                ratio := median_of(runs[goal.one], goal.metric)
                / median_of(runs[goal.other], goal.metric)
            ),
            "limit": goal.limit,
            "met": ratio <= goal.limit,
        }
        for goal in case.goals
        if goal.one in runs and goal.other in runs
    ]


def as_json(case: Case, runs: Runs, megabytes: float) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "case": case.name,
        "title": case.title,
        "megabytes": megabytes,
        "runs": {name: [asdict(run) for run in found] for name, found in runs.items()},
        "goals": goals(case, runs),
    }


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "system": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**6,
        "python": platform.python_version(),
    }
