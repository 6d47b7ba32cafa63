"""``python -m tests.chaos --kills 1000``: the long run, whose figures stand in the docs."""

from __future__ import annotations

import argparse
import sys

from flows.commands.interrupts import ended_by_signals
from tests.chaos.harness import Report, campaign


def main() -> int:
    """Run a campaign, print its figures; 1 where anything was lost or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dest", choices=("folder", "s3"), default="folder")
    parser.add_argument("--json", action="store_true", help="figures as JSON only")
    given = parser.parse_args()
    with ended_by_signals(), campaign(given.dest, given.seed) as running:
        report = running.run(given.kills, lambda text: print(text, file=sys.stderr, flush=True))
    print(report.as_json() if given.json else table(report))
    return 0 if report.clean else 1


def table(report: Report) -> str:
    """The figures as Markdown, then whatever was wrong."""
    rows = {
        "destination": report.destination,
        "seed": report.seed,
        "kills (SIGKILL)": report.kills,
        "by format": ", ".join(f"{k} {n}" for k, n in report.kills_by_format.items()),
        "rounds of all five sources": report.rounds,
        "units of work made": report.units_made,
        "units redone": report.units_redone,
        "most redone after one kill": report.most_redone_after_one_kill,
        "units in flight, at most": report.units_in_flight_allowed,
        "finished units redone": report.finished_units_redone,
        "raw files fetched twice": report.files_fetched_twice,
        "half-written seen, or `complete` beside incomplete": len(report.violations),
        "differences from the undisturbed run": len(report.differences),
        "errors": len(report.errors),
        "seconds": report.seconds,
    }
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join([*lines, *report.wrong[:100]])


if __name__ == "__main__":
    sys.exit(main())
