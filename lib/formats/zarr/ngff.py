"""OME-NGFF multiscales of 0.1 to 0.4: their levels, how large voxels are, and where they lie.

NGFF 0.4, ``multiscales``: each dataset has a scale and may have a translation; the transformations
of the whole multiscale are applied after those of its datasets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.format import VoxelSize
from lib.formats.zarr.axes import IMPLIED, axis_names, spatial_only, stated_names
from lib.geometry import LengthsZYX, to_nm, zyx
from lib.safety import reading
from lib.vocabulary import labels_said


@dataclass(frozen=True, slots=True)
class NgffLevel:
    """One dataset of a multiscale; lengths in nanometres.

    Attributes
    ----------
    scaled
        Those of the axes ``zyx`` for which a scale is stated. A length of 1 stands for the others.
    united
        Those of the axes that have a unit; nanometres are assumed of the others.
    pixels
        Those of which the unit is a pixel: their scale is no length.
    source
        The attributes that say so.
    """

    path: str
    voxel_nm_zyx: LengthsZYX
    translation_nm_zyx: LengthsZYX
    scaled: str = "zyx"
    united: str = "zyx"
    pixels: str = ""
    source: str = "multiscales"

    @property
    def voxel(self) -> VoxelSize:
        """What is stated; None along an axis without a scale."""
        if not self.scaled:
            return VoxelSize()
        pairs = zip("zyx", self.voxel_nm_zyx, strict=True)
        z, y, x = (length if axis in self.scaled else None for axis, length in pairs)
        assumed = "".join(axis for axis in self.scaled if axis not in self.united)
        return VoxelSize(z, y, x, self.source, assumed)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is a default of its voxel size."""
        if self.pixels:
            axes = ", ".join(self.pixels)
            return (f"{self.source} states {axes} in pixels: their voxel size is unknown",)
        if not self.scaled:
            return (f"the multiscale gives level {self.path} no scale: its voxel size is unknown",)
        if self.voxel.assumed:
            if self.source != "multiscales":
                return (f"{self.source} states no unit: nanometres are assumed",)
            return ("the axes state no unit: nanometres are assumed",)
        return ()


_QUANTITY = re.compile(r"([\d.]+(?:e[+-]?\d+)?)?\s*((?!None)[^\d\s]\S*)", re.IGNORECASE)
_DEEPEST = 6  # groups above an array that are asked for a multiscale
_WORDS = {
    "license": "licence", "licence": "licence", "doi": "doi", "citation": "citation",
    "organism": "organism", "modality": "modality", "description": "description",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Multiscale:
    """A multiscale with its levels, finest first as the archive lists them.

    ``labels`` is what says that it holds labels, empty where nothing does; ``drawn`` the colours
    and properties of their ids. ``words`` are what the same document says of licence, DOI,
    citation, organism, modality and description; NGFF has no words for them, so that most say
    nothing.
    """

    name: str | None
    levels: tuple[NgffLevel, ...]
    labels: str
    axes: tuple[str, ...] = ("z", "y", "x")  # of its arrays, in their order
    words: dict[str, str] = field(default_factory=dict)
    drawn: dict[str, Any] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        """Of its levels, below the group."""
        return tuple(level.path for level in self.levels)

    def level(self, path: str) -> NgffLevel | None:
        return next((level for level in self.levels if level.path == path), None)


M = TypeVar("M")


def multiscale_above(
    path: str,
    multiscales_at: Callable[[str], Sequence[M]],
    names: Callable[[M], Collection[str]],
) -> tuple[str, str, M | None]:
    """The multiscale among an array's groups that names it: group, name in it, and itself.

    Where none does, the nearest one, and the array's path below it; where there is none at all,
    the last part of the array's path.

    Parameters
    ----------
    path
        Of the array. A dataset may lie several groups below its multiscale (``scale0/image``).
    names
        Of the datasets of a multiscale.
    """
    nearest: tuple[str, str, M | None] = ("", path.rpartition("/")[2], None)
    above, inner = path, ""
    for _ in range(_DEEPEST):
        above, _, name = above.rpartition("/")
        inner = f"{name}/{inner}".rstrip("/")
        found = multiscales_at(above)
        for one in found:
            if inner in names(one):
                return above, inner, one
        if found and nearest[2] is None:
            nearest = (above, inner, found[0])
        if not above:
            break
    return nearest


def parse_multiscales(attributes: dict[str, Any], where: str) -> list[Multiscale]:
    """The multiscales of a group's attributes, each array in the first that names it.

    Raises
    ------
    FormatError
        Keys are missing, or lengths and axes do not match.
    UnsupportedFormatError
        There are axes other than z, y, x, t and c, or their unit is no length.
    """
    blocks = attributes.get("multiscales")
    if not blocks:
        return []
    found: list[Multiscale] = []
    with reading("multiscales", where):
        for number in range(len(blocks)):
            one = _multiscale(blocks[number], attributes, where)
            known = {level.path for earlier in found for level in earlier.levels}
            if not known & {level.path for level in one.levels}:
                found.append(one)
    return found


def parse_multiscale(attributes: dict[str, Any], where: str) -> Multiscale | None:
    """The first of `parse_multiscales`; None where there is none."""
    return next(iter(parse_multiscales(attributes, where)), None)


def _multiscale(block: dict[str, Any], attributes: dict[str, Any], where: str) -> Multiscale:
    own = _axes_of(block, where)
    if own not in (("z", "y", "x"), ("y", "x")) or block.get("axes") is None:
        block = spatial_only(block, len(own), where)
    axes = block["axes"]
    names = axis_names(block) or []
    units = [(axis.get("unit") if isinstance(axis, dict) else None) or None for axis in axes]
    if names not in (["z", "y", "x"], ["y", "x"]):
        raise UnsupportedFormatError(
            f"axes {names}, where z, y, x or y, x are read", location=where
        )
    known = "".join(name for name in names if name in own)
    pixels = "".join(n for n, unit in zip(names, units, strict=True) if _is_pixel(unit))
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
        scaled = outer_scale != (1.0, 1.0, 1.0)
        scaled = scaled or any(step["type"] == "scale" for step in inner or [])
        levels.append(
            NgffLevel(
                str(dataset["path"]),
                zyx(s * o * u for s, o, u in zip(scale, outer_scale, units_nm, strict=True)),
                _placed(
                    (
                        (t * o + p) * u
                        for t, o, p, u in zip(
                            shift, outer_scale, outer_shift, units_nm, strict=True
                        )
                    ),
                    pixels,
                ),
                "".join(a for a in known if a not in pixels) if scaled else "",
                united,
                pixels if scaled else "",
            )
        )
    if any(v < 0 for level in levels for v in level.voxel_nm_zyx):
        raise UnsupportedFormatError(
            "multiscales states a negative scale: an axis that runs downwards is not turned",
            location=where,
        )
    if not levels or any(not v > 0 for level in levels for v in level.voxel_nm_zyx):
        raise FormatError("multiscales names no level of positive voxel size", location=where)
    if all(level.scaled for level in levels):  # some lists begin with the coarsest
        levels.sort(key=lambda level: math.prod(level.voxel_nm_zyx))
    name = block.get("name") or None
    labels, drawn = labels_said(attributes)
    return Multiscale(name, tuple(levels), labels, own, _words(attributes), drawn)


def _is_pixel(unit: str | None) -> bool:
    return str(unit).lower() in ("pixel", "pixels", "px", "voxel", "voxels")


def names_of_array(attributes: dict[str, Any], count: int) -> list[str] | None:
    """Names that an array gives its axes among its attributes, as xarray, funlib and COSEM do."""
    transform = attributes.get("transform")
    cosem = transform if isinstance(transform, dict) else {}
    axes = cosem.get("axes")
    if isinstance(axes, list) and cosem.get("order") == "F":
        axes = axes[::-1]
    for given in (attributes.get("_ARRAY_DIMENSIONS"), attributes.get("axis_names"), axes):
        if isinstance(given, list) and len(given) == count:
            return stated_names(given)
    return None


def level_of_array(
    name: str, attributes: dict[str, Any], names: Sequence[str], where: str
) -> NgffLevel | None:
    """What an array says of its own voxels, which no multiscale names; None where it says nothing.

    COSEM's ``transform`` (axes, units, scale, translate); else ``resolution`` or ``voxel_size``,
    with ``offset`` and ``units``, in the order of the array's axes (ASEM, funlib); else
    ``dimension_units`` (tensorstore: ``"4 nm"``) or N5's ``pixelResolution``, which is x, y, z.

    Parameters
    ----------
    names
        Of the array's axes.

    Raises
    ------
    FormatError
        They are no lengths.
    UnsupportedFormatError
        Their unit is none.
    """
    transform = attributes.get("transform")
    source = next((key for key in ("voxel_size", "resolution") if key in attributes), "")
    given, shift = attributes.get(source), attributes.get("offset")
    units, own = attributes.get("units") or attributes.get("unit"), list(names)
    if isinstance(transform, dict) and "scale" in transform:
        source, given, shift = "transform", transform["scale"], transform.get("translate")
        units = transform.get("units")
        own = [str(axis).lower() for axis in transform.get("axes") or names]
    if not source:
        source, own, given, units = _of_tools(attributes, own)
    if not isinstance(given, list):
        return None
    if len(given) != len(own):
        own = [axis for axis in own if axis in "zyx"]
    if len(given) != len(own):
        return None
    if not isinstance(shift, list) or len(shift) != len(own):  # of other values, as in CF
        shift = None
    with reading(source, where):
        units = [units] * len(own) if isinstance(units, str) else units or [None] * len(own)
        pairs = zip(own, given, shift or [0.0] * len(own), units, strict=True)
        there = {axis: (float(n), float(at), unit or None) for axis, n, at, unit in pairs}
        rows = [there.get(axis, (1.0, 0.0, None)) for axis in "zyx"]
        per = [_nanometres(unit, where) for _, _, unit in rows]
        lengths = zyx(n * nm for (n, _, _), nm in zip(rows, per, strict=True))
        shifts = [at * nm for (_, at, _), nm in zip(rows, per, strict=True)]
    if not all(math.isfinite(n) and n > 0 for n in lengths) or not all(map(math.isfinite, shifts)):
        raise FormatError(f"{source} says {given}, which are no lengths", location=where)
    pixels = "".join(axis for axis in "zyx" if _is_pixel(there.get(axis, (0, 0, None))[2]))
    return NgffLevel(
        name,
        lengths,
        _placed(shifts, pixels),
        "".join(axis for axis in "zyx" if axis in there and axis not in pixels),
        "".join(axis for axis in "zyx" if axis in there and there[axis][2]),
        pixels,
        f"the array's {source}",
    )


def _of_tools(attributes: dict[str, Any], own: list[str]) -> tuple[str, list[str], Any, Any]:
    """Attribute, axes, lengths and units as tensorstore or tools of N5 state them."""
    said, n5 = attributes.get("dimension_units"), attributes.get("pixelResolution")
    if isinstance(said, list) and len(said) == len(own):
        found = [(axis, _QUANTITY.fullmatch(str(one))) for axis, one in zip(own, said, strict=True)]
        known = [(axis, match[1] or 1, match[2]) for axis, match in found if match is not None]
        lengths, units = ([row[place] for row in known] for place in (1, 2))
        return "dimension_units", [axis for axis, _, _ in known], lengths, units
    if isinstance(n5, dict):
        return "pixelResolution", [*"xyz"], n5.get("dimensions"), n5.get("unit")
    return "", own, None, None


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
    if unit is None or _is_pixel(unit):
        return 1.0  # archives that leave the unit out write nanometres; the plan notes it
    length = to_nm(1.0, unit)
    if length is None:
        raise UnsupportedFormatError(f"axis unit {unit!r} is no length", location=where)
    return length


def _transform(steps: Any, axes: int, where: str) -> tuple[LengthsZYX, LengthsZYX]:
    """Scale and translation of a list of transformations, applied in order."""
    scale, shift = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    for step in steps or []:
        if step["type"] == "scale":
            by = _numbers(step["scale"], axes, 1.0)
            scale = zyx(a * b for a, b in zip(scale, by, strict=True))
            shift = zyx(a * b for a, b in zip(shift, by, strict=True))
        elif step["type"] == "translation":
            by = _numbers(step["translation"], axes, 0.0)
            shift = zyx(a + b for a, b in zip(shift, by, strict=True))
        elif step["type"] != "identity":
            raise UnsupportedFormatError(f"transformation {step['type']!r}", location=where)
    return scale, shift


def _numbers(values: Any, axes: int, default: float) -> LengthsZYX:
    """A number for each axis, with `default` for the z that two axes lack."""
    numbers = [float(value) for value in values]
    if len(numbers) != axes or not all(math.isfinite(n) for n in numbers):
        raise ValueError(f"{values!r} are not {axes} numbers")
    return zyx([default] * (3 - axes) + numbers)


def _placed(shifts: Iterable[float], pixels: str) -> LengthsZYX:
    """A place in nanometres: one in pixels is none, as their size is not known."""
    return zyx(0.0 if axis in pixels else at for axis, at in zip("zyx", shifts, strict=True))


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
