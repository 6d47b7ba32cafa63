"""Choosing a part of a volume, the same way for every archive."""

from __future__ import annotations

from dataclasses import dataclass

from lib.geometry import Box, LengthsZYX, ShapeZYX, parse_box


@dataclass(frozen=True, slots=True)
class Part:
    """The chosen box in the source's voxels, where it lies, and what its name ends with."""

    box: Box
    origin_nm_zyx: LengthsZYX
    suffix: str
    whole: bool

    @property
    def chosen(self) -> Box | None:
        """For a plan's ``box_zyx``: None for the whole volume."""
        return None if self.whole else self.box


def choose_part(
    text: str | None,
    shape_zyx: ShapeZYX,
    voxel_nm_zyx: LengthsZYX,
    origin_nm_zyx: LengthsZYX = (0.0, 0.0, 0.0),
) -> Part:
    """The part that the setting ``box`` names, or all of it.

    A part gets a name of its own, so that it never replaces the whole volume.
    """
    whole = Box.whole(shape_zyx)
    box = parse_box(text, shape_zyx, voxel_nm_zyx) if text else whole
    if box == whole:
        return Part(whole, origin_nm_zyx, "", True)
    z, y, x = (
        o + a * v for o, a, v in zip(origin_nm_zyx, box.start_zyx, voxel_nm_zyx, strict=True)
    )
    bounds = zip("zyx", box.start_zyx, box.stop_zyx, strict=True)
    return Part(box, (z, y, x), "".join(f"_{axis}{a}-{b}" for axis, a, b in bounds), False)
