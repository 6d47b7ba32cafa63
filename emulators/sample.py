"""One volume of a stand-in archive: where it lies, what it is, how to make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from emulators.tissue import tissue

TripleZYX = tuple[int, int, int]
VoxelNM = tuple[float, float, float]
Crop = Callable[[TripleZYX, TripleZYX], NDArray[Any]]


@dataclass(frozen=True)
class Sample:
    """One volume.

    Parameters
    ----------
    key
        Archive and name, such as ``idr/9846137``.
    paths
        Its files (or its array's folder), relative to the root of the stand-in's trees.
    dtype, shape_zyx
        As stored.
    voxel_nm_zyx
        ``None`` where neither file nor catalogue tells.
    crop
        Voxels of (origin, shape), both z, y, x.
    write
        Lays the files down below a root; ``None`` where another sample's ``write`` does.
    """

    key: str
    paths: tuple[str, ...]
    shape_zyx: TripleZYX
    dtype: str
    voxel_nm_zyx: VoxelNM | None
    crop: Crop
    write: Callable[[Path], None] | None = None

    @property
    def archive(self) -> str:
        """Registry name of the archive."""
        return self.key.partition("/")[0]

    def truth(self) -> NDArray[Any]:
        """All voxels."""
        return self.crop((0, 0, 0), self.shape_zyx)


def tissue_crop(seed: int, dtype: str, voxel_nm_zyx: VoxelNM | None) -> Crop:
    """Crops of one block of tissue."""
    voxel = voxel_nm_zyx or (8.0, 8.0, 8.0)

    def crop(origin_zyx: TripleZYX, shape_zyx: TripleZYX) -> NDArray[Any]:
        return tissue(origin_zyx, shape_zyx, seed=seed, dtype=dtype, voxel_nm_zyx=voxel)

    return crop
