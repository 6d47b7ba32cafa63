"""A few damaged inputs of every format on each run; ``python -m tests.formats.fuzz`` tries many."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lib.formats.hdf5 import structure_client
from tests.formats import fuzz
from tests.kit.forked import Forked

INPUTS = int(os.environ.get("FUZZ_INPUTS", "60"))


@pytest.mark.parametrize("form", fuzz.names())
def test_damage_ends_in_a_named_error_or_an_array(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structure_client.subprocess, "Popen", Forked)  # type: ignore[attr-defined]
    count = INPUTS // 4 if form == "hdf5" else INPUTS  # each of which takes three processes
    outcome = fuzz.fuzz(form, count, 0, tmp_path)
    assert not outcome.failures
    assert outcome.inputs == count
    assert outcome.ends["named error"] > 0
