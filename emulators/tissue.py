"""Procedural tissue: what an electron microscope might see, as a function of voxel coordinates.

Cells with dark double membranes, mitochondria with cristae, vesicles, uneven stain, grain. Nothing
is stored: any crop of a volume of any size can be made again, and equals the same part of a
bigger crop bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from emulators import tissue_kernel
from lib.errors import ConfigError

TripleZYX = tuple[int, int, int]

# level 16..4095 -> value, as level * factor + offset; integers spread over a plausible range
_SPREAD: dict[str, tuple[int, int]] = {
    "int16": (5, -12000),
    "uint16": (15, 0),
    "int32": (1000, -2_400_000),
    "uint32": (1000, 0),
}


def tissue(
    origin_zyx: TripleZYX,
    shape_zyx: TripleZYX,
    *,
    seed: int,
    dtype: DTypeLike = "uint8",
    voxel_nm_zyx: tuple[float, float, float] = (8.0, 8.0, 8.0),
) -> NDArray[Any]:
    """Make the voxels of a crop.

    Parameters
    ----------
    origin_zyx
        Absolute coordinate of the crop's first voxel.
    shape_zyx
        Shape of the crop.
    seed
        Which tissue; every seed is another block of it.
    dtype
        8-, 16- or 32-bit integer, ``float32`` or ``float64``. ``uint8`` is never 0, so that
        0 can only mean "no data"; ``int16`` runs from about -12000 to 8500; floats lie in 0..1.
    voxel_nm_zyx
        Voxel size in nanometres; it scales the structures.

    Returns
    -------
    Array of ``shape_zyx`` and ``dtype``, C order.

    Raises
    ------
    ConfigError
        A dtype that no microscope writes.
    """
    kind = np.dtype(dtype)
    levels = np.empty(shape_zyx, np.uint16)
    _fill(levels, origin_zyx, voxel_nm_zyx, seed, labels=False)
    if kind.name == "uint8":
        return (levels >> np.uint16(4)).astype(kind)
    if kind.name == "int8":
        return ((levels >> np.uint16(4)).astype(np.int16) - 128).astype(kind)
    if kind.name in _SPREAD:
        factor, offset = _SPREAD[kind.name]
        return (levels.astype(np.int64) * factor + offset).astype(kind)
    if kind.kind == "f":
        return (levels.astype(np.float64) / 4096.0).astype(kind)
    raise ConfigError(f"no tissue of dtype {kind.name}", location="dtype")


def labels(
    origin_zyx: TripleZYX,
    shape_zyx: TripleZYX,
    *,
    seed: int,
    dtype: DTypeLike = "uint32",
    voxel_nm_zyx: tuple[float, float, float] = (8.0, 8.0, 8.0),
) -> NDArray[Any]:
    """Number the cells of the same crop of the same tissue; membranes are 0.

    Numbers are hashes, below 2**32 and never 0. A narrower ``dtype`` keeps their lower bits, where
    two cells may share a number. Parameters as for :func:`tissue`.
    """
    kind = np.dtype(dtype)
    bodies = np.empty(shape_zyx, np.uint32)
    _fill(bodies, origin_zyx, voxel_nm_zyx, seed, labels=True)
    if kind.itemsize >= 4:
        return bodies.astype(kind)
    narrow = bodies % np.uint32(np.iinfo(kind).max) + np.uint32(1)
    return np.where(bodies == 0, np.uint32(0), narrow).astype(kind)


def pages(
    shape_zyx: TripleZYX,
    *,
    seed: int,
    dtype: DTypeLike = "uint8",
    voxel_nm_zyx: tuple[float, float, float] = (8.0, 8.0, 8.0),
    slab: int = 16,
) -> Iterator[NDArray[Any]]:
    """Yield the planes of a volume that begins at 0, 0, 0, making ``slab`` planes at a time."""
    depth, height, width = shape_zyx
    for z in range(0, depth, slab):
        shape = (min(slab, depth - z), height, width)
        yield from tissue((z, 0, 0), shape, seed=seed, dtype=dtype, voxel_nm_zyx=voxel_nm_zyx)


class RepeatedTissue:
    """An endless volume made of one tile again and again, for benchmarks of many gigabytes.

    Called with an origin and a shape it copies from memory, some forty times as fast as
    :func:`tissue`; tissue and its compressibility stay real inside the tile.

    Parameters
    ----------
    tile_zyx
        Shape of the tile; the volume has this period.
    """

    def __init__(
        self, tile_zyx: TripleZYX = (64, 256, 256), *, seed: int = 1, dtype: DTypeLike = "uint8"
    ) -> None:
        self.tile = tissue((0, 0, 0), tile_zyx, seed=seed, dtype=dtype)

    def __call__(self, origin_zyx: TripleZYX, shape_zyx: TripleZYX) -> NDArray[Any]:
        """Voxels of a crop."""
        z, y, x = (
            np.arange(first, first + count) % period
            for first, count, period in zip(origin_zyx, shape_zyx, self.tile.shape, strict=True)
        )
        voxels: NDArray[Any] = self.tile[z].take(y, axis=1).take(x, axis=2)
        return voxels

    def pages(self, shape_zyx: TripleZYX) -> Iterator[NDArray[Any]]:
        """Yield the planes of the volume's first ``shape_zyx``."""
        for z in range(shape_zyx[0]):
            yield self((z, 0, 0), (1, *shape_zyx[1:]))[0]


def _fill(
    out: NDArray[Any],
    origin_zyx: TripleZYX,
    voxel_nm_zyx: tuple[float, float, float],
    seed: int,
    *,
    labels: bool,
) -> None:
    if 0 in out.shape:
        return
    voxel = np.asarray(voxel_nm_zyx, np.float64)
    # small against a cell, so that few cells meet in a block; longer along rows, which are vectors
    block = np.clip(np.floor(np.array((64.0, 64.0, 128.0)) / voxel + 0.5), 1, 32).astype(np.int64)
    tissue_kernel.fill(out, np.asarray(origin_zyx, np.int64), voxel, block, seed, labels)
