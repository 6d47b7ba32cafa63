"""The shard grid: which shards a level has, which chunks a shard has, and nothing across.

A shard is the unit of work, of retry, of digest and of ledger entry. Boxes of different shards
never overlap, so two workers can never write the same file; a write that is not exactly one shard
cannot be expressed here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from lib.errors import ConfigError
from lib.geometry import (
    Box,
    ShapeZYX,
    add,
    ceil_divide,
    floor_divide,
    is_multiple,
    minimum,
    multiply,
    subtract,
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
