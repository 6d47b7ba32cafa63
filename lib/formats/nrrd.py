"""NRRD: a text header, a blank line, then voxels, raw or compressed as a whole.

teem.sourceforge.net/nrrd/format.html. ``sizes`` are fastest first: x, y, z. Voxels that lie in
other files (``data file``) are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from lib.bytesource.base import ByteSource
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.format import VoxelSize
from lib.formats.planes import PlanesFormat, PlanesHeader, unpacked
from lib.geometry import LengthsZYX, to_nm

_MOST_HEADER = 2**20
_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_PACKED = {"gzip": True, "gz": True, "bzip2": False, "bz2": False}


class NrrdFormat(PlanesFormat):
    """The one volume of a file with its voxels inside."""

    name: ClassVar[str] = "nrrd"
    title: ClassVar[str] = "NRRD"
    suffixes: ClassVar[tuple[str, ...]] = (".nrrd", ".nhdr", ".seg.nrrd")

    def fits(self, head: bytes, name: str) -> bool:
        return head.startswith(b"NRRD000")

    def parse(self, source: ByteSource) -> PlanesHeader:
        fields, offset = _fields(source)
        try:
            dimension = int(fields["dimension"])
            sizes = [int(n) for n in fields["sizes"].split()]
            kind = _TYPES.get(fields["type"].lower())
        except (KeyError, ValueError) as error:
            raise FormatError(f"the NRRD header lacks {error}", location=source.name) from None
        if "data file" in fields or "datafile" in fields:
            raise UnsupportedFormatError(
                "the voxels of this NRRD lie in other files",
                location=source.name,
                advice="Join header and voxels in one .nrrd file",
            )
        if kind is None:
            raise UnsupportedFormatError(f"NRRD type {fields['type']!r}", location=source.name)
        while len(sizes) > 3 and 1 in sizes:
            sizes.remove(1)
        if len(sizes) not in (2, 3) or dimension < len(sizes) or min(sizes) < 1:
            raise UnsupportedFormatError(
                f"NRRD sizes {fields['sizes']} (x first), where 2 or 3 axes are read",
                location=source.name,
            )
        x, y, z = (*sizes, 1)[:3]
        endian = fields.get("endian", "little").lower()
        if endian not in ("little", "big"):
            raise FormatError(f"NRRD endian {endian!r}", location=source.name)
        stored = np.dtype((">" if endian == "big" else "<") + kind)
        encoding = fields.get("encoding", "raw").lower()
        if encoding not in ("raw", *_PACKED):
            raise UnsupportedFormatError(f"NRRD encoding {encoding!r}", location=source.name)
        shape, packed = (z, y, x), encoding if encoding in _PACKED else None
        offset = _skipped(fields, source, offset, math.prod(shape) * stored.itemsize, packed)
        notes: list[str] = []
        voxel, origin = _geometry(fields, notes)
        content = fields.get("content")
        described = {
            "voxel": voxel,
            "origin_nm_zyx": origin,
            "about": {"description": content[:500]} if content else {},
            "notes": tuple(notes),
        }
        if packed is None:
            return PlanesHeader(shape, stored, offset, described=described)
        pieces = partial(unpacked, source, gzip=_PACKED[packed], start=offset)
        return PlanesHeader(shape, stored, 0, pieces, described=described)


def _fields(source: ByteSource) -> tuple[dict[str, str], int]:
    head = source.read(0, min(source.size, _MOST_HEADER))
    ends = [(head.find(mark), len(mark)) for mark in (b"\n\n", b"\r\n\r\n")]
    found = [(at, length) for at, length in ends if at >= 0]
    if not head.startswith(b"NRRD000") or not found:
        raise FormatError("there is no NRRD header", location=source.name)
    at, length = min(found)
    fields: dict[str, str] = {}
    for line in head[:at].decode("latin-1").splitlines()[1:]:
        name, colon, value = line.partition(":")
        if line.startswith("#") or not colon:
            continue
        fields[name.strip().lower()] = value.lstrip("=").strip()
    return fields, at + length


def _skipped(
    fields: dict[str, str], source: ByteSource, offset: int, nbytes: int, packed: str | None
) -> int:
    """The offset after ``line skip`` and ``byte skip``; -1 counts from the end of the file."""
    try:
        lines, count = int(fields.get("line skip", 0)), int(fields.get("byte skip", 0))
    except ValueError as error:
        raise FormatError(f"the NRRD header's skip: {error}", location=source.name) from None
    if lines:
        raise UnsupportedFormatError("an NRRD with line skip", location=source.name)
    if count == -1 and packed is None:
        return source.size - nbytes
    if count and packed is not None:
        raise UnsupportedFormatError("a compressed NRRD with byte skip", location=source.name)
    if count < 0:
        raise FormatError(f"NRRD byte skip {count}", location=source.name)
    return offset + count


def _geometry(fields: dict[str, str], notes: list[str]) -> tuple[VoxelSize, LengthsZYX | None]:
    """Spacing and origin, where they have units of length; directions must follow the axes."""
    units = [unit.strip('"') for unit in fields.get("space units", "").split()]
    text = fields.get("space directions")
    if text is not None:
        vectors = [_vector(part) for part in text.split() if part.lower() != "none"]
        steps = _along_axes(vectors)
        if steps is None:
            notes.append(f"space directions {text} are not along the axes: not applied")
            return VoxelSize(), None
        if any(step < 0 for step in steps):
            notes.append(f"space directions {text}: axes of negative direction are not turned")
        spacing: list[float] | None = [abs(step) for step in steps]
    else:
        spacing = _numbers(fields.get("spacings", ""))
        units = units or [unit.strip('"') for unit in fields.get("units", "").split()]
    if spacing is None or len(spacing) != 3:
        return VoxelSize(), None
    if len(units) != 3 or any(to_nm(1.0, unit) is None for unit in units):
        notes.append(f"spacing {spacing} (x, y, z) has no unit of length: not taken")
        return VoxelSize(), None
    x, y, z = (to_nm(n, unit) for n, unit in zip(spacing, units, strict=True))
    origin = _vector(fields.get("space origin", ""))
    place = None
    if origin is not None and len(origin) == 3:
        ox, oy, oz = (to_nm(n, unit) or 0.0 for n, unit in zip(origin, units, strict=True))
        place = (oz, oy, ox)
    return VoxelSize(z, y, x, "space directions" if text else "spacings"), place


def _vector(text: str) -> list[float] | None:
    return _numbers(text.strip("() ").replace(",", " "))


def _numbers(text: str) -> list[float] | None:
    try:
        numbers = [float(part) for part in text.split()]
    except ValueError:
        return None
    return numbers if numbers and all(math.isfinite(n) for n in numbers) else None


def _along_axes(vectors: Sequence[list[float] | None]) -> list[float] | None:
    """The diagonal of a matrix that has nothing else."""
    steps = []
    for place, vector in enumerate(vectors):
        if vector is None or len(vector) != len(vectors):
            return None
        if any(n != 0 for at, n in enumerate(vector) if at != place):
            return None
        steps.append(vector[place])
    return steps if len(steps) == 3 else None
