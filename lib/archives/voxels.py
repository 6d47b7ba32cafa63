"""One voxel size and one place, out of what the file says and what the archive's catalogue says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lib.formats.calibration import Origin, VoxelSize
from lib.geometry import LengthsZYX
from lib.provenance import Provenance, Source

UNKNOWN_NM = 1.0
"""Stands for a length that neither the file nor the catalogue gives; marked wherever it is used."""

CatalogueZYX = tuple[float | None, float | None, float | None]


@dataclass(frozen=True, slots=True)
class Voxel:
    """The voxel size to go on with, where it came from, and what is doubtful about it.

    Attributes
    ----------
    origin_nm_zyx
        Centre of the first voxel; zero where nobody says where it lies.
    stated
        Who states which length of which axis, in the record's words (``voxel_size_nm.z``,
        ``translation.x``).
    """

    nm_zyx: LengthsZYX
    provenance: str
    approximate: bool
    notes: tuple[str, ...]
    origin_nm_zyx: LengthsZYX = (0.0, 0.0, 0.0)
    stated: dict[str, Provenance] = field(default_factory=dict)


def decide_voxel(
    file: VoxelSize,
    catalogue_nm_zyx: CatalogueZYX,
    catalogue: str,
    origin: Origin | None = None,
) -> Voxel:
    """Axis by axis: the file's length, else the catalogue's, else `UNKNOWN_NM`.

    The file wins, and each disagreement is noted. A length that nobody states is approximate, and
    so is a place counted in voxels of such a length.

    Parameters
    ----------
    catalogue
        What the catalogue is called in notes.
    origin
        Where the file puts the first voxel.
    """
    own = (file.z_nm, file.y_nm, file.x_nm)
    notes, unknown = [], []
    sources: list[Source] = []
    lengths: list[float] = []
    stated: dict[str, Provenance] = {}
    for axis, in_file, said in zip("zyx", own, catalogue_nm_zyx, strict=True):
        if in_file is not None:
            lengths.append(in_file)
            sources.append("assumed" if axis in file.assumed else "file")
            by = Provenance(source=sources[-1], where=file.provenance)
            if said is not None and not math.isclose(in_file, said, rel_tol=1e-6):
                notes.append(
                    f"voxel size along {axis}: {catalogue} says {said:g} nm, the file "
                    f"{in_file:g} nm; the file's was taken"
                )
        elif said is not None:
            lengths.append(said)
            sources.append("api")
            by = Provenance(source="api", where=catalogue)
        else:
            lengths.append(UNKNOWN_NM)
            unknown.append(axis)
            by = Provenance(source="assumed")
        stated[f"voxel_size_nm.{axis}"] = by
    provenance = " and ".join(s for s in ("file", "assumed", "api") if s in sources)
    if unknown:
        axes = ", ".join(unknown)
        notes.append(
            f"voxel size along {axes}: neither file nor {catalogue} gives it; {UNKNOWN_NM:g} nm "
            "stands in its place"
        )
        provenance = f"{provenance}, {axes} unknown" if provenance else "unknown"
    z, y, x = lengths
    place = origin or Origin()
    for axis in place.axes if place.stated else "":
        stated[f"translation.{axis}"] = Provenance(source="file", where=place.provenance)
    at = place.at((z, y, x))
    doubtful = bool(unknown) or "assumed" in sources
    return Voxel((z, y, x), provenance, doubtful, tuple(notes), at, stated)
