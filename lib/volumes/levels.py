"""The pyramid on paper: the levels of a volume, their shapes, scales, translations and grids.

Level 0 holds the source's voxels. Each next level halves the axes whose voxel is still fine:
an anisotropic volume halves only its finer axes until the voxel is near isotropic. Odd edges
round up, so that nothing is dropped: the last voxel of a level averages what there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lib.geometry import (
    LengthsZYX,
    ShapeZYX,
    ceil_divide,
    floor_divide,
    is_multiple,
    minimum,
    multiply,
    zyx,
)
from lib.volumes.grid import ShardGrid

NEAR_ISOTROPIC = math.sqrt(2)
"""An axis is halved with the finest one while its voxel is less than this times coarser."""

SMALLEST_CHUNK = 16
"""Levels made inside a shard stop before a chunk edge that was longer falls below this."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid.

    ``factor_zyx`` leads from the level above it (the finer one) to this one; ``in_pass`` levels
    are made shard by shard together with level 0, the others afterwards from their neighbour.
    """

    index: int
    factor_zyx: ShapeZYX
    grid: ShardGrid
    scale_nm_zyx: LengthsZYX
    translation_nm_zyx: LengthsZYX
    in_pass: bool


def factor(shape_zyx: ShapeZYX, scale_nm_zyx: LengthsZYX) -> ShapeZYX:
    """Which axes to halve next: those near the finest voxel, if longer than one voxel."""
    usable = [s for s, n in zip(scale_nm_zyx, shape_zyx, strict=True) if n > 1]
    finest = min(usable, default=math.inf)
    return zyx(
        2 if n > 1 and s < finest * NEAR_ISOTROPIC else 1
        for s, n in zip(scale_nm_zyx, shape_zyx, strict=True)
    )


def plan_levels(
    base: ShardGrid, voxel_nm_zyx: LengthsZYX, origin_nm_zyx: LengthsZYX, *, small_enough: int = 64
) -> tuple[Level, ...]:
    """All levels from the full resolution down to one that fits `small_enough` voxels an axis.

    The translation is that of the first voxel's centre (OME-Zarr's convention), so each halving
    shifts it by half of the finer voxel.
    """
    levels = [Level(0, (1, 1, 1), base, voxel_nm_zyx, origin_nm_zyx, in_pass=True)]
    while max(levels[-1].grid.shape_zyx) > small_enough:
        last = levels[-1]
        by = factor(last.grid.shape_zyx, last.scale_nm_zyx)
        if by == (1, 1, 1):
            break
        shape = ceil_divide(last.grid.shape_zyx, by)
        scale = multiply(last.scale_nm_zyx, by)
        shift = zyx(
            t + s * (f - 1) / 2
            for t, s, f in zip(last.translation_nm_zyx, last.scale_nm_zyx, by, strict=True)
        )
        grid = _halved(last.grid, by, shape) if last.in_pass and _even(last, by) else None
        levels.append(
            Level(
                last.index + 1,
                by,
                grid or ShardGrid(shape, base.chunk_zyx, _rest_shard(base.chunk_zyx, shape)),
                scale,
                shift,
                in_pass=grid is not None,
            )
        )
    return tuple(levels)


def _even(last: Level, by: ShapeZYX) -> bool:
    """Whether the next level can be made piece by piece: level 0 comes in chunks, others whole."""
    return last.index > 0 or is_multiple(last.grid.chunk_zyx, by)


def _halved(grid: ShardGrid, by: ShapeZYX, shape: ShapeZYX) -> ShardGrid | None:
    """The next level's grid, one shard for each shard of this one, if its chunks stay usable."""
    if not is_multiple(grid.shard_zyx, by):
        return None
    shard = floor_divide(grid.shard_zyx, by)
    chunk = minimum(grid.chunk_zyx, shard)
    shrunk = any(
        c < before and c < SMALLEST_CHUNK for c, before in zip(chunk, grid.chunk_zyx, strict=True)
    )
    if shrunk or not is_multiple(shard, chunk):
        return None
    return ShardGrid(shape, chunk, shard)


def _rest_shard(chunk: ShapeZYX, shape: ShapeZYX) -> ShapeZYX:
    """Shards of the levels made afterwards: up to four chunks an axis, no more than is there."""
    return multiply(chunk, minimum((4, 4, 4), ceil_divide(shape, chunk)))
