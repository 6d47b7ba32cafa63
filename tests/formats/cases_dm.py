"""Digital Micrograph: a stack in one file, and sections of one each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from emulators.dm import Section, write_dm
from tests.formats.case import Case
from tests.kit.volume_kit import random_voxels

SHAPE = (7, 24, 31)


def stack(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint16", 21)
    write_dm(folder / "a.dm4", voxels, version=4, pixel_size_zyx=(50.0, 8.0, 8.0), unit="nm")
    return voxels


def sections(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "int16", 22)
    for z, plane in enumerate(voxels):
        write_dm(
            folder / f"slice_{z:04d}.dm3",
            plane,
            pixel_size_zyx=(8.0, 8.0),
            unit="nm",
            section=Section(z),
        )
    return voxels


CASES = [
    Case("dm-stack", stack, "a.dm4", expect={"voxel_nm_zyx": (50.0, 8.0, 8.0)}),
    Case("dm-sections", sections, "", expect={"voxel_nm_zyx": (50.0, 8.0, 8.0)}),
]
