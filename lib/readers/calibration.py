"""The voxel size that a file itself gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lib.geometry import LengthsZYX


@dataclass(frozen=True, slots=True)
class VoxelSize:
    """Lengths in nanometres, None where the file does not say; nothing is guessed.

    Attributes
    ----------
    provenance
        Which fields of the file the lengths came from.
    """

    z_nm: float | None = None
    y_nm: float | None = None
    x_nm: float | None = None
    provenance: str | None = None

    @property
    def known_nm_zyx(self) -> LengthsZYX | None:
        """All three lengths, or None if one is unknown."""
        if self.z_nm is None or self.y_nm is None or self.x_nm is None:
            return None
        return (self.z_nm, self.y_nm, self.x_nm)


def positive(value: float | None) -> float | None:
    """`value` if it can be the length of a voxel, else None."""
    return value if value is not None and math.isfinite(value) and value > 0 else None
