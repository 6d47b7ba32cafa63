"""What an MRC header says of the voxels' size and place, and which of it is applied.

MRC2014 (Cheng et al. 2015, doi:10.1016/j.jsb.2015.04.002) and IMOD's additions to it.

- Voxel size: cell edges over MX, MY, MZ. Not along z where the header calls the file a stack of
  images (space group 0 with MZ 1) or gives each section a tilt angle: its cell has no depth.
- Place of the first voxel: the words ORIGIN where any of them is set, else NXSTART, NYSTART and
  NZSTART, counted in voxels along columns, rows and sections. EMDB's maps use the latter, IMOD and
  most tomography programs the former; where both are set and disagree, that is noted. IMOD keeps
  ORIGIN with the opposite sign, unless a flag of its own or the header's version says otherwise.
- Cell angles other than 90 degrees are refused: such voxels are no boxes.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from lib.errors import UnsupportedFormatError
from lib.formats.calibration import Origin, VoxelSize, positive

IMOD_STAMP = 1146047817
_INVERTED_ORIGIN = 4  # bit of IMOD's flags
_VERSIONS = (20140, 20141)
_SERIAL_BYTES = {1: 2, 2: 6, 4: 4, 8: 2, 16: 2, 32: 4}  # SerialEM's flags: bytes a section
_TILT_ANGLE = 1
_UNREAD_EXTENSIONS = (b"AGAR", b"FEI1", b"FEI2")
_FURTHEST_VOXEL = 10**8
_FURTHEST_ANGSTROM = 1e12


@dataclass(frozen=True, slots=True)
class MrcGeometry:
    """Size and place of the voxels by the header's account, and what is not applied of it."""

    voxel: VoxelSize
    origin: Origin
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a header that speak of geometry; triples in x, y, z but for ``first``."""

    order: str
    raw: bytes
    sections: int
    first: tuple[int, int, int]  # NXSTART, NYSTART, NZSTART: of columns, rows, sections
    samples: tuple[int, int, int]  # MX, MY, MZ
    cell_angstrom: tuple[float, float, float]
    angles: tuple[float, float, float]
    axes: tuple[int, int, int]  # axis (0 = x) of columns, rows, sections
    space_group: int
    has_map: bool

    def unpack(self, format_: str, offset: int) -> tuple[int | float, ...]:
        """Further words at a byte of the header."""
        size = struct.calcsize("<" + format_)
        return struct.unpack(self.order + format_, self.raw[offset : offset + size])

    @property
    def is_imod(self) -> bool:
        return self.unpack("i", 152)[0] == IMOD_STAMP


def read_geometry(words: Words, name: str) -> MrcGeometry:
    """Read it.

    Raises
    ------
    UnsupportedFormatError
        The cell is not rectangular.
    """
    angle_notes = _check_angles(words, name)
    no_depth = _without_depth(words)
    voxel = _voxel(words, depth=not no_depth)
    origin, origin_notes = _origin(words)
    return MrcGeometry(voxel, origin, (*angle_notes, *no_depth, *origin_notes, *_unread(words)))


def _check_angles(words: Words, name: str) -> tuple[str, ...]:
    if words.angles == (0, 0, 0):  # never filled in
        return ()
    sane = all(math.isfinite(a) and 0 < a < 180 for a in words.angles)
    text = ", ".join(f"{angle:g}" for angle in words.angles)
    if not sane:
        return (f"the cell angles ({text}) make no sense and are taken as 90 degrees",)
    if any(abs(angle - 90) > 0.01 for angle in words.angles):
        raise UnsupportedFormatError(
            f"the cell angles are {text} degrees: the voxels are no boxes, and the volume would be "
            "sheared",
            location=name,
            advice="Resample the map to a rectangular cell, or leave the file out",
        )
    return ()


def _without_depth(words: Words) -> tuple[str, ...]:
    """Why the sections are no steps of a length along z; empty where they may be."""
    if words.sections == 1:
        return ()
    if _has_tilt_angles(words):
        return (
            "the extended header gives a tilt angle for each section: a tilt series, whose "
            "sections lie at no z",
        )
    if words.space_group == 0 and words.samples[2] == 1:
        return (
            f"the header calls the {words.sections} sections a stack of images (space group 0, "
            "MZ 1): their distance is unknown",
        )
    return ()


def _has_tilt_angles(words: Words) -> bool:
    """SerialEM's extended header, by its name or by the bytes a section that its flags ask for."""
    size, flags = (int(word) for word in words.unpack("2h", 128))
    kind = words.raw[104:108]
    asked = sum(count for flag, count in _SERIAL_BYTES.items() if flags & flag)
    older = kind.strip(b"\0 ") == b"" and words.is_imod and 0 < size == asked
    return (kind == b"SERI" or older) and 0 < flags < 64 and bool(flags & _TILT_ANGLE)


def _voxel(words: Words, *, depth: bool) -> VoxelSize:
    """Cell edges over samples, x y z in ångström; zero and negative ones (seen) are unknown."""

    def length(cell: float, count: int) -> float | None:
        if count <= 0 or not math.isfinite(cell):
            return None
        return positive(float(f"{_shortest(cell) / count / 10:.7g}"))

    pairs = zip(words.cell_angstrom, words.samples, strict=True)
    x_nm, y_nm, z_nm = (length(cell, count) for cell, count in pairs)
    z_nm = z_nm if depth else None
    if x_nm is y_nm is z_nm is None:
        return VoxelSize()
    return VoxelSize(z_nm, y_nm, x_nm, provenance="MRC header (cell over samples)")


def _origin(words: Words) -> tuple[Origin, tuple[str, ...]]:
    first, notes = _first_voxel(words)
    angstrom, more = _origin_words(words)
    notes += more
    if angstrom is None:
        return first, notes
    z, y, x = (float(f"{a / 10:.7g}") for a in reversed(angstrom))
    origin = Origin(nm_zyx=(z, y, x), provenance="MRC header (ORIGIN)")
    if first.voxels_zyx is not None:
        text = ", ".join(f"{n:g}" for n in first.voxels_zyx)
        placed = ", ".join(f"{n:g}" for n in (z, y, x))
        notes += (
            f"the header states the first voxel twice: ORIGIN {placed} nm (z, y, x), which was "
            f"taken, and NXSTART and the like {text} voxels",
        )
    return origin, notes


def _first_voxel(words: Words) -> tuple[Origin, tuple[str, ...]]:
    if words.first == (0, 0, 0):
        return Origin(), ()
    if any(abs(n) > _FURTHEST_VOXEL for n in words.first):
        return Origin(), (f"NXSTART, NYSTART, NZSTART {words.first} make no sense",)
    xyz = [0, 0, 0]
    for axis, start in zip(words.axes, words.first, strict=True):
        xyz[axis] = start
    x, y, z = xyz
    return Origin(voxels_zyx=(z, y, x), provenance="MRC header (NXSTART, NYSTART, NZSTART)"), ()


def _origin_words(words: Words) -> tuple[tuple[float, float, float] | None, tuple[str, ...]]:
    """The words ORIGIN in ångström as MRC2014 means them; None where they are not set."""
    x, y, z = (_shortest(float(word)) for word in words.unpack("3f", 196))
    if (x, y, z) == (0, 0, 0):
        return None, ()
    if not words.has_map:
        return None, ("without the MAP identifier the header's words for an origin are not read",)
    if not all(math.isfinite(n) and abs(n) < _FURTHEST_ANGSTROM for n in (x, y, z)):
        return None, (f"the header's ORIGIN ({x}, {y}, {z}) makes no sense",)
    flags, version = int(words.unpack("i", 156)[0]), words.unpack("i", 108)[0]
    if words.is_imod and not flags & _INVERTED_ORIGIN and version not in _VERSIONS:
        return (-x, -y, -z), ("ORIGIN has the sign that IMOD gives it, and was turned round",)
    return (x, y, z), ()


def _unread(words: Words) -> tuple[str, ...]:
    """What else the header may say of geometry, and is not read."""
    notes: tuple[str, ...] = ()
    kind = words.raw[104:108]
    if kind in _UNREAD_EXTENSIONS and int(words.unpack("i", 92)[0]):
        notes += (f"the extended header ({kind.decode()}) is not read",)
    turned = [_shortest(float(angle)) for angle in words.unpack("3f", 184)]
    if words.is_imod and any(math.isfinite(a) and a for a in turned):
        text = ", ".join(f"{angle:g}" for angle in turned)
        notes += (f"IMOD says that the volume was turned by {text} degrees about x, y, z",)
    return notes


def _shortest(value: float) -> float:
    """The shortest decimal of the same f32."""
    return float(str(np.float32(value)))
