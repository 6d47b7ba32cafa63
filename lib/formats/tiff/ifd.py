"""TIFF headers and image file directories, classic and BigTIFF, both byte orders.

Layout after Adobe TIFF 6.0 (1992) and the BigTIFF extension (magic 43, 8-byte offsets). Every
count and offset is held against the file size before anything is allocated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.base import ByteSource, check_range
from lib.errors import FormatError

MAX_ENTRIES = 4096  # of one directory; real ones have fewer than a hundred
MAX_TEXT_BYTES = 64 * 2**20

_TYPES: dict[int, str] = {
    1: "u1", 2: "S1", 3: "u2", 4: "u4", 5: "2u4", 6: "i1", 7: "V1", 8: "i2", 9: "i4",
    10: "2i4", 11: "f4", 12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip
_INTEGERS = frozenset({1, 3, 4, 6, 8, 9, 13, 16, 17, 18})


@dataclass(frozen=True, slots=True)
class TiffHeader:
    """``order`` is ``<`` or ``>``; ``big`` is true for BigTIFF."""

    order: str
    big: bool
    first_ifd: int


@dataclass(frozen=True, slots=True)
class IfdEntry:
    """One field: its values are `count` of TIFF type `kind` at `offset` of the file."""

    kind: int
    count: int
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Ifd:
    """One directory; values are read from the source when they are asked for."""

    source: ByteSource
    order: str
    offset: int
    nbytes: int
    next_offset: int
    entries: dict[int, IfdEntry]

    def integers(self, tag: int, *, limit: int) -> NDArray[np.uint64] | None:
        """The values of an integer field, at most `limit` of them; None if it is absent."""
        entry = self.entries.get(tag)
        if entry is None:
            return None
        if entry.kind not in _INTEGERS or not 0 < entry.count <= limit:
            raise FormatError(
                f"field {tag} of the TIFF directory at {self.offset} has {entry.count} values of "
                f"type {entry.kind}; at most {limit} integers make sense there",
                location=self.source.name,
            )
        data = self.source.read(entry.offset, entry.nbytes)
        values: NDArray[Any] = np.frombuffer(data, dtype=self.order + _TYPES[entry.kind])
        if values.dtype.kind == "i" and int(values.min()) < 0:
            raise FormatError(
                f"field {tag} of the TIFF directory at {self.offset} is negative",
                location=self.source.name,
            )
        return values.astype(np.uint64)

    def integer(self, tag: int, default: int) -> int:
        """The single value of an integer field, or `default` if it is absent."""
        values = self.integers(tag, limit=1)
        return default if values is None else int(values[0])

    def ratio(self, tag: int) -> float | None:
        """The value of a rational (or float) field; None if it is absent or over zero."""
        entry = self.entries.get(tag)
        if entry is None or entry.count != 1 or entry.kind not in (5, 10, 11, 12):
            return None
        data = self.source.read(entry.offset, entry.nbytes)
        values = np.frombuffer(data, dtype=self.order + _TYPES[entry.kind]).reshape(-1)
        if len(values) == 1:
            return float(values[0])
        return float(values[0]) / float(values[1]) if values[1] else None

    def raw(self, tag: int, *, limit: int) -> bytes | None:
        """The bytes of a field as they lie in the file; None if it is absent or above `limit`."""
        entry = self.entries.get(tag)
        if entry is None or entry.nbytes > limit:
            return None
        return bytes(self.source.read(entry.offset, entry.nbytes))

    def text(self, tag: int) -> str | None:
        """A text field without its closing NULs; UTF-8, else Latin-1."""
        entry = self.entries.get(tag)
        if entry is None or _TYPES[entry.kind][-2:] not in ("S1", "u1", "V1", "i1"):
            return None
        if entry.nbytes > MAX_TEXT_BYTES:
            raise FormatError(
                f"text field {tag} of the TIFF directory at {self.offset} claims "
                f"{entry.nbytes} bytes",
                location=self.source.name,
            )
        data = self.source.read(entry.offset, entry.nbytes).rstrip(b"\0")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("latin-1")


def read_header(source: ByteSource) -> TiffHeader:
    """Read the 8 (classic) or 16 (BigTIFF) bytes that begin a TIFF.

    Raises
    ------
    FormatError
        The file does not begin like a TIFF, or is cut within its header.
    """
    data = source.read(0, 8)
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    magic = struct.unpack(f"{order or '<'}H", data[2:4])[0]
    if order is None or magic not in (42, 43):
        raise FormatError(
            "the file is not a TIFF (its first bytes are others)", location=source.name
        )
    if magic == 42:
        first = struct.unpack(f"{order}I", data[4:])[0]
        return TiffHeader(order, False, first)
    width, zero = struct.unpack(f"{order}HH", data[4:])
    if (width, zero) != (8, 0):
        raise FormatError(
            "the BigTIFF header does not announce 8-byte offsets", location=source.name
        )
    return TiffHeader(order, True, struct.unpack(f"{order}Q", source.read(8, 8))[0])


def read_ifd(source: ByteSource, header: TiffHeader, offset: int) -> Ifd:
    """Read one directory; the values of its fields stay in the file.

    Raises
    ------
    FormatError
        The directory lies outside the file or has an impossible number of fields.
    """
    count_format, entry_format, next_format = (
        ("Q", "HHQ8s", "Q") if header.big else ("H", "HHI4s", "I")
    )
    counted = struct.calcsize("=" + count_format)
    (count,) = struct.unpack(header.order + count_format, source.read(offset, counted))
    if not 0 < count <= MAX_ENTRIES:
        raise FormatError(
            f"the TIFF directory at {offset} claims {count} fields", location=source.name
        )
    entry_size, next_size = struct.calcsize("=" + entry_format), struct.calcsize("=" + next_format)
    data = source.read(offset + counted, count * entry_size + next_size)
    entries: dict[int, IfdEntry] = {}
    fields = struct.iter_unpack(header.order + entry_format, data[: count * entry_size])
    for index, (tag, kind, values, inline) in enumerate(fields):
        if kind not in _TYPES or tag in entries:
            continue  # TIFF 6.0: readers skip fields of unknown type
        nbytes = np.dtype(_TYPES[kind]).itemsize * values
        where = offset + counted + (index + 1) * entry_size - len(inline)
        if nbytes > len(inline):
            (where,) = struct.unpack(header.order + next_format, inline)
        entries[tag] = IfdEntry(kind, values, where, nbytes)
    (following,) = struct.unpack(header.order + next_format, data[-next_size:])
    nbytes = counted + len(data)
    return Ifd(source, header.order, offset, nbytes, following, entries)


def check_following(source: ByteSource, header: TiffHeader, offset: int) -> None:
    """Raise `FormatError` if the next directory cannot lie at `offset`: the file is cut."""
    check_range(source, offset, 8 if header.big else 2)
