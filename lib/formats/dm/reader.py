"""Images and stacks of Gatan Digital Micrograph (DM3, DM4).

Tag names as measured on files of GMS 3.21 (Gatan 3View on an FEI Quanta). Only listed tags are
taken: a whole tag dump holds user names and paths.
"""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lib.bytesource.base import ByteSource
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.dm.tags import ArrayTag, TagGroup, TagTree, read_tags
from lib.formats.format import Origin, VoxelSize, positive
from lib.formats.planes import RawPlanes
from lib.geometry import ShapeZYX, other_quantity, to_nm

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
    for n, unit in enumerate(_units(tree, data)[: 3 if stack else 2]):
        scale = _number(data.find("Calibrations", "Dimension", n, "Scale")) or 0.0
        # 0 and 1 without a unit are what an image without a calibration has
        if scale < 0 or (not unit and scale not in (0.0, 1.0)):
            said = f"{_shortest(scale):g} {unit} a pixel" if unit else f"{scale:g}, without a unit"
            notes += (f"axis {'xyz'[n]} is calibrated as {said}: not taken",)
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


# DataType of an image (not the encodings of tags): dtype, and the encoding of its Data array
_DATA_TYPES = {
    1: ("<i2", 2), 2: ("<f4", 6), 6: ("<u1", 10), 7: ("<i4", 3), 9: ("<i1", 9),
    10: ("<u2", 4), 11: ("<u4", 5), 12: ("<f8", 7),
}  # fmt: skip
_REFUSED = {
    3: "complex", 13: "complex", 14: "binary", 23: "coloured (RGBA)", 27: "packed complex",
}  # fmt: skip
_RGBA = 23
_NO_IMAGES = ("spectrum", "spectra", "diffraction", "chronograph")
_SERIES = {"reciprocal length": "a diffraction pattern", "angle": "a tilt series"}


@dataclass(frozen=True, slots=True)
class DmImage:
    """One image of a file, described; `DmReader` reads its voxels.

    Attributes
    ----------
    shape_zyx
        z is 1 for a single section.
    data_offset
        Byte at which the voxels begin; they lie in one piece in z, y, x order.
    facts
        A few facts about the microscope and the recording, chosen so that no path, file name or
        person is among them.
    acquired
        ISO 8601 date, or date and time; None where the file's date is ambiguous.
    """

    source: ByteSource = field(repr=False, compare=False)
    shape_zyx: ShapeZYX
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    data_offset: int
    voxel: VoxelSize
    origin: Origin
    version: int
    index: int
    images: int
    acquired: str | None
    facts: dict[str, str | int | float]
    notes: tuple[str, ...]


def open_dm(source: ByteSource) -> DmImage:
    """Describe the image of a DM file: not its thumbnail.

    Raises
    ------
    FormatError
        The file is damaged, cut short, or contradicts itself.
    UnsupportedFormatError
        Complex, binary or coloured images, spectra, or more than three axes.
    """
    tree = read_tags(source)
    images = tree.root.get("ImageList")
    if not isinstance(images, TagGroup) or not images.values:
        raise FormatError("the DM file holds no image", location=source.name)
    index, notes = _choose(tree, images)
    data = images.find(index, "ImageData")
    tags = images.find(index, "ImageTags")
    tags = tags if isinstance(tags, TagGroup) else TagGroup()
    shape_zyx, stored, array = _pixels(source, data, tags)
    voxel, voxel_notes = voxel_size(tree, data, tags, stack=shape_zyx[0] > 1)
    acquired, facts, fact_notes = microscope_facts(tree, tags)
    return DmImage(
        source=source,
        shape_zyx=shape_zyx,
        dtype=stored.newbyteorder("="),
        stored=stored,
        data_offset=array.offset,
        voxel=voxel,
        origin=first_voxel(data, stack=shape_zyx[0] > 1),
        version=tree.version,
        index=index,
        images=len(images.values),
        acquired=acquired,
        facts=facts,
        notes=notes + voxel_notes + fact_notes,
    )


def _choose(tree: TagTree, images: TagGroup) -> tuple[int, tuple[str, ...]]:
    """The image that the file displays, else the last that is no RGBA thumbnail."""
    types = [images.find(i, "ImageData", "DataType") for i in range(len(images.values))]
    real = [i for i, data_type in enumerate(types) if data_type != _RGBA]
    if not real:
        raise UnsupportedFormatError(
            "the DM file holds coloured images only", location=tree.source.name
        )
    shown = tree.root.find("ImageSourceList", 0, "ImageRef")
    index = shown if shown in real else real[-1]
    if len(real) == 1:
        return index, ()
    return index, (f"image {index} of {len(types)} is taken, which the file displays",)


def _pixels(
    source: ByteSource, data: Any, tags: TagGroup
) -> tuple[ShapeZYX, np.dtype[Any], ArrayTag]:
    if not isinstance(data, TagGroup):
        raise FormatError("the DM image has no ImageData", location=source.name)
    array, data_type = data.get("Data"), data.get("DataType")
    sizes = data.get("Dimensions")
    if not isinstance(array, ArrayTag) or not isinstance(sizes, TagGroup):
        raise FormatError("the DM image lacks Data or Dimensions", location=source.name)
    if not isinstance(data_type, int) or data_type not in _DATA_TYPES:
        what = _REFUSED.get(data_type, "unknown") if isinstance(data_type, int) else "unknown"
        raise UnsupportedFormatError(
            f"{what} DM images (DataType {data_type}) are not supported", location=source.name
        )
    size_xyz = list(sizes.values)
    if not size_xyz or not all(type(n) is int and n > 0 for n in size_xyz):
        raise FormatError(f"the DM image has the size {size_xyz[:8]}", location=source.name)
    while len(size_xyz) > 3 and size_xyz[-1] == 1:
        size_xyz.pop()
    if len(size_xyz) not in (2, 3):
        raise UnsupportedFormatError(
            f"a DM image of {len(size_xyz)} axes is no plane or stack", location=source.name
        )
    _refuse_other_axes(source, data, tags, len(size_xyz))
    dtype, encoding = _DATA_TYPES[data_type]
    stored = np.dtype(dtype)
    expected = math.prod(size_xyz) * stored.itemsize
    if array.encodings != (encoding,) or array.nbytes != expected:
        raise FormatError(
            f"the DM image of {size_xyz} (x, y, z) {stored.name} voxels needs {expected} bytes; "
            f"its data are {array.nbytes} bytes of encoding {array.encodings}",
            location=source.name,
        )
    depth = data.get("PixelDepth")
    if depth is not None and depth != stored.itemsize:
        raise FormatError(
            f"the DM image has PixelDepth {depth} and {stored.name} voxels", location=source.name
        )
    x, y, z = (*size_xyz, 1)[:3]
    return (z, y, x), stored, array


def _refuse_other_axes(source: ByteSource, data: TagGroup, tags: TagGroup, axes: int) -> None:
    """Spectra, diffraction patterns and series, by the format that the file names or by a unit."""
    tree = TagTree(source, 0, data)
    format_ = (tree.text(tags.find("Meta Data", "Format")) or "").strip()[:80]
    if any(word in format_.lower() for word in _NO_IMAGES):
        raise UnsupportedFormatError(
            f"the DM file calls itself {format_!r}: its axes are not all of space, and it is no "
            "volume",
            location=source.name,
        )
    for axis in range(axes):
        unit = (tree.text(data.find("Calibrations", "Dimension", axis, "Units")) or "").strip()
        quantity = other_quantity(unit)
        if quantity is not None:
            what = _SERIES.get(quantity, "a spectrum or a series")
            raise UnsupportedFormatError(
                f"axis {'xyz'[axis]} of the DM image is in {unit!r} ({quantity}): {what}, not a "
                "volume",
                location=source.name,
            )


class DmReader(RawPlanes):
    """Voxels of a `DmImage`, rows as they lie in the file."""

    def __init__(self, image: DmImage) -> None:
        super().__init__(image.source, image.data_offset, image.shape_zyx, image.stored)
