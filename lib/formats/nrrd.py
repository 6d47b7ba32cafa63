"""NRRD: a text header, a blank line, then voxels: raw, as text, or compressed as a whole.

teem.sourceforge.net/nrrd/format.html. ``sizes`` are fastest first: x, y, z. Voxels may lie in files
beside the header's (``data file``): in one, or in one for each slice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lib.bytesource.base import ByteSource, JoinedBytes, header_size, sibling_name
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.format import Handle, Survey, VolumeDescription, VoxelSize
from lib.formats.planes import PlanesFormat, PlanesHeader, RawPlanes, unpacked
from lib.geometry import Box, LengthsZYX, to_nm
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
_TEXT = ("ascii", "text", "txt")
_SERIES = re.compile(r"([^%]*)%(0?[0-9]{0,2})[di]([^%]*?)((?:\s+-?[0-9]{1,9}){3})(?:\s+[0-9]+)?")
_MOST_FILES = 100_000
_MOST_DIGITS = 400  # of a number that is text


class DetachedFormat(PlanesFormat):
    """A header, and planes behind it or in files beside it."""

    def survey(self, source: ByteSource, volume: VolumeDescription, box: Box) -> Survey:
        self._check_beside(source)
        return super().survey(source, volume, box)

    def open(self, source: ByteSource, handle: Handle, scratch: Path | None = None) -> RawPlanes:
        self._check_beside(source)
        return super().open(source, handle, scratch)

    def _check_beside(self, source: ByteSource) -> None:
        """Raise `FormatError` unless files beside hold the header's voxels and nothing else."""
        header = self.parse(source)
        if not header.beside:
            return
        if not isinstance(source, JoinedBytes):
            raise UnsupportedFormatError("its voxels lie in other files", location=source.name)
        sizes = [part.size for part in source.parts[1:]]
        needed = header.offset - header_size(source)
        needed += math.prod(header.shape_zyx) * header.stored.itemsize
        short = header.offset < header_size(source)
        if header.pieces is None and (sum(sizes) != needed or short or len({*sizes}) > 1):
            odd = " and are not of one size" if len({*sizes}) > 1 else ""
            raise FormatError(
                f"{len(sizes)} files beside this header have {sum(sizes)} bytes{odd}, where its "
                f"voxels are {needed}",
                location=source.name,
            )


def files_beside(said: str, lines: Sequence[str], where: str) -> tuple[str, ...]:
    """The names that a header gives: one, a list in `lines`, or a pattern with its numbers.

    Raises
    ------
    FormatError
        They are none, or far too many, or lead to another folder.
    """
    series = _SERIES.fullmatch(said)
    if said.split()[:1] == ["LIST"]:
        names = [line.strip() for line in lines if line.strip()]
    elif series is not None:
        first, last, step = map(int, series[4].split())
        if step == 0 or not 0 <= (last - first) // step < _MOST_FILES:
            raise FormatError(f"the header names files by {said[:100]!r}", location=where)
        numbers = range(first, last + (1 if step > 0 else -1), step)
        names = [f"{series[1]}{number:{series[2]}d}{series[3]}" for number in numbers]
    else:
        names = [said]
    if not 0 < len(names) <= _MOST_FILES or len({*names}) < len(names):
        raise FormatError("the files that the header names are none, or twice", location=where)
    return tuple(sibling_name(name, where) for name in names)


def text_numbers(source: ByteSource, start: int, stored: np.dtype[Any]) -> Iterator[bytes]:
    """Numbers that are written as text, from an offset on, as the bytes of voxels.

    Raises
    ------
    FormatError
        One is no number, or none of the dtype.
    """
    parse: Any = float if stored.kind == "f" else int
    rest = b""
    for offset in range(start, source.size, 2**20):
        data = rest + source.read(offset, min(2**20, source.size - offset))
        words = data.replace(b",", b" ").split()
        rest = words.pop() if words and not data[-1:].isspace() else b""
        if len(rest) > _MOST_DIGITS:
            raise FormatError("the voxels are no text of numbers", location=source.name)
        try:
            if b"_" in data:  # which Python would read over
                raise ValueError("there is a _ between digits")
            with np.errstate(over="raise"):
                yield np.array([parse(word) for word in words], stored).tobytes()
        except (ValueError, ArithmeticError) as error:
            said = f"a voxel is no {stored.name}: {error}"
            raise FormatError(said[:200], location=source.name) from None
    if rest:  # a number that is cut is a number, too
        raise FormatError("the file ends within its last voxel", location=source.name)


class NrrdFormat(DetachedFormat):
    """The one volume of a file."""

    name: ClassVar[str] = "nrrd"
    title: ClassVar[str] = "NRRD"
    suffixes: ClassVar[tuple[str, ...]] = (".nrrd", ".nhdr", ".seg.nrrd")
    headers: ClassVar[tuple[str, ...]] = (".nhdr",)

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
        said = fields.get("data file") or fields.get("datafile")
        beside: tuple[str, ...] = ()
        if said is not None:
            beside = files_beside(said, fields.get("", "").splitlines(), source.name)
            offset = header_size(source)
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
        if encoding not in ("raw", *_PACKED, *_TEXT):
            raise UnsupportedFormatError(f"NRRD encoding {encoding!r}", location=source.name)
        shape, packed = (z, y, x), None if encoding == "raw" else encoding
        if len(beside) > 1 and (packed or fields.keys() & {"line skip", "byte skip"}):
            raise UnsupportedFormatError(
                "an NRRD of several data files that are not raw, or have a skip",
                location=source.name,
            )
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
            return PlanesHeader(shape, stored, offset, beside=beside, described=described)
        pieces = partial(text_numbers, source, offset, stored)
        if packed in _PACKED:
            pieces = partial(unpacked, source, gzip=_PACKED[packed], start=offset)
        return PlanesHeader(shape, stored, 0, pieces, beside=beside, described=described)


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
    head = source.read(0, min(header_size(source), _MOST_HEADER))
    ends = [(head.find(mark), len(mark)) for mark in (b"\n\n", b"\r\n\r\n")]
    found = [(at, length) for at, length in ends if at >= 0]
    if not found and b"data file" in head and len(head) == header_size(source):
        found = [(len(head), 0)]  # nothing follows a header whose voxels lie elsewhere
    if not head.startswith(b"NRRD000") or not found:
        raise FormatError("there is no NRRD header", location=source.name)
    at, length = min(found)
    fields: dict[str, str] = {}
    for line in head[:at].decode("latin-1").splitlines()[1:]:
        name, colon, value = line.partition(":")
        if fields.get("data file", fields.get("datafile", "")).startswith("LIST"):
            fields[""] = f"{fields.get('', '')}{line}\n"  # names of files, to the header's end
            continue
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
        if offset > source.size - nbytes and source.size > offset:
            raise FormatError("the file is too short for its voxels", location=source.name)
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
    if origin is not None and len(origin) == len(pairs) == len(units) == 3:
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
