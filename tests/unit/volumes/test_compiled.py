"""Compiled loops on disk: two processes that compile at once never get each other's code."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
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


_LOADED = """
import sys
import numpy as np
from lib.volumes import kernels

chunk = np.arange(64, dtype=np.{dtype}).reshape(4, 4, 4)
half = np.zeros((2, 2, 2), chunk.dtype)
kernels.pool(chunk, (2, 2, 2), half, labels=None)
print(int(half.sum()), int(kernels.count_values(chunk).sum()), "numba.np.linalg" in sys.modules)
kernels.run_starts(np.array([1, 1, 2], np.{other}))  # compiled by nobody
print("numba.np.linalg" in sys.modules, "scipy.linalg" in sys.modules)
"""


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_loops_that_are_kept_are_loaded_without_what_numba_compiles_with(
    tmp_path: Path, dtype: str
) -> None:
    for known, other in (("True", "complex64"), ("False", "complex128")):
        code = _LOADED.format(dtype=dtype, other=other)
        printed = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert printed.split() == ["256", "64", known, "True", "False"], known


_KEPT_NOWHERE = """
import sys
import numpy as np
from lib.volumes.kernels import compiled

exec("def total(values):\\n    return values.sum()")  # of no file: nothing can be kept of it
print(int(compiled(total)(np.arange(5))), "scipy.linalg" in sys.modules)
"""


def test_loops_that_are_kept_nowhere_are_compiled_without_linear_algebra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KEPT_NOWHERE], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["10", "False"]
