"""Minimum, maximum, mean and histogram, exact, mergeable, and the same however a volume was cut.

Histogram bins are dyadic: their width is a power of two and their edges are its multiples, so
histograms of different shards merge exactly by coarsening to the wider one.
"""

from __future__ import annotations

import math
import sys
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.volumes import kernels

MAX_BINS = 1024


@dataclass(frozen=True, slots=True)
class Histogram:
    """``counts[i]`` values lie from ``(first + i) * 2**exponent`` up to the next multiple."""

    exponent: int
    first: int
    counts: tuple[int, ...]

    @property
    def width(self) -> float:
        return math.ldexp(1.0, self.exponent)

    @property
    def start(self) -> float:
        """Where the first bin begins; of the largest floats that edge is none, and is the least."""
        start = float(self.first) * self.width
        return start if math.isfinite(start) else math.copysign(sys.float_info.max, start)

    @property
    def exact_start(self) -> int | float:
        """The same, as an integer where it is one: floats round those above 2^53."""
        return self.first << self.exponent if self.exponent >= 0 else self.start

    def coarsened(self, exponent: int) -> Histogram:
        """The same histogram with bins of ``2**exponent``."""
        by = exponent - self.exponent
        if by == 0 or not self.counts:
            return Histogram(exponent, self.first >> by, self.counts)
        first = self.first >> by
        # bins of the wider width begin where the first of them does, so its rest is all that counts
        rest = self.first - (first << by)
        starts = (
            rest + np.arange(len(self.counts), dtype=object if rest >> 62 else np.int64)
        ) >> by
        counts = np.zeros(int(starts[-1]) + 1, dtype=np.int64)
        np.add.at(counts, starts.astype(np.int64), np.asarray(self.counts, dtype=np.int64))
        return Histogram(exponent, first, tuple(counts.tolist()))

    def merged(self, other: Histogram) -> Histogram:
        if not self.counts or not other.counts:
            return self if self.counts else other
        exponent = max(self.exponent, other.exponent)
        while True:
            a, b = self.coarsened(exponent), other.coarsened(exponent)
            first = min(a.first, b.first)
            stop = max(a.first + len(a.counts), b.first + len(b.counts))
            if stop - first <= MAX_BINS:
                break
            exponent += 1
        counts = np.zeros(stop - first, dtype=np.int64)
        for part in (a, b):
            counts[part.first - first : part.first - first + len(part.counts)] += part.counts
        return Histogram(exponent, first, tuple(counts.tolist()))


NO_HISTOGRAM = Histogram(0, 0, ())


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of the finite voxels of a chunk, a shard or a volume.

    ``total`` is an exact integer for integer dtypes and a float64 sum for floats; ``voxels`` counts
    all voxels, ``finite`` those that are neither NaN nor infinite.
    """

    voxels: int = 0
    finite: int = 0
    minimum: int | float | None = None
    maximum: int | float | None = None
    total: int | float = 0
    histogram: Histogram = NO_HISTOGRAM

    @property
    def mean(self) -> float | None:
        """None where nothing is finite, the sum of finite voxels included."""
        mean = self.total / self.finite if self.finite else math.nan
        return mean if math.isfinite(mean) else None

    def merged(self, other: Statistics) -> Statistics:
        lows = [s.minimum for s in (self, other) if s.minimum is not None]
        highs = [s.maximum for s in (self, other) if s.maximum is not None]
        return Statistics(
            self.voxels + other.voxels,
            self.finite + other.finite,
            min(lows, default=None),
            max(highs, default=None),
            self.total + other.total,
            self.histogram.merged(other.histogram),
        )

    def percentile(self, percent: float) -> float | None:
        """A value below which `percent` of the voxels lie, to within one bin of the histogram."""
        if not self.finite or self.minimum is None or self.maximum is None:
            return None
        counts = np.asarray(self.histogram.counts, dtype=np.float64)
        below = np.concatenate(([0.0], np.cumsum(counts)))
        with np.errstate(over="ignore"):
            edges = float(self.histogram.first) + np.arange(counts.size + 1.0)
            edges = np.clip(edges * self.histogram.width, -sys.float_info.max, sys.float_info.max)
        value = float(np.interp(percent / 100 * below[-1], below, edges))
        return min(max(value, float(self.minimum)), float(self.maximum))

    def to_json(self) -> dict[str, Any]:
        return {
            "voxels": self.voxels,
            "finite": self.finite,
            "minimum": self.minimum,
            "maximum": self.maximum,
            # JSON has no infinity, which is what a sum of huge floats may be
            "total": self.total if math.isfinite(self.total) else str(self.total),
            "histogram": {
                "exponent": self.histogram.exponent,
                "first": self.histogram.first,
                "counts": list(self.histogram.counts),
            },
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Statistics:
        bins = data["histogram"]
        return cls(
            data["voxels"],
            data["finite"],
            data["minimum"],
            data["maximum"],
            float(data["total"]) if isinstance(data["total"], str) else data["total"],
            Histogram(bins["exponent"], bins["first"], tuple(bins["counts"])),
        )


def of_value_counts(counts: NDArray[np.int64], dtype: np.dtype[Any]) -> Statistics:
    """From how often each value of an 8- or 16-bit integer dtype occurs, from its minimum up."""
    lowest = int(np.iinfo(dtype).min)
    values = np.flatnonzero(counts)
    if not values.size:
        return Statistics()
    low, high = int(values[0]), int(values[-1])
    present = counts[low : high + 1]
    voxels = int(present.sum())
    total = int(present @ np.arange(low, high + 1, dtype=np.int64)) + lowest * voxels
    exact = Histogram(0, low + lowest, tuple(present.tolist()))
    return Statistics(
        voxels, voxels, low + lowest, high + lowest, total, exact.coarsened(_fitting(exact))
    )


def of_chunk(chunk: NDArray[Any]) -> Statistics:
    """Of one chunk of a wide dtype (32- and 64-bit integers, floats)."""
    flat = np.ascontiguousarray(chunk).reshape(-1)
    if not flat.size:
        return Statistics()
    return _of_integers(flat) if flat.dtype.kind in "iu" else _of_floats(flat)


def _of_integers(flat: NDArray[Any]) -> Statistics:
    low, high = int(flat.min()), int(flat.max())
    exponent = 0
    while (high >> exponent) - (low >> exponent) >= MAX_BINS:
        exponent += 1
    first, bins = low >> exponent, (high >> exponent) - (low >> exponent) + 1
    own = flat.dtype.type  # a float64 would round what lies above 2^53
    counts = kernels.count_shifted(flat, own(exponent), own(first), bins)
    histogram = Histogram(exponent, first, tuple(counts.tolist()))
    return Statistics(int(flat.size), int(flat.size), low, high, _sum(flat), histogram)


def _sum(flat: NDArray[Any]) -> int:
    """Of integers, exact: 64-bit ones in two halves, because their sum needs more than 64 bits."""
    if flat.dtype.itemsize < 8:
        return int(flat.sum(dtype=np.int64))
    half = flat.dtype.type(32)
    upper, lower = flat >> half, flat & flat.dtype.type(2**32 - 1)
    return (int(upper.sum()) << 32) + int(lower.sum())


def _of_floats(flat: NDArray[Any]) -> Statistics:
    low, high, total, finite = kernels.extent_and_sum(flat)
    if not finite:
        return Statistics(voxels=int(flat.size))
    low, high, total, finite = float(low), float(high), float(total), int(finite)
    exponent = _exponent(low, high)
    width = math.ldexp(1.0, exponent)
    first = math.floor(low / width)
    bins = math.floor(high / width) - first + 1
    counts = kernels.count_bins(flat, width, first, bins)
    histogram = Histogram(exponent, first, tuple(counts.tolist()))
    return Statistics(int(flat.size), finite, low, high, total, histogram)


def _exponent(low: float, high: float) -> int:
    """The finest bin width that needs at most `MAX_BINS` bins."""
    # halves, because the spread of two finite floats may be none
    spread = max(high / 2 - low / 2, abs(high) * 2.0**-40, 2.0**-900)
    exponent = math.frexp(spread)[1] + 1 - MAX_BINS.bit_length()
    while (
        math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= MAX_BINS
    ):
        exponent += 1
    return exponent


def _fitting(histogram: Histogram) -> int:
    """The finest exponent at which a histogram has at most `MAX_BINS` bins."""
    exponent, low = histogram.exponent, histogram.first
    high = low + len(histogram.counts) - 1
    while (high >> exponent) - (low >> exponent) >= MAX_BINS:
        exponent += 1
    return exponent


class StatisticsAccumulator:
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
