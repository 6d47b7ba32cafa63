"""Starting at a coarser level: voxels pooled on the way, before anything is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.config.loaders import LoaderConfig
from lib.errors import ConfigError
from lib.formats.base import Block, VolumeReader
from lib.geometry import Box, ShapeZYX, minimum, multiply, zyx
from lib.plan import VolumePlan
from lib.volumes import kernels
from lib.volumes.grid import factor
from lib.volumes.rechunk import gather

GATHER_BYTES = 64 * 2**20
"""Source voxels that one worker holds, at most, beside the shard that it makes of them."""


def fit_plan(plan: VolumePlan, config: LoaderConfig) -> VolumePlan | None:
    """Apply ``large_array_mode``: the plan, a coarser one, or None for a volume to be skipped."""
    raw_bytes = math.prod(plan.shape_zyx) * np.dtype(plan.dtype).itemsize
    if config.large_array_mode == "stream" or raw_bytes <= config.max_array_size_mb * 1e6:
        return plan
    if config.large_array_mode == "skip":
        return None
    return coarser(plan, config.downsample_factor)


def coarser(plan: VolumePlan, by: int) -> VolumePlan:
    """The plan of the same volume, its finest axes `by` times coarser (a power of two).

    Axes follow the rule of the pyramid: the coarser axes of an anisotropic volume wait until the
    others have caught up.
    """
    if by < 2 or by & (by - 1):
        raise ConfigError(f"{by} is no power of two above one", location="downsample_factor")
    shape, voxel, origin = plan.shape_zyx, plan.voxel_nm_zyx, plan.origin_nm_zyx
    steps = []
    for _ in range(by.bit_length() - 1):
        step = factor(shape, voxel)
        shape = kernels.pooled_shape(shape, step)
        origin = zyx(o + v * (f - 1) / 2 for o, v, f in zip(origin, voxel, step, strict=True))
        voxel = multiply(voxel, step)
        steps.append(step)
    return plan.model_copy(
        update={
            "name": f"{plan.name}_by{by}",
            "shape_zyx": shape,
            "voxel_nm_zyx": voxel,
            "origin_nm_zyx": origin,
            "downsample_steps": tuple(steps),
            "notes": (*plan.notes, f"made {by} times coarser than the source on the way"),
        }
    )


class CoarseReader(VolumeReader):
    """Pools another reader's voxels, step by step as the pyramid would."""

    def __init__(self, reader: VolumeReader, plan: VolumePlan) -> None:
        self._reader = reader
        self._steps = plan.downsample_steps
        self._by = zyx(math.prod(axis) for axis in zip(*self._steps, strict=True))
        self._labels = plan.labels
        self.shape_zyx = plan.shape_zyx
        self.dtype = reader.dtype
        chunk = kernels.pooled_shape(reader.layout.chunk_zyx, self._by)
        self.layout = replace(reader.layout, chunk_zyx=chunk, max_tile_zyx=None)

    def blocks(self, box: Box) -> Iterator[Block]:
        """Pool tiles whose source voxels fit a bounded buffer."""
        for tile in box.tiles(self._tile(box.shape_zyx)):
            start, stop = (multiply(at, self._by) for at in (tile.start_zyx, tile.stop_zyx))
            source = Box(start, minimum(stop, self._reader.shape_zyx))
            voxels: NDArray[Any] = np.empty(source.shape_zyx, self.dtype)
            missing = gather(self._reader.blocks(source), source, voxels)
            yield Block(tile, self._pooled(voxels), tuple(missing))

    def _tile(self, shape: ShapeZYX) -> ShapeZYX:
        tile = list(shape)
        while math.prod(tile) * math.prod(self._by) * self.dtype.itemsize > GATHER_BYTES:
            axis = tile.index(max(tile))
            tile[axis] = -(-tile[axis] // 2)
        return (tile[0], tile[1], tile[2])

    def _pooled(self, voxels: NDArray[Any]) -> NDArray[Any]:
        for step in self._steps:
            target = np.empty(kernels.pooled_shape(zyx(voxels.shape), step), self.dtype)
            kernels.pool(voxels, step, target, labels=self._labels)
            voxels = target
        return voxels
