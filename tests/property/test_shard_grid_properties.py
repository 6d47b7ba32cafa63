"""For any shape, chunk, shard and box: grids cover once, and block reads are numpy's slices."""

from __future__ import annotations

import itertools
import math
import tempfile

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.geometry import Box, ShapeZYX
from lib.storage.local import LocalStore
from lib.volumes.grid import ShardGrid, plan_levels
from lib.volumes.job import ConcurrencyLimits
from lib.volumes.shardfile import StoredLevel
from tests.kit.volume_kit import (
    DTYPES,
    ArrayReader,
    ZarrSource,
    a_job,
    a_plan,
    assert_pyramid,
    make,
    random_voxels,
    read_levels,
    volume_path,
)

QUICK = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
LENGTH = st.integers(1, 40)


def triple(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[ShapeZYX]:
    return st.tuples(numbers, numbers, numbers)


@st.composite
def grids(draw: st.DrawFn) -> ShardGrid:
    chunk = draw(triple(st.integers(1, 12)))
    times = draw(triple(st.integers(1, 4)))
    shard = tuple(c * t for c, t in zip(chunk, times, strict=True))
    return ShardGrid(draw(triple(LENGTH)), chunk, shard)  # type: ignore[arg-type]


@st.composite
def boxes(draw: st.DrawFn, shape: ShapeZYX) -> Box:
    bounds = [
        sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))
        for n in shape
    ]
    return Box(tuple(a for a, _ in bounds), tuple(b for _, b in bounds))  # type: ignore[arg-type]


@QUICK
@given(grids())
def test_shards_and_their_chunks_cover_every_voxel_once(grid: ShardGrid) -> None:
    by_shard, by_chunk = (np.zeros(grid.shape_zyx, np.uint8) for _ in range(2))
    for index in grid.shards():
        box = grid.shard_box(index)
        by_shard[box.slices()] += 1
        slots = []
        for slot, chunk in grid.chunks_of(index):
            part = grid.chunk_box(chunk)
            assert box.contains(part)
            by_chunk[part.slices()] += 1
            inner = tuple(
                c - i * n for c, i, n in zip(chunk, index, grid.chunks_per_shard_zyx, strict=True)
            )
            assert slot == np.ravel_multi_index(inner, grid.chunks_per_shard_zyx)
            slots.append(slot)
        assert slots == sorted(slots)
    assert np.all(by_shard == 1)
    assert np.all(by_chunk == 1)
    assert len(list(grid.shards())) == len(grid)


@QUICK
@given(st.data())
def test_tiles_cover_a_box_once_in_order(data: st.DataObject) -> None:
    shape = data.draw(triple(LENGTH))
    box = data.draw(boxes(shape))
    tile = data.draw(triple(LENGTH))
    times = np.zeros(shape, np.uint8)
    tiles = list(box.tiles(tile))
    for part in tiles:
        assert box.contains(part)
        assert not part.empty
        assert all(n <= t for n, t in zip(part.shape_zyx, tile, strict=True))
        times[part.slices()] += 1
    assert np.all(times[box.slices()] == 1)
    assert times.sum() == box.voxels
    assert [t.start_zyx for t in tiles] == sorted(t.start_zyx for t in tiles)


@QUICK
@given(st.data())
def test_what_two_boxes_share_is_what_both_hold(data: st.DataObject) -> None:
    shape = data.draw(triple(st.integers(1, 12)))
    a, b = data.draw(boxes(shape)), data.draw(boxes(shape))
    ours, theirs = (np.zeros(shape, bool) for _ in range(2))
    ours[a.slices()], theirs[b.slices()] = True, True
    shared = a.intersect(b)
    assert (ours & theirs).sum() == (0 if shared.empty else shared.voxels)
    assert a.contains(b) == bool(np.all(ours[theirs]))
    by = data.draw(triple(st.integers(-9, 9)))
    assert a.shifted(by).shape_zyx == a.shape_zyx


@QUICK
@given(grids(), triple(st.sampled_from([1.0, 1.3, 2.0, 4.0, 40.0])))
def test_levels_fit_together(grid: ShardGrid, voxel: tuple[float, float, float]) -> None:
    levels = plan_levels(grid, voxel, (0.0, 0.0, 0.0), small_enough=4)
    for finer, level in itertools.pairwise(levels):
        assert level.grid.shape_zyx == tuple(
            math.ceil(n / f) for n, f in zip(finer.grid.shape_zyx, level.factor_zyx, strict=True)
        )
        assert level.factor_zyx != (1, 1, 1)
        assert not level.in_pass or finer.in_pass
        if level.in_pass:
            assert level.grid.counts_zyx == grid.counts_zyx
            for index in grid.shards():
                ours, theirs = level.grid.shard_box(index), finer.grid.shard_box(index)
                assert ours.start_zyx == tuple(
                    a // f for a, f in zip(theirs.start_zyx, level.factor_zyx, strict=True)
                )
    assert max(levels[-1].grid.shape_zyx) <= 4


@settings(QUICK, max_examples=25)
@given(st.data())
def test_any_volume_is_converted_and_any_box_of_it_read_back(data: st.DataObject) -> None:
    shape = data.draw(triple(st.integers(1, 90)).filter(lambda s: math.prod(s) < 40_000))
    dtype = data.draw(st.sampled_from(DTYPES))
    kind = data.draw(st.sampled_from(["image", "labels"]))
    chunk = data.draw(triple(st.integers(5, 40)))
    shard_mb = data.draw(st.sampled_from([0.01, 0.1, 1]))
    voxels = random_voxels(shape, dtype, labels=kind == "labels")
    reader = ArrayReader(voxels, data.draw(triple(LENGTH)), random_access=data.draw(st.booleans()))
    plan = a_plan(
        shape, dtype, kind=kind, voxel_nm_zyx=data.draw(triple(st.sampled_from([1.0, 4.0])))
    )  # type: ignore[arg-type]
    job = a_job(plan, reader, chunk_zyx=chunk, shard_mb=shard_mb)
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder, durable=False)
        make(job, reader, store, limits=ConcurrencyLimits(2, 2, 2), allow_empty=True)
        levels = read_levels(volume_path(store, job))
        np.testing.assert_array_equal(levels[0], voxels)
        assert_pyramid(levels, job)
        for level in job.levels:
            stored = StoredLevel(
                store, job.final_key, level.index, level.grid, job.dtype, job.codec
            )
            box = data.draw(boxes(level.grid.shape_zyx))
            np.testing.assert_array_equal(stored.read(box), levels[level.index][box.slices()])


@settings(QUICK, max_examples=30)
@given(st.data())
def test_any_box_of_any_zarr_is_read_as_numpy_would(data: st.DataObject) -> None:
    axes = data.draw(st.sampled_from([2, 3]))
    shape = data.draw(triple(st.integers(1, 30)))[3 - axes :]
    chunk = data.draw(triple(st.integers(1, 16)))[3 - axes :]
    grid = [math.ceil(n / c) for n, c in zip(shape, chunk, strict=True)]
    holes = data.draw(st.lists(st.tuples(*(st.integers(0, n - 1) for n in grid)), max_size=3))
    voxels = random_voxels(shape, data.draw(st.sampled_from(DTYPES)))  # type: ignore[arg-type]
    source = ZarrSource(
        voxels,
        chunk,
        codec=data.draw(st.sampled_from(["zstd", "blosc", "gzip", "zlib", "lz4", "none"])),
        order=data.draw(st.sampled_from("CF")),
        separator=data.draw(st.sampled_from("./")),
        big_endian=data.draw(st.booleans()),
        holes=holes,
        fill=data.draw(st.sampled_from([0, 3])),
        box=data.draw(boxes((1,) * (3 - axes) + tuple(shape))),  # type: ignore[arg-type]
    )
    reader = source.reader()
    box = data.draw(boxes(reader.shape_zyx))
    read, times = np.zeros(box.shape_zyx, reader.dtype), np.zeros(box.shape_zyx, np.uint8)
    named = set()
    for block in reader.blocks(box):
        read[block.box.slices(box.start_zyx)] = block.data
        times[block.box.slices(box.start_zyx)] += 1
        named |= set(block.missing)
    assert np.all(times == 1)
    np.testing.assert_array_equal(read, source.truth[box.slices()])
    assert named <= {"/".join(map(str, hole)) for hole in source.holes}
