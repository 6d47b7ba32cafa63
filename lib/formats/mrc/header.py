"""The 1024-byte header of MRC2014 and IMOD files (MRC, REC, ST, ALI, MAP)."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lib.bytesource.base import ByteSource
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.calibration import VoxelSize, positive
from lib.geometry import ShapeZYX

HEADER_BYTES = 1024
_ORDERS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
_STAMPS = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">", b"\x17\x17": ">"}
_IMOD_STAMP = 1146047817
_IMOD_SIGNED = 1
_MODES = {1: "i2", 2: "f4", 6: "u2", 12: "f2"}  # 0 needs a closer look
_REFUSED = {3: "complex int16", 4: "complex float32", 101: "4-bit", 16: "RGB"}
_VOLUME_STACK = 401


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
    data_offset
        Bytes before the voxels: header and extended header.
    """

    size_columns_rows_sections: tuple[int, int, int]
    axis_columns_rows_sections: tuple[int, int, int]
    stored: np.dtype[Any]
    data_offset: int
    voxel: VoxelSize
    notes: tuple[str, ...]

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


def parse_header(source: ByteSource) -> MrcHeader:
    """Read a header; whether the voxels are all there is for the caller to check.

    Raises
    ------
    FormatError
        Not an MRC file, or its header makes no sense.
    UnsupportedFormatError
        A mode that is not converted.
    """
    raw = source.read(0, HEADER_BYTES)
    order, notes = _byte_order(raw, source.name)
    words = struct.unpack(order + "10i6f3i3f2i", raw[:96])
    size, mode, samples = words[0:3], words[3], words[7:10]
    cell_angstrom, axes, ispg, nsymbt = words[10:13], words[16:19], words[22], words[23]
    if raw[208:211] != b"MAP":
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
    stored, mode_notes = _dtype(raw, order, mode, source.name)
    return MrcHeader(
        size_columns_rows_sections=(size[0], size[1], size[2]),
        axis_columns_rows_sections=(axes[0] - 1, axes[1] - 1, axes[2] - 1),
        stored=stored,
        data_offset=HEADER_BYTES + nsymbt,
        voxel=_voxel(cell_angstrom, samples),
        notes=(*notes, *mode_notes),
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


def _dtype(raw: bytes, order: str, mode: int, name: str) -> tuple[np.dtype[Any], list[str]]:
    if mode in _MODES:
        notes = ["float16 voxels are widened to float32"] if mode == 12 else []
        return np.dtype(order + _MODES[mode]), notes
    if mode != 0:
        what = _REFUSED.get(mode, "unknown")
        raise UnsupportedFormatError(f"MRC mode {mode} ({what}) is not supported", location=name)
    stamp, flags = struct.unpack(order + "2i", raw[152:160])
    if stamp == _IMOD_STAMP:
        return np.dtype("i1" if flags & _IMOD_SIGNED else "u1"), []
    least, most = struct.unpack(order + "2f", raw[76:84])
    (version,) = struct.unpack(order + "i", raw[108:112])
    if math.isfinite(most) and 127 < most <= 255 and least >= 0:
        return np.dtype("u1"), [
            f"mode 0 is read as unsigned: the header's maximum is {most:g} (older IMOD)"
        ]
    if version in (20140, 20141) or (math.isfinite(least) and -128 <= least < 0):
        return np.dtype("i1"), []
    return np.dtype("i1"), ["mode 0 is read as signed (MRC2014); older IMOD wrote unsigned bytes"]


def _voxel(cell_angstrom: tuple[float, ...], samples: tuple[int, ...]) -> VoxelSize:
    """Cell edges over samples, x y z in ångström; zero and negative ones (seen) are unknown."""

    def length(cell: float, count: int) -> float | None:
        if count <= 0 or not math.isfinite(cell):
            return None
        return positive(float(f"{float(str(np.float32(cell))) / count / 10:.7g}"))

    x_nm, y_nm, z_nm = (length(c, n) for c, n in zip(cell_angstrom, samples, strict=True))
    if x_nm is y_nm is z_nm is None:
        return VoxelSize()
    return VoxelSize(z_nm, y_nm, x_nm, provenance="MRC header (cell over samples)")
