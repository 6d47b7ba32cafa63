"""What a TIFF says of pixel size and place, out of its resolution, position and private tags."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lib.formats.format import Origin, VoxelSize, pixel_nm
from lib.formats.tiff.ifd import Ifd
from lib.formats.tiff.page import Page
from lib.formats.tiff.vendor import LARGEST_NM, X_RESOLUTION, Y_RESOLUTION, vendor_facts
from lib.geometry import to_nm

UNITS = {2: "inch", 3: "cm"}  # ResolutionUnit


def resolution_voxel(ifd: Ifd) -> tuple[VoxelSize, tuple[str, ...]]:
    """Pixel size from XResolution, YResolution and ResolutionUnit, and notes; z is never known.

    Without a unit, or where the value is one that printing programs write by default, nothing is
    known.
    """
    if X_RESOLUTION not in ifd.entries and Y_RESOLUTION not in ifd.entries:
        return VoxelSize(), ()
    unit = UNITS.get(ifd.integer(296, 2))
    ratios = (ifd.ratio(Y_RESOLUTION), ifd.ratio(X_RESOLUTION))
    said = ", ".join("none" if ratio is None else f"{ratio:g}" for ratio in ratios)
    if unit is None:
        if all(ratio in (None, 1.0) for ratio in ratios):  # no more than square pixels
            return VoxelSize(), ()
        return VoxelSize(), (f"TIFF resolution {said} (y, x) has no unit and is not read",)
    lengths = [pixel_nm(ratio, unit) for ratio in ratios]
    y_nm, x_nm = (n if n is not None and n <= LARGEST_NM else None for n in lengths)
    if y_nm is None and x_nm is None:
        note = f"TIFF resolution {said} (y, x) in pixels per {unit} is none of a microscope"
        return VoxelSize(), (note,)
    return VoxelSize(None, y_nm, x_nm, provenance="TIFF resolution fields"), ()


_X_POSITION, _Y_POSITION = 286, 287
# Orientation: rows and columns change places; then y, then x runs the other way
_TURNS = {
    1: (False, False, False), 2: (False, False, True),
    3: (False, True, True), 4: (False, True, False),
    5: (True, False, False), 6: (True, False, True),
    7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """How stored rows and columns become y and x, by the field Orientation.

    Attributes
    ----------
    swapped
        Stored rows run along x. Applied first.
    flip_y, flip_x
        The axis runs the other way.
    """

    swapped: bool = False
    flip_y: bool = False
    flip_x: bool = False

    @classmethod
    def of(cls, orientation: int) -> Turn:
        """Of the field's value; what means nothing is the usual one (1)."""
        return cls(*_TURNS.get(orientation, _TURNS[1]))

    @property
    def none(self) -> bool:
        return not (self.swapped or self.flip_y or self.flip_x)


@dataclass(frozen=True, slots=True)
class TiffGeometry:
    """Size and place of pixels, doubts, and facts for the record."""

    voxel: VoxelSize = field(default_factory=VoxelSize)
    origin: Origin = field(default_factory=Origin)
    notes: tuple[str, ...] = ()
    facts: dict[str, str | int | float] = field(default_factory=dict)


def page_geometry(ifd: Ifd, page: Page) -> TiffGeometry:
    """Of a page without a description of its own: private tags, then the resolution fields."""
    vendor = vendor_facts(ifd, page.kind.height, page.kind.width)
    resolution, notes = resolution_voxel(ifd)
    if vendor.voxel.x_nm is None and vendor.voxel.y_nm is None:
        voxel = resolution
    else:
        voxel = vendor.voxel
        notes += _disagreements(resolution, voxel)
    origin = _position(ifd)
    return TiffGeometry(_turned(voxel, page), origin, (*vendor.notes, *notes), vendor.facts)


def described_geometry(ifd: Ifd, page: Page, own: VoxelSize) -> TiffGeometry:
    """Of a page whose description gives the voxel size; private tags fill what it leaves open."""
    vendor = vendor_facts(ifd, page.kind.height, page.kind.width)
    notes = [*vendor.notes, *_disagreements(vendor.voxel, own)]
    voxel = own
    if own.x_nm is None and own.y_nm is None and vendor.voxel.x_nm is not None:
        provenance = " and ".join(filter(None, (own.provenance, vendor.voxel.provenance)))
        voxel = VoxelSize(own.z_nm, vendor.voxel.y_nm, vendor.voxel.x_nm, provenance)
    place = _position(ifd)
    if place.nm_zyx is not None:
        at = ", ".join(f"{n:g}" for n in place.nm_zyx[1:])
        notes.append(f"XPosition and YPosition ({at} nm, y and x) are not applied")
    return TiffGeometry(voxel, Origin(), tuple(notes), vendor.facts)


def _turned(voxel: VoxelSize, page: Page) -> VoxelSize:
    """Resolutions belong to stored rows and columns."""
    if not Turn.of(page.kind.orientation).swapped:
        return voxel
    return VoxelSize(voxel.z_nm, voxel.x_nm, voxel.y_nm, voxel.provenance)


def _disagreements(other: VoxelSize, taken: VoxelSize) -> tuple[str, ...]:
    by = taken.provenance
    return tuple(
        f"{other.provenance}: {theirs:g} nm along {axis}; {ours:g} nm ({by}) was taken"
        for axis, theirs, ours in (
            ("y", other.y_nm, taken.y_nm),
            ("x", other.x_nm, taken.x_nm),
        )
        if theirs is not None and ours is not None and not math.isclose(theirs, ours, rel_tol=0.01)
    )


def _position(ifd: Ifd) -> Origin:
    """XPosition and YPosition in ResolutionUnit; nothing where both are zero or unit-less."""
    x, y = ifd.ratio(_X_POSITION), ifd.ratio(_Y_POSITION)
    unit = UNITS.get(ifd.integer(296, 2))
    if unit is None or not (x or y):
        return Origin()
    lengths = [to_nm(value or 0.0, unit) for value in (y, x)]
    if None in lengths:
        return Origin()
    y_nm, x_nm = (float(f"{length:.9g}") for length in lengths if length is not None)
    tag = "TIFF XPosition and YPosition"
    return Origin(nm_zyx=(0.0, y_nm, x_nm), provenance=tag, axes="yx")
