"""The 1024-byte header of MRC2014 and IMOD files (MRC, REC, ST, ALI, MAP)."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lib.bytesource.base import ByteSource
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.base import WIDENED
from lib.formats.calibration import Origin, VoxelSize
from lib.formats.mrc.geometry import IMOD_STAMP, Words, read_geometry
from lib.geometry import ShapeZYX
from lib.provenance import Stated

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
