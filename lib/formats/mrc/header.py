"""The 1024-byte header of MRC2014 and IMOD files (MRC, REC, ST, ALI, MAP).

What an MRC header says of the voxels' size and place, and which of it is applied.

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
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from lib.about import Stated
from lib.bytesource.base import ByteSource
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.base import WIDENED
from lib.formats.format import Origin, VoxelSize, positive
from lib.geometry import ShapeZYX

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
    """Read it. Raises `UnsupportedFormatError`: the cell is not rectangular."""
    angle_notes = _check_angles(words, name)
    no_depth = _without_depth(words)
    voxel = _voxel(words, depth=not no_depth)
    origin, origin_notes = _origin(words)
    notes = (*angle_notes, *no_depth, *origin_notes, *_unread(words))
    pairs = zip(words.cell_angstrom, words.samples, strict=True)
    if voxel.x_nm is not None and all(cell == count for cell, count in pairs):
        voxel = replace(voxel, assumed="zyx" if voxel.z_nm is not None else "yx")
        notes += ("the header says 1 Å along every axis, as programs write that know no size",)
    return MrcGeometry(voxel, origin, notes)


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
    if any(not cell >= 0 or math.isinf(cell) for cell in words.cell_angstrom):
        said = ", ".join(f"{cell:g}" for cell in words.cell_angstrom)
        notes += (f"the header's cell edges {said} (x, y, z) are not all lengths",)
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


HEADER_BYTES = 1024
_ORDERS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
_STAMPS = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">", b"\x17\x17": ">"}
_IMOD_SIGNED, _IMOD_HALF_BYTES = 1, 16  # bits of IMOD's flags
_MODES = {1: "i2", 2: "f4", 6: "u2", 12: "f2"}  # 0 needs a closer look
_REFUSED = {3: "complex int16", 4: "complex float32", 101: "4-bit", 16: "RGB"}
_VOLUME_STACK = 401
_MRC2014 = (20140, 20141)
BYTES = ("int8", "uint8")
Mode0 = Literal["auto", "int8", "uint8"]
Sections = Literal["header", "file"]


@dataclass(frozen=True, slots=True)
class MrcChoices:
    """How to read what a header leaves open.

    Attributes
    ----------
    mode0
        Bytes are signed, unsigned, or what the witnesses say: IMOD's flags, then the header's own
        minimum and maximum, then `stated`, then the rule of MRC2014 (signed).
    sections
        Who is believed where the file holds more sections than its header says; None: nobody.
    stated
        numpy name of the voxels by the archive's account, None where it gives none.
    """

    mode0: Mode0 = "auto"
    sections: Sections | None = None
    stated: str | None = None


@dataclass(frozen=True, slots=True)
class MrcHeader:
    """What a header says.

    Attributes
    ----------
    size_columns_rows_sections
        As the file stores them, fastest first.
    axis_columns_rows_sections
        The axis (0 = x, 1 = y, 2 = z) of columns, rows and sections.
    stored
        dtype in the file; float16 is delivered as float32.
    signedness
        Who decided between signed and unsigned bytes; None for other modes.
    data_offset
        Bytes before the voxels: header and extended header.
    """

    size_columns_rows_sections: tuple[int, int, int]
    axis_columns_rows_sections: tuple[int, int, int]
    stored: np.dtype[Any]
    data_offset: int
    voxel: VoxelSize
    origin: Origin
    signedness: Stated[str] | None
    notes: tuple[str, ...]

    @property
    def section_bytes(self) -> int:
        return math.prod(self.size_columns_rows_sections[:2]) * self.stored.itemsize

    @property
    def data_bytes(self) -> int:
        return math.prod(self.size_columns_rows_sections) * self.stored.itemsize

    @property
    def shape_zyx(self) -> ShapeZYX:
        size_xyz = [0, 0, 0]
        pairs = zip(self.axis_columns_rows_sections, self.size_columns_rows_sections, strict=True)
        for axis, size in pairs:
            size_xyz[axis] = size
        return (size_xyz[2], size_xyz[1], size_xyz[0])


def parse_header(source: ByteSource, choices: MrcChoices | None = None) -> MrcHeader:
    """Read a header; whether the voxels are all there is for the caller to check.

    Raises
    ------
    FormatError
        Not an MRC file, or its header makes no sense.
    UnsupportedFormatError
        A mode that is not converted, or a cell that is not rectangular.
    """
    choices = choices or MrcChoices()
    raw = source.read(0, HEADER_BYTES)
    order, notes = _byte_order(raw, source.name)
    words = struct.unpack(order + "10i6f3i3f2i", raw[:96])
    size, mode, samples = words[0:3], words[3], words[7:10]
    axes, ispg, nsymbt = words[16:19], words[22], words[23]
    has_map = raw[208:211] == b"MAP"
    if not has_map:
        notes.append("the header lacks the MAP identifier (written before the year 2000?)")
    if min(size) <= 0:
        raise FormatError(f"the MRC header gives the size {size} (x, y, z)", location=source.name)
    if nsymbt < 0:
        raise FormatError(f"the MRC extended header has {nsymbt} bytes", location=source.name)
    if sorted(axes) != [1, 2, 3]:
        if axes != (0, 0, 0):
            raise FormatError(
                f"MRC axes {axes} are not 1, 2, 3 in some order", location=source.name
            )
        axes = (1, 2, 3)
        notes.append("the header names no axes; columns, rows, sections are taken as x, y, z")
    if ispg >= _VOLUME_STACK:
        raise UnsupportedFormatError(
            f"the MRC file is a stack of volumes (space group {ispg})", location=source.name
        )
    stored, signedness, mode_notes = _dtype(raw, order, mode, source.name, choices)
    axis = (axes[0] - 1, axes[1] - 1, axes[2] - 1)
    spoken = Words(
        order, raw, size[2], words[4:7], samples, words[10:13], words[13:16], axis, ispg, has_map
    )
    geometry = read_geometry(spoken, source.name)
    return MrcHeader(
        size_columns_rows_sections=(size[0], size[1], size[2]),
        axis_columns_rows_sections=axis,
        stored=stored,
        data_offset=HEADER_BYTES + nsymbt,
        voxel=geometry.voxel,
        origin=geometry.origin,
        signedness=signedness,
        notes=(*notes, *mode_notes, *geometry.notes),
    )


def _byte_order(raw: bytes, name: str) -> tuple[Literal["<", ">"], list[str]]:
    """By the machine stamp, else by which order makes the header plausible."""
    stamp = raw[212:214]
    known = _STAMPS.get(stamp)
    plausible = [order for order in _ORDERS.values() if _plausible(raw, order)]
    if known in plausible or (known is not None and len(plausible) != 1):
        return ("<", []) if known == "<" else (">", [])
    if len(plausible) == 1:
        note = f"byte order taken from the header's numbers: machine stamp {stamp.hex(' ')}"
        return plausible[0], [note]
    raise FormatError(
        f"the file is not MRC, or its header is damaged (machine stamp {stamp.hex(' ')})",
        location=name,
    )


def _plausible(raw: bytes, order: str) -> bool:
    words = struct.unpack(order + "4i", raw[:16])
    axes = struct.unpack(order + "3i", raw[64:76])
    return (
        min(words[:3]) > 0
        and (words[3] in _MODES or words[3] in _REFUSED or words[3] == 0)
        and (sorted(axes) == [1, 2, 3] or axes == (0, 0, 0))
    )


def _dtype(
    raw: bytes, order: str, mode: int, name: str, choices: MrcChoices
) -> tuple[np.dtype[Any], Stated[str] | None, list[str]]:
    if mode in _MODES:
        notes = [WIDENED] if mode == 12 else []
        return np.dtype(order + _MODES[mode]), None, notes
    if mode != 0:
        what = _REFUSED.get(mode, "unknown")
        raise UnsupportedFormatError(f"MRC mode {mode} ({what}) is not supported", location=name)
    stamp, flags = struct.unpack(order + "2i", raw[152:160])
    if stamp == IMOD_STAMP and flags & _IMOD_HALF_BYTES:
        raise UnsupportedFormatError(
            "MRC mode 0 with two 4-bit voxels in each byte (IMOD) is not supported", location=name
        )
    decided, notes = _signedness(raw, order, choices)
    return np.dtype(decided.value), decided, notes


def _signedness(raw: bytes, order: str, choices: MrcChoices) -> tuple[Stated[str], list[str]]:
    """int8 or uint8, who says so, and what is doubtful about it."""
    if choices.mode0 != "auto":
        return Stated(choices.mode0, "configuration", "mrc_mode0"), []
    stamp, flags = struct.unpack(order + "2i", raw[152:160])
    if stamp == IMOD_STAMP:
        return Stated("int8" if flags & _IMOD_SIGNED else "uint8", "file", "IMOD's flags"), []
    least, most = struct.unpack(order + "2f", raw[76:84])
    if math.isfinite(most) and 127 < most <= 255 and least >= 0:
        note = f"mode 0 is read as unsigned: the header's maximum is {most:g} (older IMOD)"
        return Stated("uint8", "file", "the header's maximum"), [note]
    if math.isfinite(least) and -128 <= least < 0 and most <= 127:
        return Stated("int8", "file", "the header's minimum"), []
    (version,) = struct.unpack(order + "i", raw[108:112])
    rule = "MRC2014's signed bytes" if version in _MRC2014 else "neither by a rule nor by a flag"
    if choices.stated in BYTES:
        note = f"mode 0 is read as {choices.stated}, as the archive says; the file says {rule}"
        agreed = version in _MRC2014 and choices.stated == "int8"
        return Stated(choices.stated, "api", "voxel type"), [] if agreed else [note]
    if version in _MRC2014:
        return Stated("int8", "file", f"NVERSION {version}: bytes are signed by MRC2014"), []
    note = (
        "mode 0 is read as signed (MRC2014): nothing in the file and nobody says so, and older "
        "IMOD wrote unsigned bytes; the setting mrc_mode0 decides otherwise"
    )
    return Stated("int8", "assumed", "MRC2014's rule for mode 0"), [note]
