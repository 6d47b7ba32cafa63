"""MRC: plain, permuted, and compressed as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from emulators.mrc import write_mrc
from tests.formats.case import EVERYWHERE, Case
from tests.kit.volume_kit import random_voxels

SHAPE = (11, 23, 36)


def plain(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "int16", 11)
    write_mrc(folder / "a.mrc", voxels, voxel_nm_zyx=(20.0, 4.0, 4.0))
    return voxels


def permuted(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "float32", 12)
    write_mrc(folder / "a.rec", voxels, voxel_nm_zyx=(20.0, 4.0, 4.0), permuted=True)
    return voxels


def packed(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint16", 13)
    write_mrc(folder / "a.mrc.gz", voxels, voxel_nm_zyx=(20.0, 4.0, 4.0))
    return voxels


def sections(folder: Path) -> NDArray[Any]:
    voxels = random_voxels((6, 23, 36), "int16", 14)
    for z, plane in enumerate(voxels):
        write_mrc(folder / f"s_{z:02d}.mrc", plane[None], voxel_nm_zyx=(20.0, 4.0, 4.0))
    return voxels


CASES = [
    Case("mrc-plain", plain, "a.mrc", expect={"voxel_nm_zyx": (20.0, 4.0, 4.0)}),
    Case("mrc-permuted", permuted, "a.rec|mrc:", EVERYWHERE),
    Case("mrc-gz", packed, "a.mrc.gz"),
    Case("mrc-sections", sections, "|mrc:"),
]
