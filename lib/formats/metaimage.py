"""MetaImage, as ITK, elastix and SimpleITK write it: voxels behind a text header or beside it.

itk.org/Wiki/MetaIO/Documentation. ``DimSize`` is x, y, z. The header ends with
``ElementDataFile``: ``LOCAL``, a file beside it, or one for each slice.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any, ClassVar

import numpy as np

from lib.bytesource.base import ByteSource, header_size
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.format import VoxelSize, positive
from lib.formats.nrrd import DetachedFormat, files_beside, text_numbers
from lib.formats.planes import PlanesHeader, unpacked
from lib.geometry import LengthsZYX, to_nm

_MOST_HEADER = 2**20
_TYPES = {
    "CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4",
    "LONG": "i4", "ULONG": "u4", "LONG_LONG": "i8", "ULONG_LONG": "u8", "FLOAT": "f4",
    "DOUBLE": "f8",
}  # fmt: skip
_LINE = re.compile(rb"[ \t]*([A-Za-z]\w*)[ \t]*=[ \t]*([^\r\n]*?)[ \t]*\r?\n")
_LAST = "ElementDataFile"
_ORDERS = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")


class MetaImageFormat(DetachedFormat):
    """The one volume of a ``.mha``, or of a ``.mhd`` and what lies beside it."""

    name: ClassVar[str] = "metaimage"
    title: ClassVar[str] = "MetaImage (.mha, .mhd)"
    suffixes: ClassVar[tuple[str, ...]] = (".mha", ".mhd")
    headers: ClassVar[tuple[str, ...]] = (".mhd",)

    def fits(self, head: bytes, name: str) -> bool:
        return bool(_LINE.match(head)) and b"DimSize" in head and _LAST.encode() in head

    def parse(self, source: ByteSource) -> PlanesHeader:
        fields, offset = _fields(source)
        try:
            sizes = [int(n) for n in fields["DimSize"].split()]
            count, kind = int(fields["NDims"]), fields["ElementType"].removeprefix("MET_")
            skip = int(fields.get("HeaderSize", "0"))
            channels = int(fields.get("ElementNumberOfChannels", "1"))
        except (KeyError, ValueError) as error:
            raise FormatError(f"the MetaImage header: {error}", location=source.name) from None
        shape = [*sizes, 1][:3] if len(sizes) < 3 else sizes[:3]
        if len(sizes) != count or count < 2 or min(sizes) < 1 or math.prod(sizes[3:]) != 1:
            raise UnsupportedFormatError(
                f"MetaImage DimSize {fields['DimSize'][:100]} (x first) of {count} dimensions, "
                "where one volume is read",
                location=source.name,
            )
        if kind not in _TYPES or channels != 1:
            raise UnsupportedFormatError(
                f"MetaImage voxels of {channels} x {kind[:40]}", location=source.name
            )
        orders = {_true(fields, name) for name in _ORDERS if name in fields}
        if len(orders) > 1:
            raise FormatError("the header says two byte orders", location=source.name)
        stored = np.dtype((">" if True in orders else "<") + _TYPES[kind])
        packed = _true(fields, "CompressedData")
        text = fields.get("BinaryData", "True").lower()[:1] in ("f", "0")
        said, beside = fields[_LAST], tuple[str, ...]()
        if said != "LOCAL":
            said = re.sub(r"^LIST\b.*", "LIST", said)
            beside = files_beside(said, fields[""].splitlines(), source.name)
            offset = header_size(source)
        x, y, z = shape
        nbytes = math.prod(shape) * stored.itemsize
        if skip and (packed or text or len(beside) != 1 or skip < -1):
            raise UnsupportedFormatError(f"a MetaImage of HeaderSize {skip}", location=source.name)
        if len(beside) > 1 and (packed or text):
            raise UnsupportedFormatError(
                "a MetaImage of several files that are not raw", location=source.name
            )
        if skip == -1:
            if source.size - nbytes < offset and source.size > offset:
                raise FormatError("the file is too short for its voxels", location=source.name)
            offset = source.size - nbytes
        described = _described(fields, count)
        if not packed and not text:
            at = offset + max(skip, 0)
            return PlanesHeader((z, y, x), stored, at, beside=beside, described=described)
        pieces: Any = partial(unpacked, source, gzip=True, start=offset, wbits=47)
        if text:
            pieces = partial(text_numbers, source, offset, stored)
        return PlanesHeader((z, y, x), stored, 0, pieces, beside=beside, described=described)


def _fields(source: ByteSource) -> tuple[dict[str, str], int]:
    """The header's fields, the lines after its last one under an empty name; where it ends."""
    head = source.read(0, min(header_size(source), _MOST_HEADER))
    at, fields = 0, {"": ""}
    while _LAST not in fields:
        line = _LINE.match(head, at) or _LINE.match(head + b"\n", at)
        if line is None:
            raise FormatError("there is no MetaImage header", location=source.name)
        fields[line[1].decode("latin-1")] = line[2].decode("latin-1")
        at = line.end()
    if not fields[_LAST]:
        raise FormatError("the header ends before it names its voxels", location=source.name)
    if fields[_LAST] != "LOCAL":
        fields[""] = head[at:].decode("latin-1")
    return fields, at


def _true(fields: dict[str, str], name: str) -> bool:
    return fields.get(name, "False").lower()[:1] in ("t", "1")


def _described(fields: dict[str, str], count: int) -> dict[str, Any]:
    """Spacing and place, which have a unit where the header says one; ITK writes none."""
    notes: list[str] = []
    unit = fields.get("DistanceUnits", "")
    said = fields.get("ElementSpacing") or fields.get("ElementSize") or ""
    steps = [positive(abs(n)) for n in _numbers(said)]
    matrix = next(
        (fields[name] for name in ("TransformMatrix", "Rotation", "Orientation") if name in fields),
        "",
    )
    place = next((fields[name] for name in ("Offset", "Position", "Origin") if name in fields), "")
    turned = bool(matrix) and not np.array_equal(_numbers(matrix), np.eye(count).ravel())
    if turned:
        notes.append(
            f"TransformMatrix {matrix[:100]} turns or mirrors axes: it is not applied, nor is the "
            f"place {place[:60]} (x, y, z); voxels keep the order of the file"
        )
    voxel, origin = VoxelSize(), None
    if to_nm(1.0, unit) is None:
        if any(n not in (None, 1.0) for n in steps):
            notes.append(f"ElementSpacing {said[:60]} (x, y, z) has no unit: not taken")
    else:
        x, y, z = (*(None if n is None else to_nm(n, unit) for n in steps), None, None, None)[:3]
        voxel = VoxelSize(z, y, x, "ElementSpacing, DistanceUnits")
        origin = None if turned else _place(place, unit)
    for name in ("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset"):
        if name in fields:
            notes.append(f"{name} is {fields[name][:40]}; values are kept as stored")
    about = {"description": fields["Comment"][:500]} if fields.get("Comment") else {}
    described = {"voxel": voxel, "origin_nm_zyx": origin, "about": about}
    return described | {"notes": tuple(notes)}


def _place(text: str, unit: str) -> LengthsZYX | None:
    lengths = [to_nm(n, unit) for n in _numbers(text)[:3]]
    if len(lengths) != 3 or None in lengths:
        return None
    x, y, z = lengths
    return (z or 0.0, y or 0.0, x or 0.0)


def _numbers(text: str) -> list[float]:
    """The numbers of a field; none where one of them is none."""
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
