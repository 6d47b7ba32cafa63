"""The size and the place of voxels that a file itself gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lib.geometry import LengthsZYX, zyx
from lib.units import nm_per


@dataclass(frozen=True, slots=True)
class VoxelSize:
    """Lengths in nanometres, None where the file does not say; nothing is guessed.

    Attributes
    ----------
    provenance
        Which fields of the file the lengths came from.
    assumed
        Those of the axes ``zyx`` whose length rests on a default: a number without a unit, say.
    """

    z_nm: float | None = None
    y_nm: float | None = None
    x_nm: float | None = None
    provenance: str | None = None
    assumed: str = ""

    @property
    def known_nm_zyx(self) -> LengthsZYX | None:
        """All three lengths, or None if one is unknown."""
        if self.z_nm is None or self.y_nm is None or self.x_nm is None:
            return None
        return (self.z_nm, self.y_nm, self.x_nm)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the centre of the first voxel lies; both None where the file does not say.

    Attributes
    ----------
    voxels_zyx
        In voxels: a file that counts from elsewhere, or says which voxel is zero.
    nm_zyx
        In nanometres.
    provenance
        Which fields of the file say so.
    axes
        Those of the axes ``zyx`` of which they speak; zero stands for the others.
    """

    voxels_zyx: LengthsZYX | None = None
    nm_zyx: LengthsZYX | None = None
    provenance: str | None = None
    axes: str = "zyx"

    @property
    def stated(self) -> bool:
        return self.voxels_zyx is not None or self.nm_zyx is not None

    def at(self, voxel_nm_zyx: LengthsZYX) -> LengthsZYX:
        """In nanometres, for voxels of this size; the zero point where nothing is stated."""
        if self.nm_zyx is not None:
            return self.nm_zyx
        pairs = zip(self.voxels_zyx or (0.0, 0.0, 0.0), voxel_nm_zyx, strict=True)
        return zyx(float(f"{n * length:.9g}") + 0.0 for n, length in pairs)


def positive(value: float | None) -> float | None:
    """`value` if it can be the length of a voxel, else None."""
    return value if value is not None and math.isfinite(value) and value > 0 else None


def pixel_nm(per_unit: float | None, unit: str) -> float | None:
    """Length of a pixel in nm where a file gives pixels per `unit`; None where that is nothing.

    Nine digits are kept: a ratio of two 32-bit integers has no more, and 1/50 µm shall be 20 nm.
    """
    unit_nm = nm_per(unit)
    if positive(per_unit) is None or per_unit is None or unit_nm is None:
        return None
    return positive(float(f"{unit_nm / per_unit:.9g}"))
