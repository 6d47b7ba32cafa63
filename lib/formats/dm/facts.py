"""Voxel size, date and microscope of a DM image, out of its tags.

Tag names as measured on files of GMS 3.21 (Gatan 3View on an FEI Quanta). Only listed tags are
taken: a whole tag dump holds user names and paths.
"""

from __future__ import annotations

import datetime
import math
import re
from typing import Any

import numpy as np

from lib.formats.calibration import Origin, VoxelSize, positive
from lib.formats.dm.tags import TagGroup, TagTree
from lib.units import to_nm

_FACTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("microscope", ("Microscope Info", "Name")),
    ("voltage_v", ("Microscope Info", "Voltage")),
    ("indicated_magnification", ("Microscope Info", "Indicated Magnification")),
    ("signal", ("DataBar", "Signal Name")),
    ("exposure_number", ("DataBar", "Exposure Number")),
    ("acquisition_time", ("DataBar", "Acquisition Time")),
    ("dwell_time_us", ("DigiScan", "Sample Time")),
    ("slice_thickness_nm", ("SBFSEM", "Record", "Slice thickness")),
    ("software_version", ("GMS Version", "Created")),
)
_LONGEST_TEXT = 80
_STAMP = re.compile(
    r"^\w{3} (?P<month>\w{3}) +(?P<day>\d{1,2}) (?P<time>\d\d:\d\d:\d\d) (?P<year>\d{4})\b"
)
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_DATE = re.compile(r"^\s*(\d{1,2})([./])(\d{1,2})\2(\d{4})\s*$")


def voxel_size(
    tree: TagTree, data: TagGroup, tags: TagGroup, *, stack: bool
) -> tuple[VoxelSize, tuple[str, ...]]:
    """Voxel size in nm, and notes on contradictions.

    In plane from ``Calibrations.Dimension``. Along z from there too if the image is a stack and
    has a third calibration, else from the section thickness that the recording wanted:
    ``Meta Data.Dimension info`` or ``SBFSEM.Record.Slice thickness``. ``SBFSEM.Approach`` is the
    thickness of cuts that were not recorded.
    """
    own = [_length(tree, data.find("Calibrations", "Dimension", axis)) for axis in range(3)]
    third = _length(tree, tags.find("Meta Data", "Dimension info", 2))
    cut = _number(tags.find("SBFSEM", "Record", "Slice thickness"))
    candidates = [
        ("Calibrations.Dimension", own[2] if stack else None),
        ("Meta Data.Dimension info", third),
        ("SBFSEM.Record.Slice thickness", positive(cut)),
    ]
    known = [(source, value) for source, value in candidates if value is not None]
    z_source, z_nm = known[0] if known else (None, None)
    notes = tuple(
        f"z step: {z_source} says {z_nm:g} nm, {source} says {value:g} nm"
        for source, value in known[1:]
        if z_nm is not None and not math.isclose(value, z_nm, rel_tol=1e-5)
    )
    sources = dict.fromkeys(
        [
            *(["Calibrations.Dimension"] if own[0] or own[1] else []),
            *([z_source] if z_source else []),
        ]
    )
    provenance = f"DM tags {', '.join(sources)}" if sources else None
    notes += tuple(
        f"axis {axis} is calibrated in {unit!r}, which is no length"
        for axis, unit in zip("xyz" if stack else "xy", _units(tree, data), strict=False)
        if unit and to_nm(1.0, unit) is None
    )
    return VoxelSize(z_nm, own[1], own[0], provenance), notes


def first_voxel(data: TagGroup, *, stack: bool) -> Origin:
    """Where the first voxel lies: ``Calibrations.Dimension`` names the pixel that is zero.

    DM's calibration is value = (index - Origin) * Scale, axis by axis, x first.
    """
    zero = [
        _number(data.find("Calibrations", "Dimension", axis, "Origin")) or 0.0
        for axis in range(3 if stack else 2)
    ]
    if not any(zero):
        return Origin()
    x, y, z = (*(-_shortest(pixel) for pixel in zero), 0.0)[:3]
    tag = "DM tags Calibrations.Dimension.Origin"
    return Origin(voxels_zyx=(z, y, x), provenance=tag, axes="zyx" if stack else "yx")


def microscope_facts(
    tree: TagTree, tags: TagGroup
) -> tuple[str | None, dict[str, str | int | float], tuple[str, ...]]:
    """Date (ISO 8601), chosen facts, and notes."""
    facts: dict[str, str | int | float] = {}
    for key, path in _FACTS:
        value = tags.find(*path)
        text = tree.text(value)
        if text is not None and 0 < len(text) <= _LONGEST_TEXT and not re.search(r"[/\\]", text):
            facts[key] = text.strip()
        elif _number(value) is not None:
            facts[key] = value if isinstance(value, int) else _shortest(value)
    date, notes = _date(tree, tags)
    return date, facts, notes


def _date(tree: TagTree, tags: TagGroup) -> tuple[str | None, tuple[str, ...]]:
    """``DataBar``'s date is written in the language of the machine; DigiScan's stamp is not."""
    text = tree.text(tags.find("DataBar", "Acquisition Date")) or ""
    stamp = _stamp(tree, tags)
    match = _DATE.match(text)
    if match is None:
        return (stamp.isoformat() if stamp else None), ()
    first, separator, second, year = match[1], match[2], match[3], match[4]
    day_first = _calendar(year, second, first)
    month_first = _calendar(year, first, second)
    readings = {day for day in (day_first, month_first) if day is not None}
    if stamp is not None and readings:
        nearest = min(readings, key=lambda day: abs((day - stamp).days))
        if abs((nearest - stamp).days) <= 1:  # a recording may pass midnight
            return nearest.isoformat(), ()
        return None, (f"acquisition date {text.strip()!r} contradicts DigiScan's {stamp}",)
    if len(readings) == 1:
        return readings.pop().isoformat(), ()
    if separator == "." and day_first is not None:  # no language writes month.day.year
        return day_first.isoformat(), ()
    return None, (f"acquisition date {text.strip()!r} can be read in two ways",) if readings else ()


def _stamp(tree: TagTree, tags: TagGroup) -> datetime.date | None:
    scan = tags.get("DigiScan")
    for _, value in scan.walk() if isinstance(scan, TagGroup) else ():
        match = _STAMP.match(tree.text(value) or "")
        if match and match["month"] in _MONTHS:
            month = str(_MONTHS.index(match["month"]) + 1)
            return _calendar(match["year"], month, match["day"])
    return None


def _calendar(year: str, month: str, day: str) -> datetime.date | None:
    try:
        return datetime.date(int(year), int(month), int(day))
    except ValueError:
        return None


def _length(tree: TagTree, calibration: Any) -> float | None:
    if not isinstance(calibration, TagGroup):
        return None
    scale, unit = _number(calibration.get("Scale")), tree.text(calibration.get("Units"))
    if scale is None or not unit:
        return None
    return positive(to_nm(_shortest(scale), unit))


def _units(tree: TagTree, data: TagGroup) -> list[str]:
    """The units of the axes, x first, empty where there is none."""
    texts = (tree.text(data.find("Calibrations", "Dimension", axis, "Units")) for axis in range(3))
    return [(text or "").strip()[:40] for text in texts]


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def _shortest(value: float) -> float:
    """The shortest decimal of the same f32, as scales are: 7.99825 and not 7.99825042."""
    narrow = np.float32(value) if abs(value) < 3e38 else None
    return float(str(narrow)) if narrow is not None and float(narrow) == value else value
