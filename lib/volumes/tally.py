"""Collecting what is found in the chunks of one shard, from many threads at once."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.volumes import kernels
from lib.volumes.statistics import Statistics, of_chunk, of_value_counts


class Tally:
    """Statistics of one shard. The result does not depend on the order in which chunks come."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._lock = threading.Lock()
        self._counts: NDArray[np.int64] | None = None
        self._parts: dict[int, Statistics] = {}

    def add(self, slot: int, chunk: NDArray[Any]) -> None:
        """Add the voxels of one chunk, without its padding."""
        if self._dtype.kind in "iu" and self._dtype.itemsize <= 2:
            counts = kernels.count_values(chunk)
            with self._lock:
                self._counts = counts if self._counts is None else self._counts + counts
        else:
            part = of_chunk(chunk)
            with self._lock:
                self._parts[slot] = part

    def result(self) -> Statistics:
        if self._counts is not None:
            return of_value_counts(self._counts, self._dtype)
        merged = Statistics()
        for slot in sorted(self._parts):  # float sums depend on their order
            merged = merged.merged(self._parts[slot])
        return merged
