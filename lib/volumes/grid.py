"""The grid of shards, and the pyramid on paper: the shards of a level, the levels of a volume.

A shard is the unit of work, of retry, of digest and of ledger entry. Boxes of different shards
never overlap, so two workers can never write the same file; a write that is not exactly one shard
cannot be expressed here.

Level 0 holds the source's voxels. Each next level halves the axes whose voxel is still fine:
an anisotropic volume halves only its finer axes until the voxel is near isotropic. Odd edges
round up, so that nothing is dropped: the last voxel of a level averages what there is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from lib.errors import ConfigError
from lib.geometry import (
    Box,
    LengthsZYX,
    ShapeZYX,
    add,
    ceil_divide,
    floor_divide,
    is_multiple,
    minimum,
    multiply,
    subtract,
    zyx,
)


@dataclass(frozen=True, slots=True)
class ShardGrid:
    """The regular grid of one level.

    Attributes
    ----------
    shape_zyx
        Voxels of the level.
    chunk_zyx
        Inner chunk: the smallest piece that is compressed as a whole.
    shard_zyx
        Shard: a whole number of chunks along each axis; may reach past the level's edge.

    Raises
    ------
    ConfigError
        A shard is not a whole number of chunks, or something is not positive.
    """

    shape_zyx: ShapeZYX
    chunk_zyx: ShapeZYX
    shard_zyx: ShapeZYX

    def __post_init__(self) -> None:
        if min(*self.shape_zyx, *self.chunk_zyx, *self.shard_zyx) < 1:
            raise ConfigError(f"shape, chunk and shard must be positive, not {self}")
        if not is_multiple(self.shard_zyx, self.chunk_zyx):
            raise ConfigError(
                f"shard {self.shard_zyx} is not a whole number of chunks {self.chunk_zyx}",
                location="chunk_zyx",
            )

    @property
    def counts_zyx(self) -> ShapeZYX:
        """Shards along each axis."""
        return ceil_divide(self.shape_zyx, self.shard_zyx)

    @property
    def chunks_per_shard_zyx(self) -> ShapeZYX:
        return floor_divide(self.shard_zyx, self.chunk_zyx)

    def __len__(self) -> int:
        return math.prod(self.counts_zyx)

    def shards(self) -> Iterator[ShapeZYX]:
        """Indices of all shards in C order."""
        z, y, x = self.counts_zyx
        yield from itertools.product(range(z), range(y), range(x))

    def shard_box(self, index_zyx: ShapeZYX) -> Box:
        """The voxels of one shard, cut at the level's edge."""
        return self._box(index_zyx, self.shard_zyx)

    def chunk_box(self, index_zyx: ShapeZYX) -> Box:
        """The voxels of one chunk of the whole level's chunk grid, cut at the level's edge."""
        return self._box(index_zyx, self.chunk_zyx)

    def chunks_of(self, index_zyx: ShapeZYX) -> Iterator[tuple[int, ShapeZYX]]:
        """Chunks of a shard that hold voxels: slot in the shard's index (C order), chunk index."""
        return self.chunks_within(index_zyx, self.shard_box(index_zyx))

    def chunks_within(self, index_zyx: ShapeZYX, box: Box) -> Iterator[tuple[int, ShapeZYX]]:
        """Those of `chunks_of` that hold voxels of a box."""
        per_shard = self.chunks_per_shard_zyx
        first = multiply(index_zyx, per_shard)
        for chunk in self.shard_box(index_zyx).intersect(box).cells(self.chunk_zyx).indices():
            z, y, x = subtract(chunk, first)
            yield (z * per_shard[1] + y) * per_shard[2] + x, chunk

    def _box(self, index_zyx: ShapeZYX, step_zyx: ShapeZYX) -> Box:
        start = multiply(index_zyx, step_zyx)
        box = Box(start, minimum(add(start, step_zyx), self.shape_zyx))
        if box.empty or min(index_zyx) < 0:
            raise IndexError(f"{index_zyx} lies outside the grid of {self.counts_zyx}")
        return box


def shard_key(level: int, index_zyx: ShapeZYX) -> str:
    """Where a shard lies inside its OME-Zarr: Zarr v3's default chunk key, ``/`` between."""
    return f"{level}/c/{index_zyx[0]}/{index_zyx[1]}/{index_zyx[2]}"


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
        # the next level can be made piece by piece: level 0 comes in chunks, others whole
        even = last.index > 0 or is_multiple(last.grid.chunk_zyx, by)
        grid = _halved(last.grid, by, shape) if last.in_pass and even else None
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
