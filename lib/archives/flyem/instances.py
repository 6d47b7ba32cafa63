"""The data instances of a DVID server, as ``/api/repos/info`` and ``/api/repo/{uuid}/info`` tell.

``{repository: {"Alias", "Description", "Root", "DataInstances": {name: {"Base", "Extended"}}}}``;
the second answers with the inner object alone. Triples are x, y, z.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from lib import vocabulary
from lib.archives.listed import Item, voxel_bytes
from lib.errors import BadAnswerError, NotFoundError
from lib.geometry import ShapeZYX
from lib.units import to_nm

_LABELS = ("labelmap", "labelblk", "labelarray")


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
    try:
        for uuid, repository in sorted(repositories.items()):
            for name, info in sorted((repository or {}).get("DataInstances", {}).items()):
                found.append(_instance(str(uuid), str(name), info, repository))
    except (AttributeError, TypeError) as error:
        raise BadAnswerError(
            f"DVID's list of repositories cannot be read: {error!r}", archive="flyem"
        ) from None
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
    labels = kind in _LABELS
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
