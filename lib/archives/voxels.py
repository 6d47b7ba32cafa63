"""One voxel size out of what the file says and what the archive's catalogue says."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lib.formats.calibration import VoxelSize
from lib.geometry import LengthsZYX

UNKNOWN_NM = 1.0
"""Stands for a length that neither the file nor the catalogue gives; marked wherever it is used."""

CatalogueZYX = tuple[float | None, float | None, float | None]


@dataclass(frozen=True, slots=True)
class Voxel:
    """The voxel size to go on with, where it came from, and what is doubtful about it."""

    nm_zyx: LengthsZYX
    provenance: str
    approximate: bool
    notes: tuple[str, ...]


def decide_voxel(file: VoxelSize, catalogue_nm_zyx: CatalogueZYX, catalogue: str) -> Voxel:
    """Axis by axis: the file's length, else the catalogue's, else `UNKNOWN_NM`.

    The file wins, and each disagreement is noted.

    Parameters
    ----------
    catalogue
        What the catalogue is called in notes.
    """
    own = (file.z_nm, file.y_nm, file.x_nm)
    notes, unknown, sources = [], [], []
    lengths: list[float] = []
    for axis, in_file, stated in zip("zyx", own, catalogue_nm_zyx, strict=True):
        if in_file is not None:
            lengths.append(in_file)
            sources.append("file")
            if stated is not None and not math.isclose(in_file, stated, rel_tol=1e-6):
                notes.append(
                    f"voxel size along {axis}: {catalogue} says {stated:g} nm, the file "
                    f"{in_file:g} nm; the file's was taken"
                )
        elif stated is not None:
            lengths.append(stated)
            sources.append("api")
        else:
            lengths.append(UNKNOWN_NM)
            unknown.append(axis)
    provenance = " and ".join(sorted(set(sources), reverse=True))
    if unknown:
        axes = ", ".join(unknown)
        notes.append(
            f"voxel size along {axes}: neither file nor {catalogue} gives it; {UNKNOWN_NM:g} nm "
            "stands in its place"
        )
        provenance = f"{provenance}, {axes} unknown" if provenance else "unknown"
    z, y, x = lengths
    return Voxel((z, y, x), provenance, bool(unknown), tuple(notes))
