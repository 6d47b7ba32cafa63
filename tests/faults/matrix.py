"""``python -m tests.faults.matrix``: run the fault matrix and print it.

Exit code 1 where a cell ended in a third way.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from emulators.serving import Samples
from tests.faults.cells import Cell, switch_cells
from tests.faults.judge import Judge
from tests.faults.places import place_cells
from tests.faults.situations import NotHere

BEGIN, END = "<!-- fault matrix: begin -->", "<!-- fault matrix: end -->"
# What one lane's code does for others too is tried every day on these, in the long suite on all.
_EVERYDAY_LANES = {
    "EPFL", "EMPIAR API", "EMPIAR FTP", "FlyEM DVID", "OpenOrganelle S3", "to a folder",
    "to a bucket",
}  # fmt: skip
# Answers to these are the same for every lane of one client: one of HTTP and one of S3 is enough.
_COMMON_LANES = {"EPFL", "EMPIAR FTP", "OpenOrganelle S3", "to a folder", "to a bucket"}
_COMMON = re.compile(
    "429|500 twice|reset|once$|^403$|Retry-After|no route|refused port|DNS|TLS|EDQUOT|ENOSPC after"
    "|EIO after [05]|of 160k|redirect|for ever"
)
_LONG = re.compile("no route|EDQUOT|ENOSPC after 5|EIO after 5|of 160k|reset twice|403 on the root")


@dataclass(frozen=True)
class Result:
    """One cell of the table; ``seen`` is ``exact``, an error's name, or what went wrong."""

    cell: Cell
    seen: str
    held: bool


def all_cells() -> list[Cell]:
    """The whole matrix; cells that repeat another source's code path are marked slow."""
    cells = [*switch_cells(), *place_cells()]
    return [replace(cell, slow=cell.slow or _can_wait(cell)) for cell in cells]


def _can_wait(cell: Cell) -> bool:
    lanes = _COMMON_LANES if _COMMON.search(cell.fault) else _EVERYDAY_LANES
    special = cell.fault not in _shared_faults()
    return _LONG.search(cell.fault) is not None or not (special or cell.lane.name in lanes)


@cache
def _shared_faults() -> frozenset[str]:
    """Faults that hit several lanes."""
    count = Counter(cell.fault for cell in (*switch_cells(), *place_cells()))
    return frozenset(fault for fault, lanes in count.items() if lanes > 1)


def run(samples: Samples, wanted: str = "", *, everyday: bool = False) -> list[Result]:
    """Prove every cell whose name fits, one after another."""
    results = []
    judge = Judge(samples)
    try:
        for cell in all_cells():
            if not re.search(wanted, cell.name) or (everyday and cell.slow):
                continue
            with tempfile.TemporaryDirectory(prefix="fault-cell-") as folder:
                results.append(_result(judge, cell, Path(folder)))
            _progress(results)
    finally:
        judge.close()
    return results


def table(results: list[Result]) -> str:
    """Markdown: one row for each fault, with the sources by how they ended."""
    rows: dict[str, dict[str, list[str]]] = {}
    for result in results:
        ends = rows.setdefault(result.cell.fault, {})
        ends.setdefault(result.seen, []).append(result.cell.lane.name)
    lines = ["| fault | every voxel right | named error, nothing lost |", "|---|---|---|"]
    for fault, ends in rows.items():
        exact = ", ".join(ends.get("exact", ())) or "-"
        named = "; ".join(f"`{end}`: {', '.join(s)}" for end, s in ends.items() if end != "exact")
        lines.append(f"| {fault} | {exact} | {named or '-'} |")
    return "\n".join(lines)


def summary(results: list[Result], seconds: float) -> str:
    """One sentence of figures."""
    exact = sum(result.seen == "exact" for result in results)
    third = sum(not result.held for result in results)
    absent = sum(result.seen.startswith("not possible") for result in results)
    named = len(results) - exact - third - absent
    return (
        f"{len(results)} cells in {seconds:.0f} s: {exact} ended with every voxel right, {named} "
        f"with a named error and nothing lost, {third} in a third way, {absent} not possible here."
    )


def _result(judge: Judge, cell: Cell, folder: Path) -> Result:
    try:
        return Result(cell, judge.prove(cell, folder).ended, True)
    except NotHere as error:
        return Result(cell, f"not possible here: {error}", True)
    except Exception as error:  # whatever it is, it is the third way
        return Result(cell, f"THIRD WAY: {type(error).__name__}: {error}"[:500], False)


def _progress(results: list[Result]) -> None:
    last = results[-1]
    if not last.held:
        print(f"{last.cell.name}: {last.seen}", file=sys.stderr)


def _write(path: Path, text: str) -> None:
    """Replace what stands between the two marks of a document."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="regular expression on 'source: fault'")
    parser.add_argument("--everyday", action="store_true", help="leave out the slow cells")
    parser.add_argument("--write", type=Path, help="document to put the table into")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    with Samples() as samples:
        results = run(samples, given.only, everyday=given.everyday)
    text = f"{summary(results, time.monotonic() - began)}\n\n{table(results)}"
    print(text)
    if given.write:
        _write(given.write, text)
    return 0 if all(result.held for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
