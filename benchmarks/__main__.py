"""``python -m benchmarks``: build, run interleaved, print and write what was found."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from pathlib import Path

from rich.console import Console

from benchmarks import cases_files, cases_local, cases_s3, report
from benchmarks.check import check_output
from benchmarks.measure import Run
from benchmarks.plan import Case, Setting, Variant
from benchmarks.servers import Servers
from benchmarks.warm import WarmMemory

HERE = Path(__file__).parent
_WORTH_WARMING = 100  # MB; smaller volumes fit into what is warm anyhow
CASES = {case.name: case for case in (*cases_s3.CASES, *cases_local.CASES, *cases_files.CASES)}


def run_case(
    case: Case, setting: Setting, rounds: int, console: Console, chosen: list[str] | None = None
) -> dict[str, list[Run]]:
    """Every variant (or those chosen) once a round, in another order each time."""
    case.prepare(setting)
    variants: list[Variant] = []
    for variant in case.variants:
        if chosen and variant.name not in chosen:
            continue
        if variant.program and not shutil.which(variant.program):
            console.print(f"{case.name}: {variant.program} is not installed; left out")
        else:
            variants.append(variant)
    runs: dict[str, list[Run]] = {variant.name: [] for variant in variants}
    order, warm = random.Random(case.name), WarmMemory(setting.cache / "hole")
    for _ in range(rounds):
        for variant in order.sample(variants, len(variants)):
            output = setting.cache / "output"
            shutil.rmtree(output, ignore_errors=True)
            output.mkdir(parents=True)
            if setting.megabytes >= _WORTH_WARMING:
                warm.fill()
            runs[variant.name].append(variant.run(setting, output))
            check_output(output, case.origin_zyx)
            shutil.rmtree(output)
    return runs


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen cases; 0 however the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), default=None)
    parser.add_argument("--variants", nargs="+", default=None, help="only these contenders")
    parser.add_argument("--size", type=float, default=1000.0, help="MB of each source")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=HERE / "cache")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "latest.json")
    parser.add_argument("--full", action="store_true", help="also the cases that take hours")
    chosen = parser.parse_args(arguments)
    names = chosen.cases or [case.name for case in CASES.values() if chosen.full or not case.full]
    console = Console(width=110)
    found = []
    cache = chosen.cache.resolve()
    with Servers(cache) as servers:
        setting = Setting(servers, cache, chosen.size)
        for name in names:
            case = CASES[name]
            try:
                runs = run_case(case, setting, chosen.rounds, console, chosen.variants)
            except RuntimeError as error:
                console.print(f"{name}: failed: {error}", markup=False)
                found.append({"case": name, "failed": str(error)})
                continue
            report.print_case(case, runs, console)
            found.append(report.as_json(case, runs, chosen.size))
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": report.machine(), "cases": found}
    chosen.json.write_text(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
