"""Each fault of a format, on each format that can have it: a named error, never an array."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lib.errors import FormatError, MacroscopeError
from lib.formats.hdf5 import format as hdf5_format
from tests.formats import damage, fuzz
from tests.kit.forked import Forked


@pytest.fixture(autouse=True)
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_format.subprocess, "Popen", Forked)  # type: ignore[attr-defined]


@pytest.mark.parametrize("cell", damage.CELLS, ids=lambda cell: cell.name.replace(" ", "-"))
def test_a_fault_of_a_format_is_named(cell: damage.Cell, tmp_path: Path) -> None:
    seed = damage.damaged(cell)
    with pytest.raises(MacroscopeError) as caught:
        fuzz.read(seed, seed.files, tmp_path)
    assert isinstance(caught.value, FormatError), repr(caught.value)
    assert re.search(cell.said, str(caught.value)), str(caught.value)
    assert not [*tmp_path.iterdir()], "a scratch file was left behind"


def test_the_table_in_the_page_is_what_is_tried() -> None:
    text = damage.PAGE.read_text("utf-8")
    assert damage.page(text) == text, "run python -m tests.formats.damage"


@pytest.mark.parametrize("form", fuzz.names())
def test_every_format_has_a_cell(form: str) -> None:
    assert any(cell.format == form for cell in damage.CELLS)
