"""Triples with their axis order in the name, and boxes of voxels.

Inside macroscope every triple is ``z, y, x`` and every length is in nanometres. Archives that
speak ``x, y, z``, micrometres or ångström are converted where their answers are parsed.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from lib.errors import ConfigError, OutOfBoundsError

T = TypeVar("T")
Number = TypeVar("Number", int, float)

ZYX = tuple[T, T, T]
ShapeZYX = ZYX[int]
LengthsZYX = ZYX[float]  # nanometres


def zyx(values: Iterable[T]) -> ZYX[T]:
    """Three values as a triple; raises `ValueError` if they are not three."""
    z, y, x = values
    return (z, y, x)


# Written out, because they are called a dozen times for each chunk: loops take five times as long.
def add(a_zyx: ZYX[Number], b_zyx: ZYX[Number]) -> ZYX[Number]:
    """The sum, axis by axis; so are the next ones."""
    (az, ay, ax), (bz, by, bx) = a_zyx, b_zyx
    return (az + bz, ay + by, ax + bx)


def subtract(a_zyx: ZYX[Number], b_zyx: ZYX[Number]) -> ZYX[Number]:
    (az, ay, ax), (bz, by, bx) = a_zyx, b_zyx
    return (az - bz, ay - by, ax - bx)


def multiply(a_zyx: ZYX[Number], b_zyx: ZYX[Number]) -> ZYX[Number]:
    (az, ay, ax), (bz, by, bx) = a_zyx, b_zyx
    return (az * bz, ay * by, ax * bx)


def floor_divide(a_zyx: ShapeZYX, b_zyx: ShapeZYX) -> ShapeZYX:
    (az, ay, ax), (bz, by, bx) = a_zyx, b_zyx
    return (az // bz, ay // by, ax // bx)


def ceil_divide(a_zyx: ShapeZYX, b_zyx: ShapeZYX) -> ShapeZYX:
    """How many pieces of `b_zyx` cover `a_zyx`."""
    (az, ay, ax), (bz, by, bx) = a_zyx, b_zyx
    return (-(-az // bz), -(-ay // by), -(-ax // bx))


def minimum(a_zyx: ShapeZYX, b_zyx: ShapeZYX) -> ShapeZYX:
    (az, ay, ax), (bz, by, bx) = a_zyx, b_zyx
    return (min(az, bz), min(ay, by), min(ax, bx))


def maximum(a_zyx: ShapeZYX, b_zyx: ShapeZYX) -> ShapeZYX:
    (az, ay, ax), (bz, by, bx) = a_zyx, b_zyx
    return (max(az, bz), max(ay, by), max(ax, bx))


def is_multiple(a_zyx: ShapeZYX, of_zyx: ShapeZYX) -> bool:
    """Whether `a_zyx` is a whole number of `of_zyx` on every axis."""
    return all(a % b == 0 for a, b in zip(a_zyx, of_zyx, strict=True))


@dataclass(frozen=True, order=True, slots=True)
class Box:
    """A half-open box of voxels, ``start <= voxel < stop``, in z, y, x."""

    start_zyx: ShapeZYX
    stop_zyx: ShapeZYX

    @classmethod
    def whole(cls, shape_zyx: ShapeZYX) -> Box:
        return cls((0, 0, 0), shape_zyx)

    @property
    def shape_zyx(self) -> ShapeZYX:
        return subtract(self.stop_zyx, self.start_zyx)

    @property
    def voxels(self) -> int:
        return math.prod(self.shape_zyx)

    @property
    def empty(self) -> bool:
        return any(n <= 0 for n in self.shape_zyx)

    def slices(self, origin_zyx: ShapeZYX = (0, 0, 0)) -> tuple[slice, slice, slice]:
        """Index of this box in an array whose first voxel lies at ``origin_zyx``."""
        starts, stops = subtract(self.start_zyx, origin_zyx), subtract(self.stop_zyx, origin_zyx)
        return zyx(map(slice, starts, stops))

    def intersect(self, other: Box) -> Box:
        """The common part; may be ``empty``."""
        return Box(maximum(self.start_zyx, other.start_zyx), minimum(self.stop_zyx, other.stop_zyx))

    def contains(self, other: Box) -> bool:
        return self.intersect(other) == other

    def shifted(self, by_zyx: ShapeZYX) -> Box:
        return Box(add(self.start_zyx, by_zyx), add(self.stop_zyx, by_zyx))

    def cells(self, cell_zyx: ShapeZYX) -> Box:
        """The cells, of a grid from voxel 0, that hold voxels of this box: a box of indices."""
        return Box(floor_divide(self.start_zyx, cell_zyx), ceil_divide(self.stop_zyx, cell_zyx))

    def indices(self) -> list[ShapeZYX]:
        """Every voxel's index, in C order."""
        spans = zip(self.start_zyx, self.stop_zyx, strict=True)
        z, y, x = (range(a, b) for a, b in spans)
        return list(itertools.product(z, y, x))

    def tiles(self, tile_zyx: ShapeZYX) -> Iterator[Box]:
        """Cut into tiles that start at this box's own corner, in C order."""
        for z in range(self.start_zyx[0], self.stop_zyx[0], tile_zyx[0]):
            for y in range(self.start_zyx[1], self.stop_zyx[1], tile_zyx[1]):
                for x in range(self.start_zyx[2], self.stop_zyx[2], tile_zyx[2]):
                    corner = (z, y, x)
                    stop = (z + tile_zyx[0], y + tile_zyx[1], x + tile_zyx[2])
                    yield Box(corner, stop).intersect(self)

    def __str__(self) -> str:
        return ",".join(
            f"{axis}={a}:{b}"
            for axis, a, b in zip("zyx", self.start_zyx, self.stop_zyx, strict=True)
        )


_AXIS = re.compile(
    r"^\s*(?P<axis>[zyx])\s*=\s*(?P<start>\d+(?:\.\d+)?)?\s*:\s*(?P<stop>\d+(?:\.\d+)?)?\s*(?P<unit>nm)?\s*$"
)


def box_axes(text: str) -> str:
    """Those of the axes ``zyx`` that a box in words names."""
    named = (_AXIS.match(part) for part in text.split(","))
    return "".join(match["axis"] for match in named if match is not None)


def parse_box(text: str, shape_zyx: ShapeZYX, voxel_nm_zyx: LengthsZYX) -> Box:
    """Read ``z=0:64,y=100:300nm,x=:300`` against a volume's shape and voxel size.

    Bounds are voxels, or nanometres from the volume's first voxel where ``nm`` follows; an absent
    axis or bound means all of it. Nanometres are widened to whole voxels.

    Raises
    ------
    ConfigError
        The text is not of that form.
    OutOfBoundsError
        The box is empty or reaches outside ``shape_zyx``.
    """
    start, stop = [0, 0, 0], list(shape_zyx)
    seen: set[str] = set()
    for part in text.split(","):
        match = _AXIS.match(part)
        if match is None or match["axis"] in seen:
            raise ConfigError(
                f"box: {part.strip()!r} is not of the form z=0:64 (voxels) or z=0:640nm",
                location="box",
            )
        seen.add(match["axis"])
        axis = "zyx".index(match["axis"])
        step = voxel_nm_zyx[axis] if match["unit"] else 1.0
        if not match["unit"] and "." in part:
            raise ConfigError(
                f"box: voxels are whole numbers, not {part.strip()!r}", location="box"
            )
        if match["start"] is not None:
            start[axis] = math.floor(float(match["start"]) / step + 1e-9)
        if match["stop"] is not None:
            stop[axis] = math.ceil(float(match["stop"]) / step - 1e-9)
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    if box.empty or not Box.whole(shape_zyx).contains(box):
        raise OutOfBoundsError(f"the box {box} is not inside the volume {Box.whole(shape_zyx)}")
    return box


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


def unlike(a_zyx: LengthsZYX, b_zyx: LengthsZYX) -> float:
    """How far lengths are from each other, by their logarithms."""
    return sum(abs(math.log(a / b)) for a, b in zip(a_zyx, b_zyx, strict=True))


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
