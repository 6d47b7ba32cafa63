"""OME-NGFF multiscales of 0.1 to 0.4: their levels, how large voxels are, and where they lie.

NGFF 0.4, ``multiscales``: each dataset has a scale and may have a translation; the transformations
of the whole multiscale are applied after those of its datasets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.format import VoxelSize
from lib.formats.zarr.axes import IMPLIED, axis_names, spatial_only
from lib.geometry import LengthsZYX, to_nm
from lib.safety import MALFORMED


@dataclass(frozen=True, slots=True)
class NgffLevel:
    """One dataset of a multiscale; lengths in nanometres.

    Attributes
    ----------
    scaled
        Those of the axes ``zyx`` for which a scale is stated. A length of 1 stands for the others.
    united
        Those of the axes that have a unit; nanometres are assumed of the others.
    """

    path: str
    voxel_nm_zyx: LengthsZYX
    translation_nm_zyx: LengthsZYX
    scaled: str = "zyx"
    united: str = "zyx"

    @property
    def voxel(self) -> VoxelSize:
        """What is stated; None along an axis without a scale."""
        if not self.scaled:
            return VoxelSize()
        pairs = zip("zyx", self.voxel_nm_zyx, strict=True)
        z, y, x = (length if axis in self.scaled else None for axis, length in pairs)
        assumed = "".join(axis for axis in self.scaled if axis not in self.united)
        return VoxelSize(z, y, x, "multiscales", assumed)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is a default of its voxel size."""
        if not self.scaled:
            return (f"the multiscale gives level {self.path} no scale: its voxel size is unknown",)
        if self.voxel.assumed:
            return ("the axes state no unit: nanometres are assumed",)
        return ()


_DEEPEST = 6  # groups above an array that are asked for a multiscale
_WORDS = {
    "license": "licence", "licence": "licence", "doi": "doi", "citation": "citation",
    "organism": "organism", "modality": "modality", "description": "description",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Multiscale:
    """A multiscale with its levels, finest first as the archive lists them.

    ``words`` are what the same document says of licence, DOI, citation, organism, modality and
    description; NGFF has no words for them, so that most say nothing.
    """

    name: str | None
    levels: tuple[NgffLevel, ...]
    labels: bool
    axes: tuple[str, ...] = ("z", "y", "x")  # of its arrays, in their order
    words: dict[str, str] = field(default_factory=dict)

    def level(self, path: str) -> NgffLevel | None:
        return next((level for level in self.levels if level.path == path), None)


def multiscale_above(
    path: str, multiscale_at: Callable[[str], Multiscale | None]
) -> tuple[str, Multiscale | None]:
    """The multiscale among an array's groups that names it, and the name that it gives it.

    Where none does, the nearest one, and the array's path below it; where there is none at all,
    the last part of the array's path.

    Parameters
    ----------
    path
        Of the array. A dataset may lie several groups below its multiscale (``scale0/image``).
    """
    nearest: tuple[str, Multiscale | None] = (path.rpartition("/")[2], None)
    above, inner = path, ""
    for _ in range(_DEEPEST):
        above, _, name = above.rpartition("/")
        inner = f"{name}/{inner}".rstrip("/")
        found = multiscale_at(above)
        if found is not None and found.level(inner) is not None:
            return inner, found
        if found is not None and nearest[1] is None:
            nearest = (inner, found)
        if not above:
            break
    return nearest


def parse_attributes(data: bytes | memoryview, where: str) -> dict[str, Any]:
    """Read a ``.zattrs``; raises `FormatError` where it is no JSON object."""
    try:
        document = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise FormatError(f".zattrs cannot be read: {error}", location=where) from None
    if not isinstance(document, dict):
        raise FormatError(".zattrs is no JSON object", location=where)
    return document


def parse_multiscale(attributes: dict[str, Any], where: str) -> Multiscale | None:
    """The first multiscale of a group's attributes; None where it has none.

    Raises
    ------
    FormatError
        Keys are missing, or lengths and axes do not match.
    UnsupportedFormatError
        There are axes other than z, y, x, t and c, or their unit is no length.
    """
    blocks = attributes.get("multiscales")
    if not blocks:
        return None
    try:
        block = blocks[0]
        own = _axes_of(block, where)
        if own not in (("z", "y", "x"), ("y", "x")):
            block = spatial_only(block, len(own), where)
        axes = block.get("axes") or []
        names = [axis["name"] if isinstance(axis, dict) else axis for axis in axes]
        units = [axis.get("unit") if isinstance(axis, dict) else None for axis in axes]
        if names not in (["z", "y", "x"], ["y", "x"]):
            raise UnsupportedFormatError(
                f"axes {names}, where z, y, x or y, x are read", location=where
            )
        known = "".join(name for name in names if name in own)
        units_nm = [1.0] * (3 - len(names)) + [_nanometres(unit, where) for unit in units]
        pairs = zip(names, units, strict=True)
        united = "".join(a for a, unit in pairs if unit is not None and a in known)
        outer = block.get("coordinateTransformations")
        outer_scale, outer_shift = _transform(outer, len(names), where)
        levels = []
        for dataset in block["datasets"]:
            inner = dataset.get("coordinateTransformations")
            scale, shift = _transform(inner, len(names), where)
            # an outer scale of ones stands in many documents, and says nothing of a length
            scaled = _has_scale(inner) or outer_scale != (1.0, 1.0, 1.0)
            levels.append(
                NgffLevel(
                    str(dataset["path"]),
                    _three(s * o * u for s, o, u in zip(scale, outer_scale, units_nm, strict=True)),
                    _three(
                        (t * o + p) * u
                        for t, o, p, u in zip(
                            shift, outer_scale, outer_shift, units_nm, strict=True
                        )
                    ),
                    known if scaled else "",
                    united,
                )
            )
    except MALFORMED as error:
        raise FormatError(f"multiscales cannot be read: {error!r}", location=where) from None
    if not levels or any(not v > 0 for level in levels for v in level.voxel_nm_zyx):
        raise FormatError("multiscales names no level of positive voxel size", location=where)
    name = block.get("name") or None
    return Multiscale(name, tuple(levels), "image-label" in attributes, own, _words(attributes))


def _axes_of(block: dict[str, Any], where: str) -> tuple[str, ...]:
    """The axes of a multiscale's arrays; NGFF 0.1 and 0.2 do not say that they are t, c, z, y, x.

    Raises
    ------
    UnsupportedFormatError
        There are no z, y, x, or others than t and c beside them.
    """
    names = axis_names(block)
    if names is None:
        steps = [one.get("coordinateTransformations") for one in block["datasets"]]
        if any(steps) or block.get("coordinateTransformations"):
            raise UnsupportedFormatError(
                "axes without names, and scales that belong to some", location=where
            )
        return IMPLIED
    unknown = set(names) - {*IMPLIED, "time", "channel"}
    if unknown or not {"y", "x"} <= set(names) or len(set(names)) < len(names):
        raise UnsupportedFormatError(
            f"axes {names}, where z, y, x are read, with t and c beside them", location=where
        )
    return tuple(names)


def _words(attributes: dict[str, Any]) -> dict[str, str]:
    """The texts beside the multiscales that say what the data are."""
    found: dict[str, str] = {}
    for key, value in attributes.items():
        word = _WORDS.get(key.lower()) if isinstance(key, str) else None
        if word is not None and isinstance(value, str):
            found.setdefault(word, value)
    return found


def _nanometres(unit: str | None, where: str) -> float:
    if unit is None:
        return 1.0  # archives that leave the unit out write nanometres; the plan notes it
    length = to_nm(1.0, unit)
    if length is None:
        raise UnsupportedFormatError(f"axis unit {unit!r} is no length", location=where)
    return length


def _has_scale(steps: Any) -> bool:
    return any(step["type"] == "scale" for step in steps or [])


def _transform(steps: Any, axes: int, where: str) -> tuple[LengthsZYX, LengthsZYX]:
    """Scale and translation of a list of transformations, applied in order."""
    scale, shift = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    for step in steps or []:
        if step["type"] == "scale":
            by = _numbers(step["scale"], axes, 1.0)
            scale = _three(a * b for a, b in zip(scale, by, strict=True))
            shift = _three(a * b for a, b in zip(shift, by, strict=True))
        elif step["type"] == "translation":
            by = _numbers(step["translation"], axes, 0.0)
            shift = _three(a + b for a, b in zip(shift, by, strict=True))
        elif step["type"] != "identity":
            raise UnsupportedFormatError(f"transformation {step['type']!r}", location=where)
    return scale, shift


def _numbers(values: Any, axes: int, default: float) -> LengthsZYX:
    """A number for each axis, with `default` for the z that two axes lack."""
    numbers = [float(value) for value in values]
    if len(numbers) != axes or not all(math.isfinite(n) for n in numbers):
        raise ValueError(f"{values!r} are not {axes} numbers")
    return _three([default] * (3 - axes) + numbers)


def _three(values: Any) -> LengthsZYX:
    z, y, x = values
    return (z, y, x)


_MOST_SERIES = 1000


def named_children(attributes: dict[str, Any], there: Callable[[str], bool]) -> list[str]:
    """Children that a group names: its labels, and the images of a bioformats2raw container.

    Parameters
    ----------
    attributes
        Of the group; NGFF 0.5 has these keys below ``ome``.
    there
        Whether a child is a group or an array: the images are 0, 1, ... as far as they go.
    """
    ome = attributes.get("ome")
    said = ome if isinstance(ome, dict) else attributes
    labels = said.get("labels")
    found = [str(name) for name in labels] if isinstance(labels, list) else []
    if "bioformats2raw.layout" in said:
        for number in range(_MOST_SERIES):
            if not there(str(number)):
                break
            found.append(str(number))
    return found
