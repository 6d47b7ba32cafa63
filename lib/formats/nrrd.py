"""NRRD: a text header, a blank line, then voxels, raw or compressed as a whole.

teem.sourceforge.net/nrrd/format.html. ``sizes`` are fastest first: x, y, z. Voxels that lie in
other files (``data file``) are refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from lib.bytesource.base import ByteSource
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.format import VoxelSize
from lib.formats.planes import PlanesFormat, PlanesHeader, unpacked
from lib.geometry import LengthsZYX, to_nm
from lib.vocabulary import named_ids

_MOST_HEADER = 2**20
_TYPES = {
    "signed char": "i1", "int8": "i1", "int8_t": "i1",
    "uchar": "u1", "unsigned char": "u1", "uint8": "u1", "uint8_t": "u1",
    "float": "f4", "double": "f8",
}  # fmt: skip
for _code, _bits, _name in (("2", 16, "short"), ("4", 32, "int"), ("8", 64, "long long")):
    _names = (_name,) if _name == "int" else (_name, f"{_name} int")
    _signed = (*_names, *(f"signed {name}" for name in _names), f"int{_bits}", f"int{_bits}_t")
    _unsigned = (*(f"unsigned {name}" for name in _names), f"uint{_bits}", f"uint{_bits}_t")
    _TYPES |= dict.fromkeys((*_signed, _name.replace(" ", "")), f"i{_code}")
    _TYPES |= dict.fromkeys((*_unsigned, f"u{_name}".replace(" ", "")), f"u{_code}")
_PART = re.compile(r'"([^"]*)"|(\([^)]*\)|[^\s"]+)')
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
        axes = _read_axes(fields, sizes)
        if not 2 <= len(axes) <= 3 or dimension != len(sizes) or min(sizes) < 1:
            raise UnsupportedFormatError(
                f"NRRD sizes {fields['sizes']} (x first), where 2 or 3 axes are read",
                location=source.name,
            )
        x, y, z = (*(sizes[axis] for axis in axes), 1)[:3]
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
        voxel, origin = _geometry(fields, axes, len(sizes), notes)
        content = fields.get("content")
        described = {
            "voxel": voxel,
            "origin_nm_zyx": origin,
            "about": {"description": content[:500]} if content else {},
            "notes": tuple(notes),
            **_segments(fields, stored),
        }
        if packed is None:
            return PlanesHeader(shape, stored, offset, described=described)
        pieces = partial(unpacked, source, gzip=_PACKED[packed], start=offset)
        return PlanesHeader(shape, stored, 0, pieces, described=described)


def _segments(fields: dict[str, str], stored: np.dtype[Any]) -> dict[str, Any]:
    """That the voxels are ids, and their names and colours, where 3D Slicer wrote segments."""
    rows = []
    for field in fields:
        segment = re.fullmatch(r"(segment[0-9]+)_labelvalue", field)
        value = fields[field]
        if segment is None or not re.fullmatch(r"[0-9]{1,19}", value):
            continue
        name, colour = (fields.get(f"{segment[1]}_{what}", "") for what in ("name", "color"))
        parts = _numbers(colour) or []
        rgb = [round(255 * part) for part in parts] if len(parts) == 3 else []
        rows.append((int(value), name, rgb))
    if not rows or stored.kind not in "iu":
        return {}
    drawn = named_ids(rows)
    said = {"kind": "labels", "kind_evidence": "segments of 3D Slicer"}
    return said | ({"extra": {"image_label": drawn}} if drawn else {})


def _fields(source: ByteSource) -> tuple[dict[str, str], int]:
    head = source.read(0, min(source.size, _MOST_HEADER))
    ends = [(head.find(mark), len(mark)) for mark in (b"\n\n", b"\r\n\r\n")]
    found = [(at, length) for at, length in ends if at >= 0]
    if not found and b"data file" in head and len(head) == source.size:
        found = [(len(head), 0)]  # nothing follows a header whose voxels lie elsewhere
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


def _read_axes(fields: dict[str, str], sizes: list[int]) -> list[int]:
    """The axes that are x, y, z: of more than three, those of length 1 are left out.

    Of these first those that have no spacing, as the one of components or segments.
    """
    lengths = _parts(fields.get("space directions") or fields.get("spacings") or "")
    absent = {n for n, part in enumerate(lengths) if part.lower() in ("none", "nan")}
    ones = sorted((n for n, size in enumerate(sizes) if size == 1), key=lambda n: n not in absent)
    dropped = ones[: max(0, len(sizes) - 3)]
    return [axis for axis in range(len(sizes)) if axis not in dropped]


def _geometry(
    fields: dict[str, str], axes: list[int], count: int, notes: list[str]
) -> tuple[VoxelSize, LengthsZYX | None]:
    """Spacing and origin, where they have units of length; directions must follow the axes."""
    names = [part.lower() for part in _parts(fields.get("labels", ""))]
    named = [names[axis] for axis in axes] if len(names) == count else []
    if {*named} <= {*"xyz"} and named != [*"xyz"][: len(named)]:
        notes.append(f"the axes are labelled {', '.join(named)}: they are taken as x, y, z")
    if any(_numbers(fields.get("axis mins", "").replace("nan", "0")) or ()):
        notes.append(f"axis mins {fields['axis mins']} are not applied")
    space = _parts(fields.get("space units", ""))
    units = _parts(fields.get("units", ""))
    parts = _parts(fields.get("space directions", ""))
    origin = None
    if parts:
        text = fields["space directions"]
        vectors = [_vector(parts[axis]) for axis in axes] if len(parts) == count else []
        steps = _along_axes(vectors)
        if steps is None:
            notes.append(f"space directions {text} are not along the axes: not applied")
            return VoxelSize(), None
        units, origin = space, _vector(fields.get("space origin", ""))
        if any(step < 0 for step in steps):
            untaken = f", nor is their place {origin} (x, y, z) applied" if origin else ""
            notes.append(f"space directions {text}: negative axes are not turned{untaken}")
            origin = None  # the first voxel lies there, and the others below it
    else:
        parts = _parts(fields.get("spacings", ""))
        if len(parts) != count:
            return VoxelSize(), None
        steps = [(_numbers(parts[axis]) or [0.0])[0] for axis in axes]  # nan: it has none
        units = [units[axis] for axis in axes] if len(units) == count else space
    if not any(steps):
        return VoxelSize(), None
    pairs = [*zip(map(abs, steps), units, strict=False)]
    if len(pairs) != len(steps) or any(n and to_nm(1.0, unit) is None for n, unit in pairs):
        said = [abs(step) for step in steps]
        notes.append(f"spacing {said} (x, y, z) has no unit of length: not taken")
        return VoxelSize(), None
    x, y, z = (*(to_nm(n, unit) if n else None for n, unit in pairs), None)[:3]
    place = None
    if origin is not None and len(origin) == len(pairs) == 3:
        ox, oy, oz = (to_nm(n, unit) or 0.0 for n, unit in zip(origin, units, strict=True))
        place = (oz, oy, ox)
    by = "space directions" if fields.get("space directions") else "spacings"
    return VoxelSize(z, y, x, by), place


def _parts(text: str) -> list[str]:
    """Vectors, words and quoted words, one for each axis."""
    return [quoted or word for quoted, word in _PART.findall(text)]


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
        if vector is None or len(vector) <= place:
            return None
        if any(n != 0 for at, n in enumerate(vector) if at != place):
            return None
        steps.append(vector[place])
    return steps or None
