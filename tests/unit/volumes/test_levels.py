"""The pyramid on paper: which axes are halved, where levels lie, and when to stop."""

from __future__ import annotations

import itertools
import math

import pytest

from lib.geometry import LengthsZYX, ShapeZYX
from lib.volumes.grid import SMALLEST_CHUNK, Level, ShardGrid, factor, plan_levels


def levels(
    shape: ShapeZYX,
    chunk: ShapeZYX = (64, 64, 64),
    shard: ShapeZYX = (128, 128, 128),
    voxel: LengthsZYX = (4.0, 4.0, 4.0),
    origin: LengthsZYX = (0.0, 0.0, 0.0),
    **more: int,
) -> tuple[Level, ...]:
    return plan_levels(ShardGrid(shape, chunk, shard), voxel, origin, **more)


def test_levels_go_on_until_the_volume_fits_one_small_block() -> None:
    found = levels((1000, 700, 300))
    assert [level.grid.shape_zyx for level in found] == [
        (1000, 700, 300),
        (500, 350, 150),
        (250, 175, 75),
        (125, 88, 38),
        (63, 44, 19),
    ]
    assert [level.index for level in found] == [0, 1, 2, 3, 4]
    assert len(levels((64, 64, 64))) == 1
    assert len(levels((65, 1, 1))) == 2
    assert len(levels((32, 32, 32), small_enough=8)) == 3


def test_odd_edges_round_up_so_that_nothing_is_dropped() -> None:
    for shape in ((129, 67, 65), (1, 999, 3), (5, 5, 2049)):
        found = levels(shape)
        for finer, coarser in itertools.pairwise(found):
            assert coarser.grid.shape_zyx == tuple(
                math.ceil(n / f)
                for n, f in zip(finer.grid.shape_zyx, coarser.factor_zyx, strict=True)
            )


def test_an_anisotropic_volume_halves_only_its_finer_axes_until_it_is_near_isotropic() -> None:
    found = levels((60, 2000, 2000), voxel=(40.0, 4.0, 4.0))
    assert [level.factor_zyx for level in found] == [
        (1, 1, 1),
        (1, 2, 2),
        (1, 2, 2),
        (1, 2, 2),
        (2, 2, 2),
        (2, 2, 2),
    ]
    assert found[3].scale_nm_zyx == (40.0, 32.0, 32.0)


def test_axes_closer_than_the_square_root_of_two_are_halved_together() -> None:
    assert factor((9, 9, 9), (2.96, 4.0, 4.0)) == (2, 2, 2)
    assert factor((9, 9, 9), (2.8, 4.0, 4.0)) == (2, 1, 1)
    assert factor((9, 9, 9), (4.0, 8.0, 8.0)) == (2, 1, 1)


def test_an_axis_of_one_voxel_is_never_halved_and_does_not_hold_the_others_back() -> None:
    assert factor((1, 9, 9), (1.0, 40.0, 40.0)) == (1, 2, 2)
    assert factor((1, 1, 1), (4.0, 4.0, 4.0)) == (1, 1, 1)
    found = levels((1, 500, 500), (1, 64, 64), (1, 512, 512))
    assert all(level.grid.shape_zyx[0] == 1 for level in found)
    assert found[-1].grid.shape_zyx == (1, 63, 63)


def test_each_level_lies_where_the_centre_of_its_first_voxel_is() -> None:
    found = levels((500, 500, 500), voxel=(2.0, 3.0, 4.0), origin=(100.0, 200.0, -300.0))
    for level in found:
        total = [s / v for s, v in zip(level.scale_nm_zyx, (2.0, 3.0, 4.0), strict=True)]
        expected = tuple(
            o + v * (t - 1) / 2
            for o, v, t in zip((100.0, 200.0, -300.0), (2.0, 3.0, 4.0), total, strict=True)
        )
        assert level.translation_nm_zyx == pytest.approx(expected)
    assert found[1].factor_zyx == (2, 1, 1)
    assert found[1].translation_nm_zyx == (101.0, 200.0, -300.0)
    assert found[2].factor_zyx == (2, 2, 2)


def test_levels_made_with_a_shard_have_one_shard_for_each_of_it() -> None:
    found = levels((1000, 1000, 1000), (64, 64, 64), (256, 256, 256))
    made = [level for level in found if level.in_pass]
    assert [level.grid.shard_zyx[0] for level in made] == [256, 128, 64, 32, 16]
    assert [level.grid.chunk_zyx[0] for level in made] == [64, 64, 64, 32, 16]
    assert all(level.grid.counts_zyx == found[0].grid.counts_zyx for level in made)
    assert min(made[-1].grid.chunk_zyx) >= SMALLEST_CHUNK


def test_once_a_level_is_made_afterwards_all_coarser_ones_are() -> None:
    found = levels((5000, 5000, 5000))
    flags = [level.in_pass for level in found]
    assert flags == sorted(flags, reverse=True)
    assert not flags[-1]
    rest = next(level for level in found if not level.in_pass)
    assert rest.grid.chunk_zyx == (64, 64, 64)
    assert rest.grid.shard_zyx == (256, 256, 256)


@pytest.mark.parametrize("chunk", [(1, 64, 64), (25, 64, 64), (64, 7, 64), (64, 64, 33)])
def test_a_first_level_of_odd_chunks_is_not_made_chunk_by_chunk(chunk: ShapeZYX) -> None:
    shard = tuple(4 * c for c in chunk)
    found = levels((200, 200, 200), chunk, shard)  # type: ignore[arg-type]
    assert not found[1].in_pass


def test_a_voxel_size_of_nothing_gives_one_level() -> None:
    assert len(levels((500, 500, 500), voxel=(0.0, 0.0, 0.0))) == 1
