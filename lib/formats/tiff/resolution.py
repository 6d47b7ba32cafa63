"""The in-plane pixel size of TIFF's own resolution fields."""

from __future__ import annotations

from lib.formats.calibration import VoxelSize, pixel_nm
from lib.formats.tiff.ifd import Ifd
from lib.formats.tiff.imagej import X_RESOLUTION, Y_RESOLUTION

UNITS = {2: "inch", 3: "cm"}  # ResolutionUnit
_LARGEST_NM = 20_000.0  # a larger "pixel" is a printing resolution such as 72 or 300 dots an inch


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
    y_nm, x_nm = (n if n is not None and n <= _LARGEST_NM else None for n in lengths)
    if y_nm is None and x_nm is None:
        note = f"TIFF resolution {said} (y, x) in pixels per {unit} is none of a microscope"
        return VoxelSize(), (note,)
    return VoxelSize(None, y_nm, x_nm, provenance="TIFF resolution fields"), ()
