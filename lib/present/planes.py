"""The three orthogonal middle planes of a volume, read from as coarse a level as will do.

Bounded however large the volume is: an OME-Zarr gives at most about `READ_BYTES`,
a ``.npy`` at most `MOST_PIXELS` rows and columns of each plane. Beneath labels their image is read,
in grey: both lie on one grid, so the nearest voxel of the image is the right one.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import DestinationError
from lib.geometry import Box, LengthsZYX, ShapeZYX, unlike, zyx
from lib.present.described import DescribedLevel, DescribedVolume, describe
from lib.present.drawing import grey, measured, window_of
from lib.storage.base import Store
from lib.volumes.grid import ShardGrid

READ_BYTES = 24 * 2**20
MOST_PIXELS = 512
AXES = {"xy": 0, "xz": 1, "yz": 2}
"""Each plane and the axis (of z, y, x) that it cuts across."""


@dataclass(frozen=True, slots=True)
class Planes:
    """The middle planes.

    ``xy`` has shape (y, x), ``xz`` (z, x), ``yz`` (z, y); ``extent_nm_zyx`` is the whole volume's
    size, in voxels where the voxel size is unknown. ``level`` is the OME-Zarr level read.
    """

    xy: NDArray[Any]
    xz: NDArray[Any]
    yz: NDArray[Any]
    extent_nm_zyx: LengthsZYX
    level: int = 0

    def values(self) -> NDArray[Any]:
        """All voxels of the three planes, flat."""
        return np.concatenate([plane.reshape(-1) for plane in (self.xy, self.xz, self.yz)])


def read_planes(store: Store, volume: DescribedVolume) -> Planes:
    """Read the middle planes of a volume.

    Raises
    ------
    IntegrityError
        A shard is absent or damaged.
    DestinationError
        A ``.npy`` lies on an object store, where it cannot be mapped.
    """
    if volume.levels:
        level = choose_level(volume, most_pixels=2 * MOST_PIXELS)
        reader = volume.open_level(store, level)
        xy, xz, yz = (
            reader.read(box).squeeze(axis) for axis, box in enumerate(_boxes(level.grid.shape_zyx))
        )
        index = level.index
    else:
        xy, xz, yz = _mapped_planes(store, volume)
        index = 0
    voxel = volume.voxel_nm_zyx or (1.0, 1.0, 1.0)
    z, y, x = (n * v for n, v in zip(volume.shape_zyx, voxel, strict=True))
    return Planes(xy, xz, yz, (z, y, x), index)


def choose_level(volume: DescribedVolume, *, most_pixels: int) -> DescribedLevel:
    """The finest level that is cheap enough to read and not finer than a screen shows."""
    for level in volume.levels[:-1]:
        chunk = math.prod(level.grid.chunk_zyx) * volume.dtype.itemsize
        if volume.kind == "labels":
            chunk //= 8  # labels are stored in a few per cent of their size
        small = max(level.grid.shape_zyx) <= most_pixels
        if small and chunks_touched(level.grid) * chunk <= READ_BYTES:
            return level
    return volume.levels[-1]


def chunks_touched(grid: ShardGrid) -> int:
    """Chunks that reading the three middle planes decodes (some of them twice)."""
    z, y, x = (math.ceil(n / c) for n, c in zip(grid.shape_zyx, grid.chunk_zyx, strict=True))
    return y * x + z * x + z * y


def _boxes(shape_zyx: ShapeZYX) -> list[Box]:
    boxes = []
    for axis in AXES.values():
        start = zyx(n // 2 if at == axis else 0 for at, n in enumerate(shape_zyx))
        stop = zyx(n // 2 + 1 if at == axis else n for at, n in enumerate(shape_zyx))
        boxes.append(Box(start, stop))
    return boxes


def _mapped_planes(store: Store, volume: DescribedVolume) -> list[NDArray[Any]]:
    path = store.local_path(volume.key)
    if path is None:
        raise DestinationError(
            "a .npy on an object store cannot be mapped", location=volume.key, advice="Copy it here"
        )
    voxels = np.memmap(path, volume.dtype, "r", volume.npy_offset, volume.shape_zyx)
    pages: mmap.mmap = voxels._mmap  # type: ignore[attr-defined]
    # planes across the rows touch one page for each row: reading ahead would fetch the whole file
    pages.madvise(mmap.MADV_RANDOM)
    zs, ys, xs = (range(0, n, max(1, math.ceil(n / MOST_PIXELS))) for n in volume.shape_zyx)
    z, y, x = (n // 2 for n in volume.shape_zyx)
    xy = np.array(voxels[z, ys.start : ys.stop : ys.step, xs.start : xs.stop : xs.step])
    xz = np.empty((len(zs), len(xs)), volume.dtype)
    yz = np.empty((len(zs), len(ys)), volume.dtype)
    for row, at in enumerate(zs):
        xz[row] = voxels[at, y, xs.start : xs.stop : xs.step]
        yz[row] = voxels[at, ys.start : ys.stop : ys.step, x]
        pages.madvise(mmap.MADV_DONTNEED)  # else the whole file counts as this process's memory
    return [xy, xz, yz]


def planes_beneath(
    store: Store, labels: DescribedVolume, planes: Planes, key: str | None
) -> Planes | None:
    """The image's planes, uint8, of the shapes of `planes`; None where labels have no image.

    What the image does not have is black.

    Parameters
    ----------
    key
        Of the image, if there is one.

    Raises
    ------
    NotFoundError, IntegrityError, UnsupportedFormatError
        The image cannot be read.
    """
    if key is None or not labels.levels:
        return None
    image, level = describe(store, key), labels.levels[planes.level]
    near = min(image.levels, key=lambda one: unlike(one.scale_nm_zyx, level.scale_nm_zyx))
    places = [_nearest(n, level, near) for n in range(3)]
    found = {}
    for name, axis in AXES.items():
        middle = level.grid.shape_zyx[axis] // 2
        chosen = [at[middle : middle + 1] if n == axis else at for n, at in enumerate(places)]
        found[name] = _read(store, image, near, chosen).squeeze(axis)
    values = np.concatenate([plane.reshape(-1) for plane in found.values()])
    window = image.window or window_of(measured(values))
    xy, xz, yz = (grey(found[name], window) for name in ("xy", "xz", "yz"))
    return replace(planes, xy=xy, xz=xz, yz=yz)


def _nearest(axis: int, labels: DescribedLevel, image: DescribedLevel) -> NDArray[np.int64]:
    """For each voxel of the labels along an axis the image's; none of its own outside of it."""
    at = labels.translation_nm_zyx[axis] + labels.scale_nm_zyx[axis] * np.arange(
        labels.grid.shape_zyx[axis]
    )
    steps = (at - image.translation_nm_zyx[axis]) / image.scale_nm_zyx[axis]
    nearest: NDArray[np.int64] = np.floor(steps + 0.5).astype(np.int64)
    return nearest


def _read(
    store: Store,
    image: DescribedVolume,
    level: DescribedLevel,
    places: Sequence[NDArray[np.int64]],
) -> NDArray[Any]:
    """The image's voxels at some places along each axis; 0 where there is none."""
    inside = [(at >= 0) & (at < n) for at, n in zip(places, level.grid.shape_zyx, strict=True)]
    voxels = np.zeros(tuple(len(at) for at in places), image.dtype)
    if not all(one.any() for one in inside):
        return voxels
    kept = [at[one] for at, one in zip(places, inside, strict=True)]
    box = Box(zyx(int(at.min()) for at in kept), zyx(int(at.max()) + 1 for at in kept))
    part = image.open_level(store, level).read(box)
    own = [at - start for at, start in zip(kept, box.start_zyx, strict=True)]
    voxels[np.ix_(*inside)] = part[np.ix_(*own)]
    return voxels
