"""Voxel size and origin of N5 datasets, as OpenOrganelle, Paintera, BigDataViewer write them.

``transform`` (COSEM) is z, y, x, or x, y, z with ``order`` "F"; all else is x, y, z. What several
places say of one dataset must agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lib.errors import FormatError
from lib.geometry import LengthsZYX
from lib.units import to_nm

_CLOSE = 1e-6


@dataclass(frozen=True, slots=True)
class Placing:
    """Where a dataset lies, in nanometres; what is not stated is None.

    Attributes
    ----------
    mirrored
        Axes of which the scale is negative: index 0 lies at the far end.
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
            _transform(_of_multiscale(group, level), "multiscales", where),
            _resolution(own, group, level, where),
        )
        if one is not None
    ]
    if not found:
        return Placing(None, None, "nothing")
    first = found[0]
    for other in found[1:]:
        if first.voxel_nm_zyx and other.voxel_nm_zyx and not _agree(first, other):
            raise FormatError(
                f"{first.source} says voxels of {first.voxel_nm_zyx} nm (z, y, x), {other.source} "
                f"{other.voxel_nm_zyx}",
                location=where,
            )
    return first


def _agree(a: Placing, b: Placing) -> bool:
    pairs = zip(a.voxel_nm_zyx or (), b.voxel_nm_zyx or (), strict=False)
    return all(math.isclose(m, n, rel_tol=_CLOSE) for m, n in pairs)


def _of_multiscale(group: dict[str, Any], level: str) -> Any:
    for block in group.get("multiscales") or []:
        for dataset in block.get("datasets") or []:
            if str(dataset.get("path")).strip("/") == level:
                return dataset.get("transform")
    return None


def _transform(given: Any, source: str, where: str) -> Placing | None:
    """A COSEM transform: axes, units, scale and translate of one length each."""
    if not isinstance(given, dict):
        return None
    try:
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
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FormatError(f"{source} cannot be read: {error!r}", location=where) from None
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
    """pixelResolution and resolution are x, y, z; a group's are of its finest level."""
    try:
        factors = [1.0, 1.0, 1.0]
        given, units, source = own.get("pixelResolution"), None, "pixelResolution"
        if given is None:
            given = group.get("pixelResolution")
            factors = _factors(own, group, level)
            if given is None:
                given, source = group.get("resolution") or own.get("resolution"), "resolution"
                units = group.get("units") or own.get("units")
        if isinstance(given, dict):
            units, given = [given.get("unit")] * 3, given.get("dimensions")
        if not isinstance(given, list) or len(given) != 3:
            return None
        units = units or [None] * 3
        per = [None if unit is None else to_nm(1.0, str(unit)) for unit in units]
        if None in per:
            return _unknown(source, given, units)
        lengths = [
            float(n) * float(p or 0) * f for n, p, f in zip(given, per, factors, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise FormatError(f"{source} cannot be read: {error!r}", location=where) from None
    if not all(math.isfinite(n) and n > 0 for n in lengths):
        raise FormatError(f"{source} says {given}", location=where)
    x, y, z = lengths
    return Placing((z, y, x), None, source)


def _factors(own: dict[str, Any], group: dict[str, Any], level: str) -> list[float]:
    """How much coarser a level is than the finest, x, y, z."""
    given = own.get("downsamplingFactors")
    if isinstance(given, list) and len(given) == 3 and not isinstance(given[0], list):
        return [float(n) for n in given]
    table = group.get("scales") or group.get("downsamplingFactors")
    number = level.lstrip("s")
    if isinstance(table, list) and number.isdecimal() and int(number) < len(table):
        return [float(n) for n in table[int(number)]]
    return [1.0, 1.0, 1.0]
