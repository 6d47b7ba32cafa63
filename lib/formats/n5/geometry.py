"""Voxel size and origin of N5 datasets, as OpenOrganelle, Paintera, BigDataViewer write them.

``transform`` (COSEM) is z, y, x, or x, y, z with ``order`` "F"; NGFF's scales go by the names of
their axes; all else is x, y, z. What several places say of one dataset must agree, and what is said
in words that are not read here is quoted.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from lib.errors import FormatError
from lib.formats.zarr.ngff import parse_multiscale
from lib.geometry import LengthsZYX, to_nm, zyx
from lib.safety import reading

_CLOSE = 1e-6
_NGFF = "coordinateTransformations"
_OF_LENGTHS = re.compile(
    r"transform|resolution|scal(e|ing)|translat|offset|origin|voxel|pixel|spacing|calibrat", re.I
)
_NO_LENGTHS = {"multiScale", "multiscales", "scales", "downsamplingFactors"}
_KEYS = {  # by what was read
    "transform": ("transform",),
    "pixelResolution": ("pixelResolution", "resolution"),
    "resolution": ("resolution", "offset"),
    "pixelWidth": ("pixelWidth", "pixelHeight", "pixelDepth", "pixelUnit", "xOrigin", "yOrigin",
                   "zOrigin"),
}  # fmt: skip
_OF_LEVEL = {"transform": "multiscales", _NGFF: _NGFF}  # by key, what was read


@dataclass(frozen=True, slots=True)
class Placing:
    """Where a dataset lies, in nanometres; what is not stated is None.

    Attributes
    ----------
    mirrored
        Axes of which the scale is negative: index 0 lies at the far end, and there is the origin.
    """

    voxel_nm_zyx: LengthsZYX | None
    origin_nm_zyx: LengthsZYX | None
    source: str
    mirrored: str = ""
    notes: tuple[str, ...] = ()


def placing(own: dict[str, Any], group: dict[str, Any], level: str, where: str) -> Placing:
    """What a dataset's and its group's attributes say of its voxels.

    Parameters
    ----------
    level
        Name of the dataset in its group (``s0``).

    Raises
    ------
    FormatError
        Two places contradict each other, or numbers are none.
    """
    found = [
        one
        for one in (
            _transform(own.get("transform"), "transform", where),
            _transform(_entry(group, level)[0].get("transform"), "multiscales", where),
            _ngff(group, level, where),
            _resolution(own, group, level, where),
            _imagej(own, where),
        )
        if one is not None
    ]
    notes = *(note for one in found for note in one.notes), *_unread(own, group, level, found)
    known = [one for one in found if one.voxel_nm_zyx is not None]
    if not known:
        source = found[0].source if found else "nothing"
        return Placing(None, None, source, notes=notes)
    first = known[0]
    for other in known[1:]:
        if not _agree(first, other):
            raise FormatError(
                f"{first.source} says voxels of {first.voxel_nm_zyx} nm (z, y, x), {other.source} "
                f"{other.voxel_nm_zyx}",
                location=where,
            )
    return replace(first, notes=notes)


def _unread(
    own: dict[str, Any], group: dict[str, Any], level: str, found: list[Placing]
) -> list[str]:
    """What is said of lengths and places in words that are not read here: quoted, never dropped."""
    sources = {one.source for one in found}
    read = {key for source in sources for key in _KEYS.get(source, ())}
    entry, block = _entry(group, level)
    places = (
        ("", own, read),
        ("the group's ", group, read - {"transform"}),
        ("the multiscale's ", block, {_NGFF} & sources),
        ("the level's ", entry, {key for key in _OF_LEVEL if _OF_LEVEL[key] in sources}),
    )
    notes = []
    for whose, attributes, known in places:
        for key, value in attributes.items():
            if key in {*known, *_NO_LENGTHS} or not _OF_LENGTHS.search(key):
                continue
            if value not in (None, "", [], {}):
                notes.append(f"{whose}{key} says {value}, which is not read"[:300])
    return notes


def _agree(a: Placing, b: Placing) -> bool:
    pairs = zip(a.voxel_nm_zyx or (), b.voxel_nm_zyx or (), strict=False)
    return all(math.isclose(m, n, rel_tol=_CLOSE) for m, n in pairs)


def _entry(group: dict[str, Any], level: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a group's multiscales say of a level, and the one of them that does."""
    for block in group.get("multiscales") or []:
        for dataset in block.get("datasets") or []:
            if str(dataset.get("path")).strip("/") == level:
                return dataset, block
    return {}, {}


def _ngff(group: dict[str, Any], level: str, where: str) -> Placing | None:
    """Scales and translations of a multiscale in NGFF's words, by the names of its axes.

    Anything else in them (an affine matrix, axes without names or units) is left to be quoted.
    """
    entry, block = _entry(group, level)
    if not (entry.get(_NGFF) or block.get(_NGFF)):
        return None
    try:
        found = parse_multiscale({"multiscales": [{**block, "datasets": [entry]}]}, where)
    except FormatError:  # also what it calls unsupported
        return None
    one = None if found is None else found.levels[0]
    if one is None or one.scaled != "zyx" or one.united != "zyx":
        return None
    return Placing(one.voxel_nm_zyx, one.translation_nm_zyx, _NGFF)


def _transform(given: Any, source: str, where: str) -> Placing | None:
    """A COSEM transform: axes, units, scale and translate of one length each."""
    if not isinstance(given, dict):
        return None
    with reading(source, where):
        axes = [str(axis).lower() for axis in given["axes"]]
        if sorted(axes) != ["x", "y", "z"]:
            return None
        order = [axes.index(axis) for axis in "zyx"]
        units = given.get("units") or [None] * 3
        per = [None if unit is None else to_nm(1.0, str(unit)) for unit in units]
        if None in per:
            return _unknown(source, given, units)
        scale = [float(given["scale"][i]) * float(per[i] or 0) for i in order]
        shift = [float(given["translate"][i]) * float(per[i] or 0) for i in order]
    if not all(math.isfinite(n) for n in (*scale, *shift)) or 0 in scale:
        raise FormatError(f"{source} has a scale of {given['scale']}", location=where)
    mirrored = "".join(axis for axis, n in zip("zyx", scale, strict=True) if n < 0)
    z, y, x = (abs(n) for n in scale)
    oz, oy, ox = shift
    return Placing((z, y, x), (oz, oy, ox), source, mirrored)


def _unknown(source: str, given: Any, units: Any) -> Placing:
    """Numbers without a unit, or with one that is no length, are quoted and not taken."""
    why = f"{source} says {given} in units {units}: no lengths, so the voxel size is unknown"
    return Placing(None, None, source, notes=(why[:300],))


def _resolution(
    own: dict[str, Any], group: dict[str, Any], level: str, where: str
) -> Placing | None:
    """pixelResolution and resolution, in the order of the axes; a group's are of its finest level.

    A level's own pixelResolution beside downsamplingFactors is that of the finest level too, as
    n5-universe reads and writes them; COSEM's, beside a ``transform``, is the level's.
    """
    try:
        given, units, source = own.get("pixelResolution"), None, "pixelResolution"
        shift = None
        finest = given is None or not isinstance(own.get("transform"), dict)
        if given is None:
            given = group.get("pixelResolution")
        elif not isinstance(own.get("downsamplingFactors"), list):
            finest = False
        if given is None:
            said = group if group.get("resolution") else own
            given, source, shift = said.get("resolution"), "resolution", said.get("offset")
            units = group.get("units") or own.get("units")
        if isinstance(given, dict):
            units, given = given.get("unit"), given.get("dimensions")
        axes = axes_of(own, group)
        if not isinstance(given, list) or len(given) != len(axes) or not {*"xyz"} <= {*axes}:
            return None
        units = units if isinstance(units, list) else [units] * len(given)
        factors = _factors(own, group, level, len(given)) if finest else [1.0] * len(given)
        rows = zip(axes, given, units, factors, shift or [0] * len(axes), strict=True)
        found = {axis: row for axis, *row in rows}
        per = {a: None if found[a][1] is None else to_nm(1.0, str(found[a][1])) for a in "zyx"}
        if None in per.values():
            return _unknown(source, given, units)
        lengths = zyx(float(found[a][0]) * float(per[a] or 0) * found[a][2] for a in "zyx")
        base = zyx(float(found[a][0]) * float(per[a] or 0) for a in "zyx")
        # a level begins where the finest does: its first centre lies half the difference further on
        origin = zyx(
            float(found[a][3]) * float(per[a] or 0) + (length - least) / 2
            for a, length, least in zip("zyx", lengths, base, strict=True)
        )
    except (TypeError, ValueError) as error:
        raise FormatError(f"{source} cannot be read: {error!r}", location=where) from None
    if not all(math.isfinite(n) and n > 0 for n in lengths) or not all(map(math.isfinite, origin)):
        raise FormatError(f"{source} says {given}", location=where)
    return Placing(lengths, origin if shift or base != lengths else None, source)


def _imagej(own: dict[str, Any], where: str) -> Placing | None:
    """``pixelWidth`` and the like, as n5-ij writes ImageJ's calibration; origins are in pixels."""
    if not {"pixelWidth", "pixelHeight", "pixelDepth"} <= own.keys():
        return None
    unit = str(own.get("pixelUnit", ""))
    try:
        given = [float(own[key]) for key in ("pixelDepth", "pixelHeight", "pixelWidth")]
        zero = [float(own.get(f"{axis}Origin", 0)) for axis in "zyx"]
    except (TypeError, ValueError) as error:
        raise FormatError(f"pixelWidth cannot be read: {error!r}", location=where) from None
    per = to_nm(1.0, unit)
    if per is None or not all(math.isfinite(n) and n > 0 for n in given):
        return _unknown("pixelWidth", given, unit)
    size = zyx(float(to_nm(n, unit) or 0) for n in given)
    place = zyx(-at * length if at else 0.0 for at, length in zip(zero, size, strict=True))
    return Placing(
        size, place if any(zero) and all(map(math.isfinite, zero)) else None, "pixelWidth"
    )


def axes_of(own: dict[str, Any], group: dict[str, Any]) -> list[str]:
    """Names of a dataset's axes, fastest first; x, y, z where none are given."""
    count = len(own.get("dimensions") or [])
    for given in (own.get("axes"), group.get("axes")):
        if isinstance(given, list) and len(given) == count:
            return [str(axis).lower() for axis in given]
    planes = {"c": own.get("numChannels"), "z": own.get("numSlices"), "t": own.get("numFrames")}
    if all(type(n) is int for n in planes.values()):  # n5-ij, in ImageJ's order
        several = [axis for axis, n in planes.items() if n != 1]
        for named in ([*"xy", *several], [*"xyczt"]):
            if len(named) == count:
                return named
    return [*"xyz"]


def _factors(own: dict[str, Any], group: dict[str, Any], level: str, count: int) -> list[float]:
    """How much coarser a level is than the finest, along each axis."""
    given = own.get("downsamplingFactors")
    if isinstance(given, list) and len(given) == count and not isinstance(given[0], list):
        return [float(n) for n in given]
    table = group.get("scales") or group.get("downsamplingFactors")
    number = level.lstrip("s")
    if isinstance(table, list) and number.isdecimal() and int(number) < len(table):
        return [float(n) for n in table[int(number)]]
    return [1.0] * count
