"""The shard grid covers a volume once, and refuses whatever is not exactly one shard."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lib.errors import ConfigError
from lib.geometry import Box
from lib.volumes.grid import ShardGrid, shard_key

GRID = ShardGrid((70, 33, 65), (8, 8, 16), (32, 16, 32))


def test_shards_cover_every_voxel_once() -> None:
    times = np.zeros(GRID.shape_zyx, np.uint8)
    indices = list(GRID.shards())
    for index in indices:
        times[GRID.shard_box(index).slices()] += 1
    assert np.all(times == 1)
    assert len(indices) == len(GRID) == math.prod(GRID.counts_zyx)
    assert GRID.counts_zyx == (3, 3, 3)
    assert indices == sorted(indices), "C order"
    assert indices[:2] == [(0, 0, 0), (0, 0, 1)]


def test_chunks_of_all_shards_cover_every_voxel_once() -> None:
    times = np.zeros(GRID.shape_zyx, np.uint8)
    for shard in GRID.shards():
        for _, chunk in GRID.chunks_of(shard):
            box = GRID.chunk_box(chunk)
            assert GRID.shard_box(shard).contains(box)
            times[box.slices()] += 1
    assert np.all(times == 1)


def test_slots_are_the_c_order_of_the_whole_shard_even_at_the_edge() -> None:
    assert GRID.chunks_per_shard_zyx == (4, 2, 2)
    inside = list(GRID.chunks_of((0, 0, 0)))
    assert [slot for slot, _ in inside] == list(range(16))
    assert inside[5] == (5, (1, 0, 1))
    edge = list(GRID.chunks_of((2, 2, 2)))
    assert edge == [(0, (8, 4, 4))]
    assert [slot for slot, _ in GRID.chunks_of((2, 0, 0))] == [0, 1, 2, 3]


def test_boxes_end_at_the_edge() -> None:
    assert GRID.shard_box((2, 2, 2)) == Box((64, 32, 64), (70, 33, 65))
    assert GRID.chunk_box((8, 4, 4)) == Box((64, 32, 64), (70, 33, 65))
    assert GRID.shard_box((0, 0, 0)) == Box((0, 0, 0), (32, 16, 32))


@pytest.mark.parametrize("index", [(3, 0, 0), (0, 3, 0), (0, 0, 3), (-1, 0, 0), (0, -1, 0)])
def test_a_shard_outside_the_grid_is_refused(index: tuple[int, int, int]) -> None:
    with pytest.raises(IndexError, match="outside the grid"):
        GRID.shard_box(index)


@pytest.mark.parametrize("index", [(9, 0, 0), (0, 5, 0), (0, 0, 5), (-1, 0, 0)])
def test_a_chunk_outside_the_grid_is_refused(index: tuple[int, int, int]) -> None:
    with pytest.raises(IndexError, match="outside the grid"):
        GRID.chunk_box(index)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shard_must_be_a_whole_number_of_chunks(axis: int) -> None:
    shard = [32, 32, 32]
    shard[axis] = 36
    with pytest.raises(ConfigError, match="not a whole number of chunks") as caught:
        ShardGrid((64, 64, 64), (8, 8, 8), tuple(shard))  # type: ignore[arg-type]
    assert caught.value.location == "chunk_zyx"


@pytest.mark.parametrize("place", range(9))
def test_nothing_may_be_zero(place: int) -> None:
    numbers = [1] * 9
    numbers[place] = 0
    triples = (tuple(numbers[:3]), tuple(numbers[3:6]), tuple(numbers[6:]))
    with pytest.raises(ConfigError, match="must be positive"):
        ShardGrid(*triples)  # type: ignore[arg-type]


def test_a_shard_may_reach_past_a_small_volume() -> None:
    grid = ShardGrid((1, 1, 1), (64, 64, 64), (128, 64, 64))
    assert list(grid.shards()) == [(0, 0, 0)]
    assert list(grid.chunks_of((0, 0, 0))) == [(0, (0, 0, 0))]
    assert grid.shard_box((0, 0, 0)).voxels == 1


@pytest.mark.parametrize(
    "box",
    [Box((0, 0, 0), (1, 1, 1)), Box((7, 9, 15), (30, 33, 49)), Box((40, 40, 40), (64, 64, 64))],
)
def test_the_chunks_of_a_box_are_those_that_hold_voxels_of_it(box: Box) -> None:
    grid = ShardGrid((50, 60, 61), (8, 4, 16), (32, 32, 32))
    for shard in grid.shards():
        wanted = [
            (slot, chunk)
            for slot, chunk in grid.chunks_of(shard)
            if not grid.chunk_box(chunk).intersect(box).empty
        ]
        assert list(grid.chunks_within(shard, box)) == wanted


def test_keys_are_those_of_zarr_v3() -> None:
    assert shard_key(2, (3, 0, 11)) == "2/c/3/0/11"
