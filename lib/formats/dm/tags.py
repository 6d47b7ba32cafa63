"""The tag tree of Gatan DM3 and DM4 files, walked without trusting it.

Layout measured on 64 public DM3 and 66 public DM4 files. Structure is big-endian, values are
little-endian; widths are 4 bytes in DM3 and 8 in DM4, told by the version field and not by the
file's extension. DM4 entries carry the length of what follows, which must hold.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lib.bytesource.base import ByteSource, check_range
from lib.errors import FormatError, UnsupportedFormatError

MAX_DEPTH = 64
MAX_TAGS = 100_000  # real files have some hundred
MAX_TEXT = 64 * 2**10
_MAX_FIELDS = 1024

# encoding: struct code of one value; 18 (string) exists in the format and was never met
SIMPLE = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "?", 9: "b", 10: "B", 11: "q", 12: "Q"}
_STRUCT, _ARRAY = 15, 20
_GROUP_KIND, _DATA_KIND = 0x14, 0x15
_U16 = 4
SIZES = {code: struct.calcsize("<" + letter) for code, letter in SIMPLE.items()}


@dataclass(frozen=True, slots=True)
class ArrayTag:
    """An array that stays in the file: `count` items of `encodings` (several in a struct)."""

    offset: int
    encodings: tuple[int, ...]
    count: int
    nbytes: int


@dataclass(slots=True)
class TagGroup:
    """Children with their labels; a list has empty labels."""

    labels: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def get(self, label: str) -> Any:
        """The first child of that label; None if there is none."""
        try:
            return self.values[self.labels.index(label)]
        except ValueError:
            return None

    def find(self, *path: str | int) -> Any:
        """Follow labels and list positions; None where the path ends early."""
        node: Any = self
        for step in path:
            if not isinstance(node, TagGroup):
                return None
            if isinstance(step, int):
                node = node.values[step] if step < len(node.values) else None
            else:
                node = node.get(step)
        return node

    def walk(self) -> Iterator[tuple[str, Any]]:
        """All leaves below, with their own labels."""
        for label, value in zip(self.labels, self.values, strict=True):
            if isinstance(value, TagGroup):
                yield from value.walk()
            else:
                yield label, value


@dataclass(frozen=True, slots=True)
class TagTree:
    """A whole file: version 3 or 4, and the root group."""

    source: ByteSource
    version: int
    root: TagGroup

    def text(self, value: Any) -> str | None:
        """The text of an array of 16-bit numbers; None if `value` is none, or too long."""
        if not isinstance(value, ArrayTag) or value.encodings != (_U16,) or value.count > MAX_TEXT:
            return None
        data = self.source.read(value.offset, value.nbytes)
        return data.decode("utf-16-le", errors="replace")


def read_tags(source: ByteSource) -> TagTree:
    """Walk the tree; arrays are located and not read.

    Raises
    ------
    FormatError
        The file is no DM file, is cut anywhere within its tree, or contradicts itself.
    UnsupportedFormatError
        Big-endian values or an unknown encoding.
    """
    (version,) = struct.unpack(">I", source.read(0, 4))
    if version not in (3, 4):
        raise FormatError(
            "the file is not DM3 or DM4 (its first bytes are others)", location=source.name
        )
    position = 8 if version == 3 else 12  # after the root length, which writers count in two ways
    (little,) = struct.unpack(">I", source.read(position, 4))
    if little != 1:
        raise UnsupportedFormatError(
            f"byte order flag {little}: only little-endian DM files are known", location=source.name
        )
    walker = _Walker(source, version, position + 4)
    return TagTree(source, version, walker.group(0))


class _Walker:
    """Reads forwards from `position`, a buffer's worth at a time."""

    def __init__(self, source: ByteSource, version: int, position: int) -> None:
        self._source = source
        self._wide = version == 4
        self._word = ">Q" if self._wide else ">I"
        self._word_size = 8 if self._wide else 4
        self._position = position
        self._tags = 0
        self._buffer, self._start = b"", 0

    def _take(self, length: int) -> bytes:
        start = self._position - self._start
        if start < 0 or start + length > len(self._buffer):
            check_range(self._source, self._position, length)
            ahead = min(max(length, 16 * 2**10), self._source.size - self._position)
            self._buffer, self._start = self._source.read(self._position, ahead), self._position
            start = 0
        self._position += length
        return self._buffer[start : start + length]

    def _take_word(self) -> int:
        value: int = struct.unpack(self._word, self._take(self._word_size))[0]
        return value

    def _wrong(self, what: str) -> FormatError:
        return FormatError(f"DM tag at byte {self._position}: {what}", location=self._source.name)

    def group(self, depth: int) -> TagGroup:
        if depth > MAX_DEPTH:
            raise self._wrong(f"groups are nested more than {MAX_DEPTH} deep")
        self._take(2)  # sorted, open
        group = TagGroup()
        for _ in range(self._take_word()):
            self._tags += 1
            if self._tags > MAX_TAGS:
                raise self._wrong(f"more than {MAX_TAGS} tags")
            label, value = self._entry(depth)
            group.labels.append(label)
            group.values.append(value)
        return group

    def _entry(self, depth: int) -> tuple[str, Any]:
        kind, length = struct.unpack(">BH", self._take(3))
        if kind not in (_GROUP_KIND, _DATA_KIND):
            raise self._wrong(f"kind {kind} is neither group nor data: the file is damaged")
        label = self._take(length).decode("latin-1")
        expected = self._take_word() + self._position if self._wide else None
        value = self.group(depth + 1) if kind == _GROUP_KIND else self._data()
        if expected is not None and expected != self._position:
            raise self._wrong(f"{label[:40]!r} ends here, but should have ended at {expected}")
        return label, value

    def _data(self) -> Any:
        if self._take(4) != b"%%%%":
            raise self._wrong("a data tag lacks its four percent signs: the file is damaged")
        count = self._take_word()
        if not 0 < count <= 2 * _MAX_FIELDS + 8:
            raise self._wrong(f"{count} words of type information")
        packed = self._take(count * self._word_size)
        words = struct.unpack(f">{count}{self._word[1]}", packed)
        if count == 1 and words[0] in SIMPLE:
            return struct.unpack("<" + SIMPLE[words[0]], self._take(SIZES[words[0]]))[0]
        if words[0] == _STRUCT:
            encodings = self._fields(words)
            code = "<" + "".join(SIMPLE[encoding] for encoding in encodings)
            return struct.unpack(code, self._take(struct.calcsize(code)))
        if words[0] == _ARRAY and count >= 3:
            return self._array(words)
        raise UnsupportedFormatError(
            f"DM tag at byte {self._position}: type {words[:4]} is not known",
            location=self._source.name,
        )

    def _fields(self, words: tuple[int, ...]) -> tuple[int, ...]:
        """Encodings of a struct: 15, length of its name, count, (length of name, encoding) each."""
        if len(words) < 3 or len(words) != 3 + 2 * words[2]:
            raise self._wrong("the fields of a struct do not fit their count")
        if words[1] or any(words[3::2]) or any(encoding not in SIMPLE for encoding in words[4::2]):
            raise self._wrong("a struct has named fields or fields that are no numbers")
        return words[4::2]

    def _array(self, words: tuple[int, ...]) -> ArrayTag:
        if words[1] == _STRUCT:
            encodings = self._fields(words[1:-1])
        elif len(words) == 3 and words[1] in SIMPLE:
            encodings = (words[1],)
        else:
            raise self._wrong(f"an array of type {words[1]} is not known")
        nbytes = sum(SIZES[encoding] for encoding in encodings) * words[-1]
        array = ArrayTag(self._position, encodings, words[-1], nbytes)
        check_range(self._source, array.offset, nbytes)
        self._position += nbytes
        return array
