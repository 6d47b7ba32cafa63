"""What a DVID server says of its data instances: type, extents, voxel size, scales, repository.

Of all of them ``/api/repos/info`` and ``/api/repo/{uuid}/info`` tell: ``{repository: {"Alias",
"Description", "Root", "DataInstances": {name: {"Base", "Extended"}}}}``; the second answers with
the inner object alone. Triples are x, y, z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import Field

from lib import vocabulary
from lib.about import About, Provenance
from lib.archives.listed import Item, voxel_bytes
from lib.errors import (
    BadAnswerError,
    MacroscopeError,
    NotFoundError,
    RequestRefusedError,
    UnsupportedFormatError,
)
from lib.formats.dvid import BLOCK
from lib.geometry import Box, LengthsZYX, ShapeZYX, ceil_divide, floor_divide, multiply, to_nm
from lib.safety import reading
from lib.transport.session import Session

ARCHIVE, SERVICE = "flyem", "dvid"
_LABELS = ("labelmap", "labelarray")

HEMIBRAIN = "a89eb3af216a46cdba81204d8f954786"  # the repository of the hemibrain's grayscale
ABOUT = About(
    title="hemibrain grayscale",
    description="Crop of the hemibrain of an adult fruit fly",
    modality="FIB-SEM",
    organism="Drosophila melanogaster",
    specimen="central brain of an adult female",
    authors=("Scheffer et al.",),
    licence="CC-BY-4.0",
    citation="Scheffer et al. 2020, eLife 9:e57443",
    doi="10.7554/eLife.57443",
    origin=Provenance(
        source="archive", where="https://www.janelia.org/project-team/flyem/hemibrain"
    ),
)


@dataclass(frozen=True, slots=True)
class Instance:
    """What ``info`` says, in z, y, x and nanometres."""

    extents: Box
    voxel_nm_zyx: LengthsZYX
    background: int
    data_uuid: str
    repository: str = ""
    united: bool = field(default=True, compare=False)  # whether the voxel size has a unit
    type_name: str = "uint8blk"
    scales: int = 1  # how many there are, the finest included

    @property
    def about(self) -> About:
        """What is known of the specimen: of the hemibrain all, of another repository nothing."""
        return ABOUT if self.repository == HEMIBRAIN else About()

    @property
    def labels(self) -> bool:
        return self.type_name in _LABELS

    def at(self, scale: int) -> Instance:
        """The same instance `scale` times halved; its first voxel still begins at the same place.

        Raises
        ------
        NotFoundError
            There is no such scale.
        """
        if scale >= self.scales:
            raise NotFoundError(
                f"there is no scale {scale}",
                archive=ARCHIVE,
                location="scale",
                advice=f"There are the scales 0 to {self.scales - 1}",
            )
        by = (1 << scale,) * 3
        start = floor_divide(self.extents.start_zyx, by)
        stop = ceil_divide(self.extents.stop_zyx, by)
        voxel = multiply(self.voxel_nm_zyx, by)
        return replace(self, extents=Box(start, stop), voxel_nm_zyx=voxel)


def ask_info(session: Session, node: str) -> Any:
    """``info`` of the instance; DVID answers 400, not 404, where version or instance is unknown."""
    try:
        return session.http(SERVICE).get_json(f"{node}/info")
    except RequestRefusedError as error:
        raise unknown(error, node) from None


def unknown(error: RequestRefusedError, where: str) -> MacroscopeError:
    """The error of a request about something that may not be there."""
    if "status 400" not in error.message:
        return error
    return NotFoundError(
        f"there is no such version or data instance: {error.message}",
        archive=ARCHIVE,
        location=where,
        advice="Check uuid and instance; `macroscope list flyem:` shows what there is",
    )


def parse_info(info: Any, where: str) -> Instance:
    """Read ``info`` of an instance.

    Raises
    ------
    UnsupportedFormatError
        Another type of instance, voxels that are not one uint8, or blocks of another size.
    BadAnswerError
        Keys are missing or of the wrong type.
    """
    with reading("DVID's info", where, BadAnswerError, ARCHIVE):
        base, extended, extents = info["Base"], info["Extended"], info.get("Extents")
        type_name = base["TypeName"]
        if type_name in _LABELS:
            converted = [int(n) for n in extended["BlockSize"]] == [BLOCK] * 3
        else:
            converted = type_name == "uint8blk" and extended["Values"][0]["DataType"] == "uint8"
        if not converted:
            raise UnsupportedFormatError(
                f"data instance of type {type_name}, where uint8blk, labelmap and labelarray with "
                f"blocks of {BLOCK} voxels are converted",
                archive=ARCHIVE,
                location=where,
                advice="Set instance to one of grayscale or labels",
            )
        scales = 1 + int(extended.get("MaxDownresLevel") or 0)
        points = extents or extended
        low = [int(n) for n in points["MinPoint"]]
        high = [int(n) + 1 for n in points["MaxPoint"]]  # inclusive
        said = extended.get("VoxelUnits")
        units = said or ["nanometers"] * 3
        voxel = [to_nm(float(v), u) for v, u in zip(extended["VoxelSize"], units, strict=True)]
        whole = len(low) == len(high) == len(voxel) == 3
        if not whole or not all(v and 0 < v < math.inf for v in voxel):
            raise ValueError("extents or voxel size")
        background = int(extended.get("Background") or 0)
    return Instance(
        Box((low[2], low[1], low[0]), (high[2], high[1], high[0])),
        (float(voxel[2] or 0), float(voxel[1] or 0), float(voxel[0] or 0)),
        background,
        str(base.get("DataUUID", "")),
        str(base.get("RepoUUID", "")),
        bool(said),
        str(type_name),
        scales,
    )


NO_UNIT = "the server states no unit of the voxel size: nanometres are assumed"


def stated(instance: Instance) -> dict[str, Provenance]:
    """Who states the geometry of a crop."""
    size = Provenance(source="api" if instance.united else "assumed", where="VoxelSize of info")
    place = Provenance(source=size.source, where="the crop's first voxel")
    return {f"voxel_size_nm.{axis}": size for axis in "zyx"} | {
        f"translation.{axis}": place for axis in "zyx"
    }


_LISTED_AS_LABELS = ("labelmap", "labelblk", "labelarray")


class DvidItem(Item):
    """The row of an instance, with the repository that it belongs to."""

    repository: str = Field(default="", exclude=True)


def dvid_instances(repositories: Any, only: str | None = None) -> list[DvidItem]:
    """A row for each instance that holds voxels, or could be taken to.

    Parameters
    ----------
    repositories
        Answer of ``/api/repos/info``, or the version that was asked for and its repository.
    only
        Name of the one instance that is wanted.

    Raises
    ------
    BadAnswerError
        The answer lists no instances.
    NotFoundError
        There is no such instance; the error lists what there is.
    """
    found: list[DvidItem] = []
    with reading("DVID's list of repositories", "/api/repos/info", BadAnswerError, ARCHIVE):
        for uuid, repository in sorted(repositories.items()):
            for name, info in sorted((repository or {}).get("DataInstances", {}).items()):
                found.append(_instance(str(uuid), str(name), info, repository))
    if only is None:
        return found
    chosen = [item for item in found if item.name == only]
    if not chosen:
        names = ", ".join(sorted(item.name for item in found)) or "none"
        raise NotFoundError(
            f"there is no data instance {only}", archive="flyem", advice=f"There are: {names}"
        )
    return chosen


def _instance(uuid: str, name: str, info: Any, repository: Any) -> DvidItem:
    base = info.get("Base") or {}
    extended = info.get("Extended")
    extended = extended if isinstance(extended, dict) else {}
    kind = str(base.get("TypeName", "unknown"))
    shape = _shape(info.get("Extents") or extended)
    loadable = kind in ("uint8blk", "labelmap", "labelarray")
    dtype = {"uint8blk": "uint8", "uint16blk": "uint16"}.get(kind, "uint64")
    labels = kind in _LISTED_AS_LABELS
    voxels = shape is not None and (labels or kind.endswith("blk"))
    return DvidItem(
        repository=str(base.get("RepoUUID", "")),
        address=f"flyem:{uuid}/{name}",
        name=name,
        what="volume",
        kind="labels" if labels else "image" if kind.endswith("blk") else None,
        shape_zyx=shape,
        dtype=dtype if voxels else None,
        voxel_nm_zyx=_voxel(extended),
        nbytes=voxel_bytes(shape, dtype) if voxels and shape is not None else None,
        title=vocabulary.plain_text(str(repository.get("Alias") or ""), 200) or None,
        loadable=loadable,
        why_not=None
        if loadable
        else f"instances of type {kind} are not read; uint8blk, labelmap and labelarray are",
    )


def _shape(points: Any) -> ShapeZYX | None:
    try:
        low, high = points["MinPoint"], points["MaxPoint"]
        x, y, z = (int(b) - int(a) + 1 for a, b in zip(low, high, strict=True))  # inclusive
    except (KeyError, TypeError, ValueError):
        return None
    return (z, y, x) if min(x, y, z) > 0 else None


def _voxel(extended: dict[str, Any]) -> tuple[float | None, float | None, float | None] | None:
    units = extended.get("VoxelUnits") or ["nanometers"] * 3
    try:
        x, y, z = (
            to_nm(float(v), str(unit)) for v, unit in zip(extended["VoxelSize"], units, strict=True)
        )
    except (KeyError, TypeError, ValueError):
        return None
    return (z, y, x)
