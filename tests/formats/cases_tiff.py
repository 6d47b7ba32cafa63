"""TIFF: one file of many pages, as different writers make it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tifffile
from case import Case
from numpy.typing import NDArray
from volume_kit import random_voxels

SHAPE = (9, 37, 53)


def imagej(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint16", 1)
    tifffile.imwrite(
        folder / "stack.tif",
        voxels[:, None],
        imagej=True,
        metadata={"axes": "ZCYX", "spacing": 40.0, "unit": "nm"},
        resolution=(1 / 4, 1 / 4),
    )
    return voxels


def bigtiff_tiles(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint8", 2)
    tifffile.imwrite(
        folder / "tiles.btf", voxels, bigtiff=True, tile=(16, 32), compression="deflate"
    )
    return voxels


CASES = [
    Case("tiff-imagej", imagej, "stack.tif", expect={"voxel_nm_zyx": (40.0, 4.0, 4.0)}),
    Case("tiff-bigtiff-tiles", bigtiff_tiles, "tiles.btf|tiff:"),
]
