"""A few damaged inputs of every format on each run; ``python -m tests.formats.fuzz`` tries many."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import h5py
import pytest

from lib.bytesource.base import MemoryBytes
from lib.errors import FormatError
from lib.formats.hdf5 import format as hdf5_format
from tests.formats import fuzz
from tests.kit import forked
from tests.kit.forked import Forked

INPUTS = int(os.environ.get("FUZZ_INPUTS", "60"))


@pytest.mark.parametrize("form", fuzz.names())
def test_damage_ends_in_a_named_error_or_an_array(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_format.subprocess, "Popen", Forked)  # type: ignore[attr-defined]
    outcome = fuzz.fuzz(form, INPUTS, 0, tmp_path)
    assert not outcome.failures
    assert outcome.inputs == INPUTS
    assert outcome.ends["named error"] > 0


def test_a_library_that_ends_its_process_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next file is looked at by another."""
    monkeypatch.setattr(hdf5_format.subprocess, "Popen", Forked)  # type: ignore[attr-defined]
    monkeypatch.setattr(forked, "_idle", [])
    monkeypatch.setattr(forked, "_ENDS_S", 60.0)  # a busy machine's fork may end late
    source = MemoryBytes(b"no HDF5 file")
    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(FormatError, match="ended with code -9"):
            hdf5_format.datasets_of(source, "")
    for _ in range(2):
        with pytest.raises(FormatError, match="HDF5's library says"):
            hdf5_format.datasets_of(source, "")
    assert len(forked._idle) == 1
