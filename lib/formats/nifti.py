"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped.

nifti1.h, nifti2.h. ``dim`` is x, y, z, t. ``scl_slope`` and ``scl_inter`` are recorded and not
applied: voxels come out as they are stored.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from lib.bytesource.base import ByteSource
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.format import VoxelSize, positive
from lib.formats.planes import PlanesFormat, PlanesHeader, unpacked
from lib.geometry import zyx

_HEAD = 552
_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4",
    1024: "i8", 1280: "u8",
}  # fmt: skip
_NM = {1: 1e9, 2: 1e6, 3: 1e3}  # metre, millimetre, micrometre
_LABELS = 1002  # NIFTI_INTENT_LABEL


class NiftiFormat(PlanesFormat):
    """The one volume of a ``.nii`` or ``.nii.gz``."""

    name: ClassVar[str] = "nifti"
    title: ClassVar[str] = "NIfTI (also .gz)"
    suffixes: ClassVar[tuple[str, ...]] = (".nii", ".nii.gz")

    def fits(self, head: bytes, name: str) -> bool:
        if head[:2] == b"\x1f\x8b":
            head = _beginning(head)
        return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")

    def parse(self, source: ByteSource) -> PlanesHeader:
        head = source.read(0, min(source.size, 4096))
        packed = head[:2] == b"\x1f\x8b"
        if packed:
            head = _beginning(head)
        head = head.ljust(_HEAD, b"\0")
        size = struct.unpack("<i", head[:4])[0]
        order = "<" if size in (348, 540) else ">"
        (size,) = struct.unpack(f"{order}i", head[:4])
        if size not in (348, 540):
            raise FormatError("there is no NIfTI header", location=source.name)
        if size == 348:
            dim = struct.unpack(f"{order}8h", head[40:56])
            intent, kind, bits = struct.unpack(f"{order}3h", head[68:74])
            pixdim = struct.unpack(f"{order}8f", head[76:108])
            offset, slope, inter = struct.unpack(f"{order}3f", head[108:120])
            units, magic = head[123], head[344:348]
            turned = struct.unpack(f"{order}12f", head[280:328])
            codes = struct.unpack(f"{order}2h", head[252:256])
            rotation = struct.unpack(f"{order}6f", head[256:280])
        else:
            dim = struct.unpack(f"{order}8q", head[16:80])
            kind, bits = struct.unpack(f"{order}2h", head[12:16])
            (intent,) = struct.unpack(f"{order}i", head[504:508])
            pixdim = struct.unpack(f"{order}8d", head[104:168])
            (offset,) = struct.unpack(f"{order}q", head[168:176])
            slope, inter = struct.unpack(f"{order}2d", head[176:192])
            (units,) = struct.unpack(f"{order}i", head[500:504])
            magic = head[4:8]
            turned = struct.unpack(f"{order}12d", head[400:496])
            codes = struct.unpack(f"{order}2i", head[344:352])
            rotation = struct.unpack(f"{order}6d", head[352:400])
        if magic[:2] == b"ni":
            raise UnsupportedFormatError(
                "the voxels of this NIfTI lie in another file (.img)",
                location=source.name,
                advice="Join header and voxels in one .nii file",
            )
        if kind not in _TYPES:
            raise UnsupportedFormatError(f"NIfTI datatype {kind}", location=source.name)
        count = dim[0]
        if not 2 <= count <= 7 or any(n != 1 for n in dim[4 : count + 1]) or min(dim[1:3]) < 1:
            raise UnsupportedFormatError(
                f"NIfTI dimensions {dim[1 : max(count, 0) + 1]} (x first): one volume is read",
                location=source.name,
            )
        stored = np.dtype(order + _TYPES[kind])
        if bits != 8 * stored.itemsize or not (math.isfinite(offset) and offset >= size):
            raise FormatError("the NIfTI header contradicts itself", location=source.name)
        z = dim[3] if count >= 3 else 1
        if z < 1:
            raise FormatError(f"NIfTI dimensions {dim}", location=source.name)
        notes = []
        if slope not in (0.0, 1.0) or (slope == 1.0 and inter != 0.0):
            notes.append(f"values mean {slope:g} x stored + {inter:g}; they are kept as stored")
        voxel = _voxel(pixdim, units & 7, notes)
        form, turns, place = "", False, (0.0, 0.0, 0.0)
        if codes[1] > 0:
            form, turns, place = "sform", _mirrors(turned), turned[3::4]
            notes += _other_lengths(turned, pixdim)
        elif codes[0] > 0:
            turns = any(abs(n) > 1e-6 for n in rotation[:3]) or pixdim[0] < 0
            form, place = "qform", rotation[3:]
        if turns:
            notes.append(
                f"the header's affine turns or mirrors axes ({form}): it is not applied, nor is "
                f"its place {place} (x, y, z); voxels keep the order of the file"
            )
        per, origin = _NM.get(units & 7), None
        if form and not turns and per is not None and all(map(math.isfinite, place)):
            origin = zyx(float(f"{n * per:.7g}") for n in reversed(place))
        return PlanesHeader(
            (z, dim[2], dim[1]),
            stored,
            int(offset),
            partial(unpacked, source, gzip=True) if packed else None,
            slack_bytes=2**20,
            described={
                "voxel": voxel,
                "origin_nm_zyx": origin,
                "notes": tuple(notes),
                "kind": "labels" if intent == _LABELS else None,
                "kind_evidence": "intent_code" if intent == _LABELS else None,
            },
        )


def _beginning(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(data, _HEAD)
    except zlib.error:
        return b""


def _voxel(pixdim: Sequence[float], unit: int, notes: list[str]) -> VoxelSize:
    per = _NM.get(unit)
    x, y, z = (positive(abs(float(n))) for n in pixdim[1:4])
    if per is None:
        if any(n not in (None, 1.0) for n in (x, y, z)):
            notes.append(f"pixdim says {x}, {y}, {z} (x, y, z) without a unit: not taken")
        return VoxelSize()
    # a float of 32 bits has seven digits
    z_nm, y_nm, x_nm = (None if n is None else float(f"{n * per:.7g}") for n in (z, y, x))
    return VoxelSize(z_nm, y_nm, x_nm, "pixdim, xyzt_units")


def _mirrors(rows: Sequence[float]) -> bool:
    matrix = np.array(rows, float).reshape(3, 4)[:, :3]
    diagonal = np.diag(matrix)
    beside = np.abs(matrix - np.diag(diagonal)).max()  # lengths may be of any unit
    return bool((diagonal < 0).any() or beside > 1e-6 * np.abs(matrix).max())


def _other_lengths(rows: Sequence[float], pixdim: Sequence[float]) -> list[str]:
    """What is to be told where the matrix says other voxels than pixdim, which is taken."""
    lengths = np.linalg.norm(np.array(rows, float).reshape(3, 4)[:, :3], axis=0)
    if np.allclose(lengths, np.abs(pixdim[1:4]), rtol=1e-3, atol=0.0):
        return []
    said, taken = (", ".join(f"{n:.6g}" for n in one) for one in (lengths, pixdim[1:4]))
    return [f"sform says voxels of {said} (x, y, z), pixdim {taken}, which is taken"]
