"""Every fault on every source it can hit: all voxels right, or a named error with nothing lost.

``python -m tests.faults.matrix`` runs the same cells and prints them as a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from emulators.serving import Samples
from tests.faults.cells import Cell
from tests.faults.judge import Judge
from tests.faults.matrix import all_cells
from tests.faults.situations import NotHere


@pytest.fixture(scope="module")
def judge(samples: Samples) -> Iterator[Judge]:
    one = Judge(samples)
    yield one
    one.close()


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=cell.name, marks=[pytest.mark.slow] if cell.slow else [])
        for cell in all_cells()
    ],
)
def test_a_fault_ends_in_right_voxels_or_in_a_named_error_with_nothing_lost(
    cell: Cell, judge: Judge, tmp_path: Path
) -> None:
    try:
        judge.prove(cell, tmp_path)
    except NotHere as error:
        pytest.skip(str(error))


def test_no_two_cells_have_one_name() -> None:
    names = [cell.name for cell in all_cells()]
    assert len(set(names)) == len(names)
