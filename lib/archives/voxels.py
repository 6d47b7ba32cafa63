"""One voxel size and one place, out of what the file says and what the archive's catalogue says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from lib.about import Provenance, Source
from lib.formats.format import Origin, VoxelSize
from lib.geometry import LengthsZYX

UNKNOWN_NM = 1.0
"""Stands for a length that neither the file nor the catalogue gives; marked wherever it is used."""

_STANDS_IN = "stands in its place"
_ORDER: tuple[Source, ...] = ("file", "assumed", "api", "name")

CatalogueZYX = tuple[float | None, float | None, float | None]


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody beside the file and the catalogue says of a voxel's lengths.

    Attributes
    ----------
    nm_zyx
        None on an axis of which nothing is said.
    where
        Who says it, in words: ``'xy5z8nm' in 'hela_xy5z8nm'``.
    tolerance
        Relative difference to another's length that is no disagreement.
    """

    nm_zyx: CatalogueZYX
    source: Source
    where: str
    tolerance: float = 1e-6


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


def stands_in(note: str) -> bool:
    """Whether a note says that `UNKNOWN_NM` stands for a length."""
    return note.endswith(_STANDS_IN)


def decide_voxel(
    file: VoxelSize,
    catalogue_nm_zyx: CatalogueZYX,
    catalogue: str,
    origin: Origin | None = None,
    further: Sequence[Claim] = (),
) -> Voxel:
    """Axis by axis: the file's length, else the catalogue's, else others', else `UNKNOWN_NM`.

    The file wins, unless its length is a default or was read in a unit that it does not state, and
    each disagreement is noted. A length that nobody states is approximate, and
    so is a place counted in voxels of such a length.

    Parameters
    ----------
    catalogue
        What the catalogue is called in notes.
    origin
        Where the file puts the first voxel.
    further
        What else is said, the most trusted first.
    """
    own = (file.z_nm, file.y_nm, file.x_nm)
    notes, unknown = [], []
    sources: list[Source] = []
    lengths: list[float] = []
    stated: dict[str, Provenance] = {}
    for n, axis in enumerate("zyx"):
        in_file, said = own[n], catalogue_nm_zyx[n]
        claims = [] if said is None else [Claim(catalogue_nm_zyx, "api", catalogue)]
        claims += [claim for claim in further if claim.nm_zyx[n] is not None]
        if in_file is not None and axis in file.assumed and claims:
            claims.append(Claim(own, "assumed", file.provenance or "the file", tolerance=0.01))
            in_file = None
        if in_file is not None:
            lengths.append(in_file)
            sources.append("assumed" if axis in file.assumed else "file")
            by = Provenance(source=sources[-1], where=file.provenance)
            notes += _disagreements(axis, in_file, "the file", claims, n)
        elif claims:
            first, *rest = claims
            lengths.append(first.nm_zyx[n] or UNKNOWN_NM)
            sources.append(first.source)
            by = Provenance(source=first.source, where=first.where)
            notes += _disagreements(axis, lengths[-1], first.where, rest, n)
        else:
            lengths.append(UNKNOWN_NM)
            unknown.append(axis)
            by = Provenance(source="assumed")
        stated[f"voxel_size_nm.{axis}"] = by
    provenance = " and ".join(s for s in _ORDER if s in sources)
    if unknown:
        axes = ", ".join(unknown)
        notes.append(
            f"voxel size along {axes}: neither file nor {catalogue} gives it; {UNKNOWN_NM:g} nm "
            + _STANDS_IN
        )
        provenance = f"{provenance}, {axes} unknown" if provenance else "unknown"
    z, y, x = lengths
    place = origin or Origin()
    for axis in place.axes if place.stated else "":
        stated[f"translation.{axis}"] = Provenance(source="file", where=place.provenance)
    at = place.at((z, y, x))
    doubtful = bool(unknown) or "assumed" in sources
    return Voxel((z, y, x), provenance, doubtful, tuple(notes), at, stated)


def _disagreements(axis: str, taken: float, who: str, claims: Sequence[Claim], n: int) -> list[str]:
    """What others say of an axis, where it is not what was taken."""
    whose = "the file's" if who == "the file" else f"that of {who}"
    return [
        f"voxel size along {axis}: {claim.where} says {said:g} nm, {who} {taken:g} nm; {whose} was "
        "taken"
        for claim in claims
        if (said := claim.nm_zyx[n]) is not None
        and not math.isclose(taken, said, rel_tol=claim.tolerance)
    ]
