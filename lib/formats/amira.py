"""AmiraMesh lattices: one binary field on a regular grid, plain, run-length or zip encoded.

Amira's user guide, "AmiraMesh"; the lattice is x, y, z, and a bounding box names voxel centres.
ASCII files, meshes and several fields are refused by name.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import numpy as np

from lib.bytesource.base import ByteSource
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.format import VoxelSize
from lib.formats.planes import PlanesFormat, PlanesHeader
from lib.geometry import LengthsZYX, ShapeZYX, to_nm
from lib.vocabulary import named_ids

_MOST_HEADER = 4 * 2**20
_CHUNK = 2**20
_TYPES = {
    "byte": "u1", "short": "i2", "ushort": "u2", "int32": "i4", "int": "i4", "float": "f4",
    "double": "f8",
}  # fmt: skip
_LATTICE = re.compile(r"define\s+Lattice\s+(\d+)\s+(\d+)\s+(\d+)")
_FIELD = re.compile(
    r"Lattice\s*\{\s*(\w+)(?:\[(\d+)\])?\s+(\w+)\s*\}\s*=?\s*@(\d+)\s*(?:\(\s*(\w+)\s*,\s*(\d+)\s*\))?"
)
_BOX = re.compile(r"BoundingBox\s+((?:[-+.\deE]+\s+){5}[-+.\deE]+)")
_COORDINATES = re.compile(r'CoordType\s+"(rectilinear|curvilinear)"')
_UNIT = re.compile(r'Coordinates\s+"([^"]*)"')
_SHARE = r"([0-9]*\.?[0-9]+)"
_COLOUR = re.compile(rf"\bColor\s+{_SHARE}\s+{_SHARE}\s+{_SHARE}(?![0-9.])")


class AmiraFormat(PlanesFormat):
    """The one field of a lattice."""

    name: ClassVar[str] = "amira"
    title: ClassVar[str] = "AmiraMesh"
    suffixes: ClassVar[tuple[str, ...]] = (".am", ".amiramesh")

    def fits(self, head: bytes, name: str) -> bool:
        return head.startswith((b"# AmiraMesh", b"# Avizo"))

    def parse(self, source: ByteSource) -> PlanesHeader:
        head = source.read(0, min(source.size, _MOST_HEADER))
        first, _, _ = head.partition(b"\n")
        words = first.decode("latin-1").upper()
        if "BINARY" not in words:
            raise UnsupportedFormatError(
                "an AmiraMesh that is no binary file", location=source.name
            )
        mark = re.search(rb"\n@(\d+)\r?\n", head)
        header = head[: mark.start() if mark else len(head)]
        try:
            text = header.decode("utf-8")
        except UnicodeDecodeError:
            text = header.decode("latin-1")
        lattice, fields = _LATTICE.search(text), _FIELD.findall(text)
        if lattice is None or mark is None or len(fields) != 1:
            raise UnsupportedFormatError(
                f"an AmiraMesh with {len(fields)} fields on a lattice, where one is read",
                location=source.name,
            )
        if (coordinates := _COORDINATES.search(text)) is not None:
            raise UnsupportedFormatError(
                f"an AmiraMesh of {coordinates[1]} coordinates, whose voxels are no boxes of one "
                "size",
                location=source.name,
            )
        kind, width, name, number, encoding, length = fields[0]
        if kind not in _TYPES or width not in ("", "1") or int(number) != int(mark[1]):
            raise UnsupportedFormatError(
                f"an AmiraMesh field {kind}[{width}]", location=source.name
            )
        if encoding not in ("", "HxByteRLE", "HxZip"):
            raise UnsupportedFormatError(f"AmiraMesh encoding {encoding}", location=source.name)
        stored = np.dtype(("<" if "LITTLE-ENDIAN" in words else ">") + _TYPES[kind])
        if encoding == "HxByteRLE" and stored.itemsize > 1:
            raise UnsupportedFormatError(
                "run lengths of voxels wider than a byte are ambiguous", location=source.name
            )
        x, y, z = (int(n) for n in lattice.groups())
        if min(x, y, z) < 1:
            raise FormatError(f"an AmiraMesh lattice of {x} {y} {z}", location=source.name)
        shape, notes = (z, y, x), list[str]()
        voxel, origin = _geometry(text, shape, notes)
        labels = name.lower() == "labels" or "Materials" in text
        drawn = named_ids(_materials(text)) if labels and stored.kind in "ui" else {}
        described = {
            "voxel": voxel,
            "origin_nm_zyx": origin,
            "kind": "labels" if labels and stored.kind in "ui" else None,
            "kind_evidence": "a field of materials" if labels else None,
            "notes": tuple(notes),
            "extra": {"image_label": drawn} if drawn else {},
        }
        if not encoding:
            return PlanesHeader(shape, stored, mark.end(), described=described)
        expand = _run_lengths if encoding == "HxByteRLE" else _zipped
        pieces = partial(expand, source, mark.end(), int(length or 0), math.prod(shape))
        return PlanesHeader(shape, stored, 0, pieces, described=described)


def _materials(text: str) -> list[tuple[int, str, list[int]]]:
    """Names and colours of the ids of a label field: an id is the place of its material.

    ``Id`` is the number of the material in a list of all (Amira's ``Exterior`` has 1, and voxels
    of it are 0), so it is not taken.
    """
    start = re.search(r"\bMaterials\s*\{", text)
    rows: list[tuple[int, str, list[int]]] = []
    if start is None:
        return rows
    at, depth, begun = start.end(), 0, start.end()
    for brace in re.finditer(r'"[^"\n]*"|[{}]', text[at:]):
        if brace[0] == "{":
            if depth == 0:
                name = text[begun : at + brace.start()].strip().strip('",')
                rows.append((len(rows), name, []))
                begun = at + brace.end()
            depth += 1
        elif brace[0] == "}":
            depth -= 1
            if depth < 0:
                break
            if depth == 0:
                colour = _COLOUR.search(text[begun : at + brace.start()])
                if colour is not None:
                    value, name, _ = rows[-1]
                    rows[-1] = (value, name, [round(255 * float(n)) for n in colour.groups()])
                begun = at + brace.end()
    return rows


def _geometry(
    text: str, shape_zyx: ShapeZYX, notes: list[str]
) -> tuple[VoxelSize, LengthsZYX | None]:
    box, unit = _BOX.search(text), _UNIT.search(text)
    if box is None:
        return VoxelSize(), None
    try:
        x0, x1, y0, y1, z0, z1 = (float(n) for n in box[1].split())
    except ValueError:
        return VoxelSize(), None
    per = None if unit is None else to_nm(1.0, unit[1])
    if per is None:
        notes.append(f"the bounding box {box[1]} has no unit of length: not taken")
        return VoxelSize(), None
    spans = ((z0, z1), (y0, y1), (x0, x1))
    lengths = [
        (stop - start) / (n - 1) * per if n > 1 and stop > start else None
        for (start, stop), n in zip(spans, shape_zyx, strict=True)
    ]
    voxel = VoxelSize(lengths[0], lengths[1], lengths[2], "BoundingBox")
    return voxel, (z0 * per, y0 * per, x0 * per)


def _run_lengths(source: ByteSource, start: int, length: int, voxels: int) -> Iterator[bytes]:
    """A control byte above 127: so many bytes as they are; else the next byte so often."""
    data, end = b"", start + length
    if end > source.size:
        raise FormatError("the AmiraMesh field is cut short", location=source.name)
    at, offset, left = 0, start, voxels
    out = bytearray()
    while left > 0:
        if len(data) - at < 256 and offset < end:
            length = min(_CHUNK, end - offset)
            data, at, offset = data[at:] + source.read(offset, length), 0, offset + length
        control = data[at] if at < len(data) else 0
        count = control & 127
        literal = control > 127
        piece = data[at + 1 : at + 1 + count] if literal else data[at + 1 : at + 2] * count
        if count == 0 or len(piece) != count:
            raise FormatError("the AmiraMesh field's run lengths end early", location=source.name)
        at += 1 + (count if literal else 1)
        out += piece
        left -= count
        if len(out) >= _CHUNK or left <= 0:
            yield bytes(out)
            out.clear()
    if left < 0:
        raise FormatError("the AmiraMesh field holds more voxels", location=source.name)


def _zipped(source: ByteSource, start: int, length: int, voxels: int) -> Iterator[bytes]:
    unpack, offset, end = zlib.decompressobj(), start, start + length
    if end > source.size:
        raise FormatError("the AmiraMesh field is cut short", location=source.name)
    while not unpack.eof:
        data = unpack.unconsumed_tail
        if not data:
            length = min(_CHUNK, end - offset)
            if length <= 0:
                raise FormatError("the AmiraMesh field is cut short", location=source.name)
            data, offset = source.read(offset, length), offset + length
        try:
            yield unpack.decompress(data, _CHUNK)
        except zlib.error as error:
            raise FormatError(f"the AmiraMesh field is damaged: {error}") from None
