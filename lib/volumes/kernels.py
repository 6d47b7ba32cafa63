"""The loops over voxels, compiled and without the GIL.

Everything here is exact and deterministic: integers are averaged with ties rounded up, and a
result never depends on how a volume was cut into chunks, because chunk edges are even.
"""

from __future__ import annotations

import gc
import sys
import threading
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numba
import numpy as np
from numba.core.runtime.nrt import rtsys
from numpy.typing import NDArray

from lib.geometry import ShapeZYX, ceil_divide
from lib.plan import LabelPooling


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
        loop = numba.njit(nogil=True)(function)
        loop._cache.load_overload = _nothing_kept
        return cast(Callable[..., Any], loop)
    cache = loop._cache
    files = cache._cache_file
    pattern = files._data_name_pattern
    files._data_name = lambda number: pattern.format(number=number).replace(
        ".nbc", f".{uuid.uuid4().hex[:16]}.nbc"
    )
    cache.load_overload = partial(_load_machine_code, cache, cache.load_overload)
    return cast(Callable[..., Any], loop)


def _load_machine_code(cache: Any, load_overload: Any, signature: Any, context: Any) -> Any:
    """What numba's cache holds of a loop, or None.

    Before it looks there, numba learns to compile all that it can compile: that takes longer than
    many a small volume. Machine code needs none of it but the allocator that it calls.
    """
    rtsys.initialize(context)
    found = cache._load_overload(signature, context)
    if found is None:
        _start_without_scipy()
        found = load_overload(signature, context)
    return found


def _nothing_kept(signature: Any, context: Any) -> None:
    """The same where nothing is kept."""
    _start_without_scipy()


_SCIPY_BLAS = "scipy.linalg.cython_blas"


def pooled_shape(shape_zyx: ShapeZYX, factor_zyx: ShapeZYX) -> ShapeZYX:
    """Shape after pooling; odd edges round up."""
    return ceil_divide(shape_zyx, factor_zyx)


def load_meanwhile(dtype: str, *, labels: bool) -> None:
    """Load the compiled loops of a dtype in a thread: half a second, best while bytes travel.

    Once in a process: several threads at it would each do all of it, and keep the others waiting.
    """
    with _begun_lock:
        if (dtype, labels) in _begun:
            return
        _begun.add((dtype, labels))
    threading.Thread(target=_load, args=(dtype, labels), name="loops").start()


_begun: set[tuple[str, bool]] = set()
_begun_lock, _loading = threading.Lock(), threading.Lock()


def _start_without_scipy() -> None:
    """Keep numba from importing scipy for its linear algebra, of which these loops have none.

    It does so when the first loop is compiled, and can do without; it takes half a second.
    """
    if _SCIPY_BLAS not in sys.modules:
        sys.modules[_SCIPY_BLAS] = None  # type: ignore[assignment]  # an import of it now fails
        try:
            import numba.np.arraymath  # noqa: F401
        finally:
            sys.modules.pop(_SCIPY_BLAS, None)  # another thread may have been as fast


def _load(dtype: str, labels: bool) -> None:
    with _loading:
        # Modules and classes live as long as the process. That the collector walked all of them,
        # again and again while more of them came, was half of the time that this takes.
        gc.freeze()
        voxels = np.zeros((2, 2, 2), dtype)
        rule = LabelPooling() if labels else None
        pool(voxels, (2, 2, 2), np.zeros((1, 1, 1), dtype), labels=rule)
        if voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= 2:
            count_values(voxels)
        gc.freeze()


def pool(
    source: NDArray[Any],
    factor_zyx: ShapeZYX,
    target: NDArray[Any],
    *,
    labels: LabelPooling | None,
) -> None:
    """Pool `source` by 1 or 2 along each axis into `target` (shape `pooled_shape`).

    Images are averaged over the voxels that exist (fewer at odd edges), integers rounded half up.
    Labels take a value that is among those that exist: see `LabelPooling`.
    """
    fz, fy, fx = factor_zyx
    if labels is not None:
        yielding = _representable(labels.yielding, source.dtype)
        _pool_mode(source, fz, fy, fx, target, yielding, labels.ties == "largest")
    elif source.dtype.kind == "f":
        _pool_mean_float(source, fz, fy, fx, target)
    else:
        _pool_mean_int(source, fz, fy, fx, target, True if source.itemsize > 2 else None)


@compiled
def _pool_mean_int(source, fz, fy, fx, target, wide):  # type: ignore[no-untyped-def]
    # At an odd edge, and along an axis that is not pooled, a voxel stands for its missing
    # neighbour as well: the mean of eight, rounded half up, is then that of those that exist.
    width, whole = target.shape[2], source.shape[2] // fx
    for z in range(target.shape[0]):
        z0, z1 = z * fz, min((z + 1) * fz, source.shape[0]) - 1
        for y in range(target.shape[1]):
            y0, y1 = y * fy, min((y + 1) * fy, source.shape[1]) - 1
            a, b, c, d = source[z0, y0], source[z0, y1], source[z1, y0], source[z1, y1]
            row = target[z, y]
            if fx == 2:
                for x in range(whole):
                    i, j = 2 * x, 2 * x + 1
                    row[x] = _mean(wide, a[i], a[j], b[i], b[j], c[i], c[j], d[i], d[j])
            else:
                for x in range(whole):
                    row[x] = _mean(wide, a[x], a[x], b[x], b[x], c[x], c[x], d[x], d[x])
            for x in range(whole, width):
                i = source.shape[2] - 1
                row[x] = _mean(wide, a[i], a[i], b[i], b[i], c[i], c[i], d[i], d[i])


@compiled
def _mean(wide, a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
    """Of eight integers, rounded half up."""
    if wide is None:  # decided when it is compiled
        total = np.int64(a) + np.int64(b) + np.int64(c) + np.int64(d)
        return (total + np.int64(e) + np.int64(f) + np.int64(g) + np.int64(h) + 4) >> 3
    # eighths and remainders apart, in their own dtype: a sum of 64 bits would overflow
    eighths = (a >> 3) + (b >> 3) + (c >> 3) + (d >> 3) + (e >> 3) + (f >> 3) + (g >> 3) + (h >> 3)
    rest = (a & 7) + (b & 7) + (c & 7) + (d & 7) + (e & 7) + (f & 7) + (g & 7) + (h & 7)
    return eighths + ((rest + 4) >> 3)


@compiled
def _pool_mean_float(source, fz, fy, fx, target):  # type: ignore[no-untyped-def]
    for z in range(target.shape[0]):
        z1 = min((z + 1) * fz, source.shape[0])
        for y in range(target.shape[1]):
            y1 = min((y + 1) * fy, source.shape[1])
            whole = 0
            if z1 - z * fz == 2 and y1 - y * fy == 2 and fx == 2:  # the same sums, many at once
                whole = source.shape[2] // 2
                a, b = source[2 * z, 2 * y], source[2 * z, 2 * y + 1]
                c, d = source[2 * z + 1, 2 * y], source[2 * z + 1, 2 * y + 1]
                for x in range(whole):
                    i, j = 2 * x, 2 * x + 1
                    total = 0.0 + a[i] + a[j] + b[i] + b[j] + c[i] + c[j] + d[i] + d[j]
                    target[z, y, x] = total / 8
            for x in range(whole, target.shape[2]):
                x1 = min((x + 1) * fx, source.shape[2])
                total = 0.0
                count = 0
                for k in range(z * fz, z1):
                    for j in range(y * fy, y1):
                        for i in range(x * fx, x1):
                            total += np.float64(source[k, j, i])
                            count += 1
                target[z, y, x] = total / count


def _representable(values: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Those that voxels of the dtype can have, in it."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        values = tuple(value for value in values if info.min <= value <= info.max)
    return np.array(values, dtype)


@compiled
def _pool_mode(source, fz, fy, fx, target, yielding, larger):  # type: ignore[no-untyped-def]
    # At an odd edge, and along an axis that is not pooled, a voxel stands for its missing
    # neighbour as well: all votes are doubled, and nothing is decided otherwise.
    seen = np.empty(8, dtype=source.dtype)
    width, whole = target.shape[2], source.shape[2] // fx
    alike = np.empty(width, dtype=np.bool_)
    for z in range(target.shape[0]):
        z0, z1 = z * fz, min((z + 1) * fz, source.shape[0]) - 1
        for y in range(target.shape[1]):
            y0, y1 = y * fy, min((y + 1) * fy, source.shape[1]) - 1
            a, b, c, d = source[z0, y0], source[z0, y1], source[z1, y0], source[z1, y1]
            row = target[z, y]
            # most voxels of a segmentation lie inside of something: told for many at once
            if fx == 2:
                for x in range(whole):
                    i, first = 2 * x, a[2 * x]
                    row[x] = first
                    alike[x] = (
                        (a[i + 1] == first)
                        & (b[i] == first)
                        & (b[i + 1] == first)
                        & (c[i] == first)
                        & (c[i + 1] == first)
                        & (d[i] == first)
                        & (d[i + 1] == first)
                    )
            else:
                for x in range(whole):
                    first = a[x]
                    row[x] = first
                    alike[x] = (b[x] == first) & (c[x] == first) & (d[x] == first)
            if whole < width:
                alike[whole] = False
            for x in range(width):
                if not alike[x]:
                    i, j = x * fx, min((x + 1) * fx, source.shape[2]) - 1
                    seen[0], seen[1], seen[2], seen[3] = a[i], a[j], b[i], b[j]
                    seen[4], seen[5], seen[6], seen[7] = c[i], c[j], d[i], d[j]
                    row[x] = _vote(seen, yielding, larger)


@compiled
def _vote(seen, yielding, larger):  # type: ignore[no-untyped-def]
    """The most frequent of eight values; ``larger`` of several that are as frequent, or smaller."""
    first, other = seen[0], seen[0]
    for k in range(8):
        if seen[k] != first:
            other = seen[k]
    firsts, others = 0, 0
    for k in range(8):
        firsts += seen[k] == first
        others += seen[k] == other
    if yielding.size == 0:
        if firsts > 4:
            return first
        if others > 4:
            return other
        if firsts + others == 8:  # at most borders two meet
            return max(first, other) if larger else min(first, other)
    best = first
    most = -9
    for k in range(8):
        votes = 0
        for n in range(8):
            votes += seen[n] == seen[k]
        for one in yielding:
            if seen[k] == one:
                votes -= 8  # below whoever does not yield; alike among themselves
        if votes > most or (votes == most and (seen[k] > best if larger else seen[k] < best)):
            most = votes
            best = seen[k]
    return best


def count_values(chunk: NDArray[Any]) -> NDArray[np.int64]:
    """How often each value of an 8- or 16-bit integer dtype occurs, from its minimum up.

    Of fewer than 2^32 voxels; shape ``(256,)`` or ``(65536,)``.
    """
    flat = np.ascontiguousarray(chunk).reshape(-1).view(f"u{chunk.dtype.itemsize}")
    if chunk.dtype.itemsize == 1:
        counts: NDArray[np.int64] = _count8(flat)
    else:
        whole = flat.size // 4 * 4
        counts = _count16(flat[:whole].view(np.uint64), flat[whole:])
    if chunk.dtype.kind == "i":  # two's complement: negative values are the upper half
        counts = np.roll(counts, counts.size // 2)
    return counts


@compiled
def _count8(flat):  # type: ignore[no-untyped-def]
    # four tables, because runs of one value would wait for their own increments
    tables = np.zeros((4, 256), dtype=np.uint32)
    t0, t1, t2, t3 = tables[0], tables[1], tables[2], tables[3]
    n = flat.size // 4 * 4
    for i in range(0, n, 4):
        t0[flat[i]] += np.uint32(1)
        t1[flat[i + 1]] += np.uint32(1)
        t2[flat[i + 2]] += np.uint32(1)
        t3[flat[i + 3]] += np.uint32(1)
    for i in range(n, flat.size):
        t0[flat[i]] += np.uint32(1)
    total = np.empty(256, dtype=np.int64)
    for i in range(256):
        total[i] = np.int64(t0[i]) + t1[i] + t2[i] + t3[i]
    return total


@compiled
def _count16(words, rest):  # type: ignore[no-untyped-def]
    # four values a load, and a table that half of the cache holds: twice as fast as one by one
    table = np.zeros(65536, dtype=np.uint32)
    low, one = np.uint64(0xFFFF), np.uint32(1)
    for i in range(words.size):
        word = words[i]
        table[word & low] += one
        table[word >> np.uint64(16) & low] += one
        table[word >> np.uint64(32) & low] += one
        table[word >> np.uint64(48)] += one
    for i in range(rest.size):
        table[rest[i]] += one
    return table.astype(np.int64)


@compiled
def extent_and_sum(flat):  # type: ignore[no-untyped-def]
    """Minimum, maximum, sum and number of the finite values of a float array (float64 sums)."""
    low, high, total, count = np.inf, -np.inf, 0.0, 0
    for i in range(flat.size):
        value = np.float64(flat[i])
        if np.isfinite(value):
            low = min(low, value)
            high = max(high, value)
            total += value
            count += 1
    return low, high, total, count


@compiled
def count_shifted(flat, exponent, first, bins):  # type: ignore[no-untyped-def]
    """Counts of ``(value >> exponent) - first`` of integers, all in the array's dtype."""
    counts = np.zeros(bins, dtype=np.int64)
    for i in range(flat.size):
        counts[(flat[i] >> exponent) - first] += 1
    return counts


@compiled
def count_bins(flat, width, first, bins):  # type: ignore[no-untyped-def]
    """Counts of ``floor(value / width) - first`` over finite floats; shape ``(bins,)``."""
    counts = np.zeros(bins, dtype=np.int64)
    for i in range(flat.size):
        value = np.float64(flat[i])
        if np.isfinite(value):
            counts[int(np.floor(value / width)) - first] += 1
    return counts


@compiled
def run_starts(flat):  # type: ignore[no-untyped-def]
    """The first value of each run of equal ones, in order; shape ``(runs,)``."""
    runs = 1 if flat.size else 0
    for i in range(1, flat.size):
        if flat[i] != flat[i - 1]:
            runs += 1
    found = np.empty(runs, dtype=flat.dtype)
    at = 0
    for i in range(flat.size):
        if i == 0 or flat[i] != flat[i - 1]:
            found[at] = flat[i]
            at += 1
    return found
