"""OME-NGFF 0.4 multiscales: which levels there are, how large their voxels are, and where they lie.

NGFF 0.4, ``multiscales``: each dataset has a scale and may have a translation; the transformations
of the whole multiscale are applied after those of its datasets.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from lib.errors import FormatError, UnsupportedFormatError
from lib.geometry import LengthsZYX
from lib.units import to_nm


@dataclass(frozen=True, slots=True)
class NgffLevel:
    """One dataset of a multiscale; lengths in nanometres."""

    path: str
    voxel_nm_zyx: LengthsZYX
    translation_nm_zyx: LengthsZYX


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
    units_stated: bool = True
    words: dict[str, str] = field(default_factory=dict)

    def level(self, path: str) -> NgffLevel | None:
        return next((level for level in self.levels if level.path == path), None)


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
        The axes are not z, y, x, or their unit is no length.
    """
    blocks = attributes.get("multiscales")
    if not blocks:
        return None
    try:
        block = blocks[0]
        axes = block.get("axes") or []
        names = [axis["name"] if isinstance(axis, dict) else axis for axis in axes]
        units = [axis.get("unit") if isinstance(axis, dict) else None for axis in axes]
        if names != ["z", "y", "x"]:
            raise UnsupportedFormatError(f"axes {names}, where z, y, x is read", location=where)
        units_nm = [_nanometres(unit, where) for unit in units]
        outer_scale, outer_shift = _transform(block.get("coordinateTransformations"), where)
        levels = []
        for dataset in block["datasets"]:
            scale, shift = _transform(dataset.get("coordinateTransformations"), where)
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
                )
            )
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise FormatError(f"multiscales cannot be read: {error!r}", location=where) from None
    if not levels or any(not v > 0 for level in levels for v in level.voxel_nm_zyx):
        raise FormatError("multiscales names no level of positive voxel size", location=where)
    name = block.get("name") or None
    return Multiscale(
        name, tuple(levels), "image-label" in attributes, all(units), _words(attributes)
    )


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


def _transform(steps: Any, where: str) -> tuple[LengthsZYX, LengthsZYX]:
    """Scale and translation of a list of transformations, applied in order."""
    scale, shift = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    for step in steps or []:
        if step["type"] == "scale":
            by = _numbers(step["scale"])
            scale = _three(a * b for a, b in zip(scale, by, strict=True))
            shift = _three(a * b for a, b in zip(shift, by, strict=True))
        elif step["type"] == "translation":
            shift = _three(a + b for a, b in zip(shift, _numbers(step["translation"]), strict=True))
        elif step["type"] != "identity":
            raise UnsupportedFormatError(f"transformation {step['type']!r}", location=where)
    return scale, shift


def _numbers(values: Any) -> LengthsZYX:
    numbers = [float(value) for value in values]
    if len(numbers) != 3 or not all(math.isfinite(n) for n in numbers):
        raise ValueError(f"{values!r} are not three numbers")
    return (numbers[0], numbers[1], numbers[2])


def _three(values: Any) -> LengthsZYX:
    z, y, x = values
    return (z, y, x)
