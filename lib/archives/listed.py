"""What an archive, an entry, a folder or a container holds, as rows that a person can read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from lib.formats.format import VolumeDescription
from lib.geometry import ShapeZYX
from lib.plan import VolumePlan
from lib.vocabulary import Kind

What = Literal["archive", "study", "dataset", "entry", "folder", "file", "volume"]

VoxelZYX = tuple[float | None, float | None, float | None]


class Item(BaseModel):
    """One row of a listing, or one hit of a search. What nobody states is None.

    Attributes
    ----------
    address
        Copied behind ``macroscope run`` (a volume) or ``macroscope list`` (everything else).
    what
        A volume, or what holds some.
    shape_zyx, dtype, voxel_nm_zyx
        Of the finest level; nanometres, None on an axis of which nobody says anything.
    levels
        Names of the scale levels, finest first; empty where there is only one.
    nbytes
        Voxels of the finest level, uncompressed; of a study or entry, what its files weigh.
    loadable
        Whether a run can bring it in; None for what only holds volumes.
    why_not
        Why it cannot be, in one sentence.
    unseen
        Of a row that stands for more than is shown: how many files or folders it stands for.
    """

    model_config = ConfigDict(frozen=True)

    address: str
    name: str
    what: What
    kind: Kind | None = None
    shape_zyx: ShapeZYX | None = None
    dtype: str | None = None
    voxel_nm_zyx: VoxelZYX | None = None
    levels: tuple[str, ...] = ()
    nbytes: int | None = None
    size: str | None = None  # as the archive words it, where it gives no number
    title: str | None = None
    organism: str | None = None
    technique: str | None = None
    licence: str | None = None
    loadable: bool | None = None
    why_not: str | None = None
    unseen: int | None = None
    notes: tuple[str, ...] = ()


def described(address: str, name: str, volume: VolumeDescription) -> Item:
    """The row of a volume that a format has described."""
    voxel = (volume.voxel.z_nm, volume.voxel.y_nm, volume.voxel.x_nm)
    about = volume.about
    return Item(
        address=address,
        name=name,
        what="volume",
        kind=volume.kind,
        shape_zyx=volume.shape_zyx,
        dtype=volume.dtype,
        voxel_nm_zyx=None if voxel == (None, None, None) else voxel,
        levels=volume.levels,
        nbytes=voxel_bytes(volume.shape_zyx, volume.dtype),
        title=about.get("title"),
        organism=about.get("organism"),
        technique=about.get("modality"),
        licence=about.get("licence"),
        loadable=volume.refused is None,
        why_not=volume.refused,
        notes=volume.notes,
    )


def planned(plans: Iterable[VolumePlan], address: str) -> list[Item]:
    """The rows of volumes that an archive has planned; `address` brings in all of them."""
    return [planned_row(plan, address) for plan in plans]


def planned_row(plan: VolumePlan, address: str) -> Item:
    """The row of a volume that an archive has planned."""
    return Item(
        address=address,
        name=plan.name,
        what="volume",
        kind=plan.kind,
        shape_zyx=plan.shape_zyx,
        dtype=plan.dtype,
        voxel_nm_zyx=None if plan.voxel_size_provenance == "unknown" else plan.voxel_nm_zyx,
        nbytes=voxel_bytes(plan.shape_zyx, plan.dtype),
        title=plan.about.title,
        organism=plan.about.organism,
        technique=plan.about.modality,
        licence=plan.about.licence,
        loadable=True,
        notes=plan.notes,
    )


def voxel_bytes(shape: ShapeZYX, dtype: str) -> int | None:
    """Bytes of the uncompressed voxels; None for a type that numpy does not know."""
    try:
        return math.prod(shape) * np.dtype(dtype).itemsize
    except TypeError:
        return None


def refused(address: str, name: str, why: str, what: What = "volume") -> Item:
    """The row of something that is there and cannot be brought in."""
    return Item(address=address, name=name, what=what, loadable=False, why_not=why)


def holder(address: str, name: str, what: What, **known: object) -> Item:
    """The row of something that holds volumes."""
    return Item.model_validate({"address": address, "name": name, "what": what, **known})


def more_of(address: str, count: int, what: str, how: str) -> Item:
    """The row for what was not looked into; `how` says by which address it is."""
    said = f"not looked into: {how}"
    return holder(address, f"... and {count} more {what}", "folder", unseen=count, notes=(said,))


def all_of(words: list[str]) -> str:
    """A query that all words must fit; what means something to Lucene is only text here."""
    kept = [re.sub(r'["\\]', " ", word).strip() for word in words]
    quoted = [word if word.isalnum() else f'"{word}"' for word in kept if word]
    return " AND ".join(quoted)
