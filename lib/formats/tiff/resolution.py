"""The in-plane pixel size of TIFF's own resolution fields."""

from __future__ import annotations

from lib.formats.calibration import VoxelSize, pixel_nm
from lib.formats.tiff.ifd import Ifd
from lib.formats.tiff.imagej import X_RESOLUTION, Y_RESOLUTION

_UNITS = {2: "inch", 3: "cm"}
_LARGEST_NM = 20_000.0  # a larger "pixel" is a printing resolution such as 72 or 300 dots an inch


def resolution_voxel(ifd: Ifd) -> VoxelSize:
    """Pixel size from XResolution, YResolution and ResolutionUnit; z is never known.

    Without a unit, or where the value is one that printing programs write by default, nothing is
    known.
    """
    unit = _UNITS.get(ifd.integer(296, 2) if X_RESOLUTION in ifd.entries else 1)
    if unit is None:
        return VoxelSize()

    def size(tag: int) -> float | None:
        length = pixel_nm(ifd.ratio(tag), unit)
        return length if length is not None and length <= _LARGEST_NM else None

    y_nm, x_nm = size(Y_RESOLUTION), size(X_RESOLUTION)
    if y_nm is None and x_nm is None:
        return VoxelSize()
    return VoxelSize(None, y_nm, x_nm, provenance="TIFF resolution fields")
