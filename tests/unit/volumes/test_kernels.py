"""Pooling, counting and statistics are exact for every dtype, and merge exactly."""

from __future__ import annotations

import json
import math
import threading
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.geometry import ShapeZYX
from lib.plan import EARLIER_POOLING, LabelPooling
from lib.volumes import kernels
from lib.volumes.statistics import (
    MAX_BINS,
    Statistics,
    StatisticsAccumulator,
    of_chunk,
    of_value_counts,
)
from tests.kit.volume_kit import DTYPES, INTEGERS, pooled, random_voxels

ALL = (*DTYPES, "uint64", "int64")
FACTORS = [(2, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 2), (2, 2, 1), (1, 1, 1)]
SHAPES = [(4, 6, 8), (5, 6, 8), (3, 3, 3), (1, 1, 1), (1, 7, 2), (2, 1, 5)]


def pool(
    voxels: np.ndarray, factor: ShapeZYX, *, labels: bool | LabelPooling = False
) -> np.ndarray:
    target = np.empty(kernels.pooled_shape(voxels.shape, factor), voxels.dtype)
    rule = labels if isinstance(labels, LabelPooling) else LabelPooling() if labels else None
    kernels.pool(voxels, factor, target, labels=rule)
    return target


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("dtype", ALL)
def test_images_are_averaged_over_the_voxels_that_exist(dtype: str, factor: ShapeZYX) -> None:
    for seed, shape in enumerate(SHAPES):
        voxels = random_voxels(shape, dtype, seed)
        expected = pooled(voxels, factor, labels=False)
        np.testing.assert_array_equal(pool(voxels, factor), expected)


@given(
    st.sampled_from(ALL),
    st.sampled_from(FACTORS),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 80)),
    st.integers(0, 2**32),
)
def test_means_are_exact_at_the_ends_of_every_dtype_and_in_long_rows(
    dtype: str, factor: ShapeZYX, shape: ShapeZYX, seed: int
) -> None:
    voxels, random = random_voxels(shape, dtype, seed), np.random.default_rng(seed)
    if voxels.dtype.kind in "iu":  # sums beyond the dtype, halves, values that no float64 has
        info = np.iinfo(dtype)
        ends = [info.max, info.max - 1, info.min, info.min + 1]
        voxels = np.where(
            random.random(shape) < 0.7, random.choice(np.array(ends, dtype), shape), voxels
        )
    expected = pooled(voxels, factor, labels=False)
    np.testing.assert_array_equal(pool(voxels, factor), expected)
    inside = np.zeros([n + 1 for n in shape], dtype)[:-1, :-1, 1:]  # as at a volume's edge
    inside[:] = voxels
    np.testing.assert_array_equal(pool(inside, factor), expected)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "uint64", "float32"])
def test_labels_take_the_most_frequent_value(dtype: str, factor: ShapeZYX) -> None:
    for seed, shape in enumerate(SHAPES):
        voxels = random_voxels(shape, dtype, seed, labels=True)
        expected = pooled(voxels, factor, labels=True)
        np.testing.assert_array_equal(pool(voxels, factor, labels=True), expected)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("yielding", [(), (0,), (0, -1), (0, 300)])
def test_labels_of_every_width_are_those_of_a_slow_count(
    dtype: str, yielding: tuple[int, ...]
) -> None:
    rule = LabelPooling(yielding=yielding)
    for seed, shape in enumerate(SHAPES):
        voxels = random_voxels(shape, dtype, seed, labels=True)
        if np.dtype(dtype).kind == "i":
            voxels = voxels - voxels.dtype.type(1)  # -1 is among them
        for factor in FACTORS:
            found = pool(voxels, factor, labels=rule)
            for at in np.ndindex(found.shape):
                part = tuple(slice(i * f, (i + 1) * f) for i, f in zip(at, factor, strict=True))
                children = voxels[part].reshape(-1).tolist()
                votes = Counter(one for one in children if one not in yielding) or Counter(children)
                most = max(votes.values())
                assert found[at] == min(one for one, count in votes.items() if count == most)


def test_ties_between_labels_go_to_the_smallest() -> None:
    voxels = np.array([[[0, 7], [0, 7]], [[0, 7], [0, 7]]], np.uint16)
    assert pool(voxels, (2, 2, 2), labels=True).item() == 0
    assert pool(voxels[..., ::-1], (2, 2, 2), labels=True).item() == 0
    assert pool(voxels, (2, 2, 2), labels=LabelPooling(yielding=(0,))).item() == 7
    thrice = np.array([[[3, 3], [3, 9]], [[9, 1], [1, 0]]], np.uint16)
    assert pool(thrice, (2, 2, 2), labels=True).item() == 3


def test_a_lone_voxel_wins_over_background_that_yields() -> None:
    voxels = np.zeros((2, 2, 2), np.int32)
    voxels[1, 0, 1] = 9
    assert pool(voxels, (2, 2, 2), labels=True).item() == 0
    assert pool(voxels, (2, 2, 2), labels=LabelPooling(yielding=(0,))).item() == 9


def test_volumes_of_before_are_repaired_by_the_rule_that_they_were_made_with() -> None:
    voxels = np.array([[[0, 7], [0, 7]], [[0, 7], [0, 7]]], np.uint16)
    assert pool(voxels, (2, 2, 2), labels=EARLIER_POOLING).item() == 7


def test_label_numbers_beyond_the_exact_floats_stay_as_they_are() -> None:
    voxels = np.full((2, 2, 2), 2**63 + 12345, np.uint64)
    assert pool(voxels, (2, 2, 2), labels=True).item() == 2**63 + 12345


@pytest.mark.parametrize(
    ("values", "mean"),
    [((0, 1), 1), ((1, 2), 2), ((-1, 0), 0), ((-2, -1), -1), ((-3, -2), -2), ((-128, -127), -127)],
)
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_halves_round_up_also_below_zero(values: tuple[int, int], mean: int, dtype: str) -> None:
    pair = np.array([[values]], dtype)
    assert pool(pair, (1, 1, 2)).item() == mean
    for factor in ((2, 2, 2), (1, 2, 2)):  # the two that have loops of their own
        block = np.broadcast_to(pair, (*factor[:2], 2)).copy()
        assert pool(block, factor).item() == mean  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_means_of_extreme_values_do_not_overflow(dtype: str) -> None:
    info = np.iinfo(dtype)
    for value in (info.min, info.max):
        voxels = np.full((4, 4, 4), value, dtype)
        for factor in FACTORS:
            assert np.all(pool(voxels, factor) == value)


def test_nan_spreads_to_the_mean_and_nowhere_else() -> None:
    voxels = np.ones((4, 4, 4), np.float32)
    voxels[0, 0, 0] = np.nan
    result = pool(voxels, (2, 2, 2))
    assert np.isnan(result[0, 0, 0])
    assert np.isfinite(result).sum() == 7


def test_pooling_reads_views_as_well_as_whole_arrays() -> None:
    voxels = random_voxels((8, 9, 10), "uint8")
    view = voxels[1:7, 2:8, 1:9]
    np.testing.assert_array_equal(pool(view, (2, 2, 2)), pooled(view, (2, 2, 2), labels=False))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 1000])
def test_every_value_is_counted_from_the_lowest_up(dtype: str, size: int) -> None:
    voxels = random_voxels((1, 1, size), dtype, size)
    counts = kernels.count_values(voxels)
    info = np.iinfo(dtype)
    expected = np.bincount(
        voxels.reshape(-1).astype(np.int64) - info.min, minlength=info.max - info.min + 1
    )
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_voxels_that_lie_at_any_address_are_counted(dtype: str, shift: int) -> None:
    """Four are loaded at once, and need not begin where four do."""
    room = np.zeros(2 * 1001 + 8, np.uint8)
    voxels = room[2 * shift : 2 * shift + 2 * 1001].view(dtype)
    voxels[:] = random_voxels((1, 1, 1001), dtype, 3).reshape(-1)
    counts = kernels.count_values(voxels)
    assert counts.sum() == 1001
    assert counts[voxels.astype(np.int64) - np.iinfo(dtype).min].min() > 0
    np.testing.assert_array_equal(counts, kernels.count_values(voxels.copy()))


# --- statistics ------------------------------------------------------------------------------


def statistics(voxels: np.ndarray) -> Statistics:
    tally = StatisticsAccumulator(voxels.dtype)
    tally.add(0, voxels)
    return tally.result()


def assert_exact(found: Statistics, voxels: np.ndarray) -> None:
    """All that integers and bins promise, from Python's own arithmetic."""
    flat = voxels.reshape(-1)
    finite = flat if flat.dtype.kind in "iu" else flat[np.isfinite(flat)]
    assert (found.voxels, found.finite) == (flat.size, finite.size)
    if not finite.size:
        assert found.minimum is found.maximum is found.mean is None
        assert not found.histogram.counts
        return
    assert (found.minimum, found.maximum) == (finite.min().item(), finite.max().item())
    values = finite.tolist()
    if flat.dtype.kind in "iu":
        assert found.total == sum(values)
        assert isinstance(found.total, int)
    else:
        assert found.total == pytest.approx(math.fsum(values), rel=1e-12, abs=1e-9)
    bins = found.histogram
    assert 0 < len(bins.counts) <= MAX_BINS
    assert sum(bins.counts) == finite.size
    expected = [0] * len(bins.counts)
    for value in values:
        scaled = (
            value >> bins.exponent
            if isinstance(value, int)
            else math.floor(math.ldexp(value, -bins.exponent))
        )
        expected[scaled - bins.first] += 1
    assert list(bins.counts) == expected


@pytest.mark.parametrize("dtype", ALL)
def test_statistics_are_exact(dtype: str) -> None:
    for seed, shape in enumerate(SHAPES):
        voxels = random_voxels(shape, dtype, seed)
        assert_exact(statistics(voxels), voxels)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_statistics_are_exact_at_the_ends_of_the_range(dtype: str) -> None:
    info = np.iinfo(dtype)
    for values in (
        [info.max] * 9,
        [info.min] * 9,
        [info.min, info.max],
        [info.max - 1, info.max, info.max],
        [info.max - 5000 % (info.max // 2), info.max],
    ):
        voxels = np.array([[values]], dtype)
        assert_exact(statistics(voxels), voxels)


@pytest.mark.parametrize("dtype", ALL)
def test_statistics_of_parts_merge_to_those_of_the_whole(dtype: str) -> None:
    random = np.random.default_rng(5)
    whole = random_voxels((6, 10, 12), dtype, 1)
    if whole.dtype.kind == "f":
        whole[::2] *= 1e-6  # parts whose bins differ widely
    else:
        whole[::2] = whole[::2] // 100
    for _ in range(5):
        cuts = sorted(random.choice(np.arange(1, 6), 2, replace=False).tolist())
        parts = [whole[: cuts[0]], whole[cuts[0] : cuts[1]], whole[cuts[1] :]]
        merged = Statistics()
        for part in parts:
            merged = merged.merged(statistics(part))
        assert_exact(merged, whole)
        reverse = Statistics()
        for part in reversed(parts):
            reverse = statistics(part).merged(reverse)
        assert (reverse.histogram, reverse.minimum) == (merged.histogram, merged.minimum)


def test_the_tally_does_not_depend_on_the_order_of_chunks() -> None:
    for dtype in ("uint8", "int16", "float32", "uint32"):
        voxels = random_voxels((8, 8, 8), dtype, 3)
        chunks = list(enumerate(np.split(voxels, 8)))
        forward, backward = StatisticsAccumulator(voxels.dtype), StatisticsAccumulator(voxels.dtype)
        for slot, chunk in chunks:
            forward.add(slot, chunk)
        for slot, chunk in reversed(chunks):
            backward.add(slot, chunk)
        assert forward.result() == backward.result()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_and_infinity_are_counted_but_not_measured(dtype: str) -> None:
    voxels = random_voxels((3, 4, 5), dtype)
    voxels[0, 0] = np.nan
    voxels[1, 0, 0], voxels[1, 0, 1] = np.inf, -np.inf
    assert_exact(statistics(voxels), voxels)
    assert_exact(statistics(np.full((2, 2, 2), np.nan, dtype)), np.full((2, 2, 2), np.nan, dtype))
    assert_exact(statistics(np.full((2, 2, 2), np.inf, dtype)), np.full((2, 2, 2), np.inf, dtype))


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 0.0],
        [-0.0, 1e-300],
        [5e-324, 1e-320],
        [1e308, -1e308, 1e308],
        [1.7e308] * 3,
        [-1e30, 0.0],
        [1.0, 1.0 + 2**-52],
        [-3.0000001, -3.0],
    ],
)
def test_floats_of_any_size_can_be_measured_and_written_down(values: list[float]) -> None:
    voxels = np.array([[values]], np.float64)
    found = statistics(voxels)
    assert sum(found.histogram.counts) == len(values)
    assert len(found.histogram.counts) <= MAX_BINS
    assert (found.minimum, found.maximum) == (min(values), max(values))
    text = json.dumps(found.to_json(), allow_nan=False)
    assert Statistics.from_json(json.loads(text)) == found
    assert found.mean is None or math.isfinite(found.mean)
    middle = found.percentile(50)
    assert middle is not None
    assert min(values) <= middle <= max(values)
    merged = found.merged(statistics(np.array([[[2.0, 1e-5]]])))
    assert sum(merged.histogram.counts) == len(values) + 2


@pytest.mark.parametrize("dtype", ALL)
def test_percentiles_lie_within_one_bin_of_the_truth(dtype: str) -> None:
    voxels = random_voxels((10, 20, 20), dtype, 9)
    found = statistics(voxels)
    for percent in (0, 0.5, 25, 50, 99.5, 100):
        exact = float(np.percentile(voxels.astype(np.float64), percent, method="lower"))
        value = found.percentile(percent)
        assert value is not None
        assert abs(value - exact) <= 2 * found.histogram.width
    assert found.percentile(0) == float(voxels.min())
    assert found.percentile(100) == pytest.approx(float(voxels.max()), abs=found.histogram.width)
    assert Statistics().percentile(50) is None


def test_statistics_survive_json() -> None:
    for dtype in ALL:
        found = statistics(random_voxels((3, 5, 7), dtype, 2))
        assert Statistics.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_nothing_at_all_merges_as_nothing() -> None:
    some = statistics(random_voxels((2, 2, 2), "int8"))
    assert Statistics().merged(some) == some == some.merged(Statistics())
    assert of_value_counts(np.zeros(256, np.int64), np.dtype("uint8")) == Statistics()
    assert of_chunk(np.empty((0, 1, 1), np.float32)) == Statistics()
    assert Statistics().mean is None


def test_measuring_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in ALL:
            statistics(random_voxels((3, 3, 3), dtype))


def test_the_loops_of_a_dtype_are_loaded_by_one_thread_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = list[str]()
    monkeypatch.setattr(kernels, "_begun", set())
    monkeypatch.setattr(kernels, "_load", lambda dtype, labels: loaded.append(dtype))
    for _ in range(2):
        for dtype in ("uint8", "int16"):
            kernels.load_meanwhile(dtype, labels=False)
    for thread in threading.enumerate():
        if thread.name == "loops":
            thread.join()
    assert sorted(loaded) == ["int16", "uint8"]
