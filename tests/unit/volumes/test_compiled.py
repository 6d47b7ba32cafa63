"""Compiled loops on disk: two processes that compile at once never get each other's code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

_LOOP = """
from lib.volumes.kernels import compiled

@compiled
def total(values):
    n = 0
    for i in range(values.shape[0]):
        n += values[i]
    return n
"""


def _process(folder: Path) -> ModuleType:
    """The loop as a process of its own sees it: nothing in memory, the same cache on disk."""
    spec = importlib.util.spec_from_file_location("loop_of_a_test", folder / "loop_of_a_test.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_race_for_the_index_never_gives_the_code_of_another_dtype(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop_of_a_test.py").write_text(_LOOP)
    unsigned, signed = np.full(4, 40000, np.uint16), np.full(4, -3, np.int16)
    first, second = _process(tmp_path).total, _process(tmp_path).total
    # both read the index before the other has written it
    for loop in (first, second):
        monkeypatch.setattr(loop._cache._cache_file, "_load_index", dict)
    assert first(signed) == -12
    (index,) = tmp_path.glob("__pycache__/*.nbi")
    of_first = index.read_bytes()
    assert second(unsigned) == 160000
    index.write_bytes(of_first)  # the first process's index is the last that was written
    assert _process(tmp_path).total(signed) == -12
    assert _process(tmp_path).total(unsigned) == 160000
