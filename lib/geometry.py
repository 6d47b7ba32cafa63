"""Triples with their axis order in the name, and boxes of voxels.

Inside macroscope every triple is ``z, y, x`` and every length is in nanometres. Archives that
speak ``x, y, z``, micrometres or ångström are converted where their answers are parsed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lib.errors import ConfigError, OutOfBoundsError

ShapeZYX = tuple[int, int, int]
LengthsZYX = tuple[float, float, float]  # nanometres


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
        z, y, x = (b - a for a, b in zip(self.start_zyx, self.stop_zyx, strict=True))
        return (z, y, x)

    @property
    def voxels(self) -> int:
        return math.prod(self.shape_zyx)

    @property
    def empty(self) -> bool:
        return any(n <= 0 for n in self.shape_zyx)

    def slices(self, origin_zyx: ShapeZYX = (0, 0, 0)) -> tuple[slice, slice, slice]:
        """Index of this box in an array whose first voxel lies at ``origin_zyx``."""
        z, y, x = (
            slice(a - o, b - o)
            for a, b, o in zip(self.start_zyx, self.stop_zyx, origin_zyx, strict=True)
        )
        return (z, y, x)

    def intersect(self, other: Box) -> Box:
        """The common part; may be ``empty``."""
        start = tuple(max(a, b) for a, b in zip(self.start_zyx, other.start_zyx, strict=True))
        stop = tuple(min(a, b) for a, b in zip(self.stop_zyx, other.stop_zyx, strict=True))
        return Box(start, stop)  # type: ignore[arg-type]

    def contains(self, other: Box) -> bool:
        return self.intersect(other) == other

    def shifted(self, by_zyx: ShapeZYX) -> Box:
        start = tuple(a + d for a, d in zip(self.start_zyx, by_zyx, strict=True))
        stop = tuple(b + d for b, d in zip(self.stop_zyx, by_zyx, strict=True))
        return Box(start, stop)  # type: ignore[arg-type]

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
