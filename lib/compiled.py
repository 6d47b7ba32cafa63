"""Loops compiled by numba, kept on disk in a way that several processes may share."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, cast

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop when it is first called; it runs without the interpreter's lock.

    numba numbers the files of its cache by an index that it reads and writes without a lock: of
    two processes that compile the same loop for two dtypes at once, both take number 1, and the
    index then leads from one dtype to the machine code of the other, whose result is wrong without
    any error (seen: int16 code for uint16 voxels). Here each file gets a name of its own; what a
    race can still lose is an entry of the index, and that loop is compiled once more.
    """
    try:
        loop: Any = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder can be written: compiled anew in each process
        return cast(Callable[..., Any], numba.njit(nogil=True)(function))
    files = loop._cache._cache_file
    pattern = files._data_name_pattern
    files._data_name = lambda number: pattern.format(number=number).replace(
        ".nbc", f".{uuid.uuid4().hex[:16]}.nbc"
    )
    return cast(Callable[..., Any], loop)
