"""Lengths as archives and files write them, turned into nanometres."""

from __future__ import annotations

import math
import re
from decimal import Decimal

_NM: dict[str, str] = {
    **dict.fromkeys(("pm", "picometer", "picometre"), "0.001"),
    **dict.fromkeys(("a", "å", "angstrom", "ångström", "ångstrom", "angström"), "0.1"),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), "1"),
    **dict.fromkeys(("um", "μm", "micron", "micrometer", "micrometre"), "1000"),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), "1000000"),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), "10000000"),
    **dict.fromkeys(("in", "inch", "inche"), "25400000"),  # "inches" loses its s below
    **dict.fromkeys(("m", "meter", "metre"), "1000000000"),
}
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


def _normalised(unit: str) -> str:
    # ImageJ writes the micro sign as backslash, u, 0, 0, B, 5
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), unit).strip(" \t\r\n\0")
    # micro and ångström signs have look-alikes; a capital M would be mega, so no plain lower()
    text = text.replace("\N{MICRO SIGN}", "μ").replace("\N{ANGSTROM SIGN}", "å")
    text = text.replace("Å", "å").replace("A\N{COMBINING RING ABOVE}", "å")
    if text in {"A", "M"}:
        return {"A": "a", "M": ""}[text]
    if len(text) > 2 or text in {"UM", "NM"}:
        text = text.lower()
    return text[:-1] if len(text) > 3 and text.endswith("s") else text


def nm_per(unit: str) -> float | None:
    """Nanometres in one `unit`; None where it is no length (empty, ``1/nm``, ``eV``, ``PIXEL``)."""
    factor = _NM.get(_normalised(unit))
    return None if factor is None else float(factor)


# What a unit measures that is no length: an axis in it is none of space.
_OTHER_QUANTITIES: tuple[tuple[str, str], ...] = (
    (r"1/([pnuμmc]?m|a|å)|([pnuμmc]?m|å)\^?[-−⁻][1¹]", "reciprocal length"),
    (r"[mk]?ev", "energy"),
    (r"[nuμm]?s(ec)?|seconds?|min(utes?)?", "time"),
    (r"deg(rees?)?|°|m?rad(ians?)?", "angle"),
    (r"[kmg]?hz", "frequency"),
    (r"[nuμmk]?v(olts?)?", "voltage"),
    (r"kelvin|°c|°f", "temperature"),
)


def other_quantity(unit: str) -> str | None:
    """What a unit measures where that is no length: ``1/nm``, ``eV``, ``s``, ``deg``; else None."""
    text = _normalised(unit) or unit.strip()
    for pattern, quantity in _OTHER_QUANTITIES:
        if re.fullmatch(pattern, text, re.IGNORECASE):
            return quantity
    return None


def to_nm(value: float, unit: str) -> float | None:
    """Convert a length to nanometres.

    The product is taken in decimal, so that 0.00799825 µm is 7.99825 nm and not a neighbour of it.

    Parameters
    ----------
    value
        The length in `unit`. Any sign: origins may be negative.
    unit
        A symbol (``µm`` with either micro sign, ``um``, ``nm``, ``pm``, ``Å``, ``A``, ``mm``,
        ``cm``, ``m``, ``inch``), a word (``micron``, ``nanometers``), OMERO's enumeration names
        (``MICROMETER``, ``ANGSTROM``) or ImageJ's escaped form ``\\u00B5m``.

    Returns
    -------
    float or None
        None where `unit` is not a length or `value` is not finite.
    """
    factor = _NM.get(_normalised(unit))
    if factor is None or not math.isfinite(value):
        return None
    return float(Decimal(repr(float(value))) * Decimal(factor))
