"""The members of a ZIP file as a `Tree`: each read by its range, never unpacked to a folder."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from lib.bytesource.base import ByteSource, MemoryBytes
from lib.bytesource.remote import RemoteBytes
from lib.bytesource.tree import MOST_BYTES, Listing, ObjectInfo, Tree, check_length
from lib.bytesource.zip_directory import LOCAL_HEADER_BYTES, Member, read_directory
from lib.errors import FormatError, NotFoundError, SourceChangedError

T = TypeVar("T")

_SIGNATURE = b"PK\x03\x04"
_SLACK_BYTES = 2 * 2**16 + 64  # of a local header's extra field, its descriptor and padding


class ZipTree:
    """Members below the root of a ZIP.

    Every member that is read whole is held against its CRC-32. A deflated one cannot be read in
    parts: it is inflated in memory, to no more than its directory's size.

    Parameters
    ----------
    source
        The bytes of the ZIP; stays open as long as this does.
    outer
        Whose concurrency is used.

    Raises
    ------
    FormatError, UnsupportedFormatError
        See `read_directory`.
    """

    ranged = True

    def __init__(self, source: ByteSource, outer: Tree) -> None:
        self.uri = f"{source.name}|zip:"
        self.remote, self.range_bytes = source.remote, source.range_bytes
        self._source, self._outer = source, outer
        self._members = read_directory(source)

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | None:
        member = self._members.get(key)
        if member is None:
            return None
        check_length(f"{self.uri}{key}", member.size, most)
        return self._content(member)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        if key not in self._members:
            return None
        data = bytearray(length)
        self.source(key).read_into(start, memoryview(data))  # a source's `read` reads ahead
        return bytes(data)

    def head(self, key: str) -> ObjectInfo | None:
        member = self._members.get(key)
        return None if member is None else _info(member)

    def look(self, key: str) -> ObjectInfo | None:
        return self.head(key)

    def list(self, prefix: str = "") -> Listing:
        folder = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        objects, prefixes = [], set()
        for name, member in self._members.items():
            if name.startswith(folder):
                first, slash, _ = name.removeprefix(folder).partition("/")
                if slash:
                    prefixes.add(folder + first)
                else:
                    objects.append(_info(member))
        return Listing(tuple(objects), tuple(sorted(prefixes)))

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        for name, member in self._members.items():
            if name.startswith(folder):
                yield _info(member)

    def source(self, key: str, known: ObjectInfo | None = None) -> ByteSource:
        member = self._members.get(key)
        if member is None:
            raise NotFoundError("there is no such member", location=f"{self.uri}{key}")
        if known is not None and (known.size, known.etag) != (member.size, _info(member).etag):
            raise SourceChangedError("the member was changed", location=f"{self.uri}{key}")
        if member.deflated:
            check_length(f"{self.uri}{key}", member.size, MOST_BYTES)
            return MemoryBytes(self._content(member), name=f"{self.uri}{key}")
        start = self._data_offset(member, self._source.read(member.offset, LOCAL_HEADER_BYTES))
        return _Window(self._source, start, member.size, f"{self.uri}{key}", self._outer)

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return self._outer.ordered(jobs)

    # --- inside -----------------------------------------------------------------------------

    def _content(self, member: Member) -> bytes:
        """A member's bytes, proven by their CRC: header and data come in one range."""
        where = f"{self.uri}{member.name}"
        least = LOCAL_HEADER_BYTES + len(member.name.encode()) + member.stored_size
        length = min(member.stop - member.offset, least + _SLACK_BYTES)
        buffer = bytearray(length)
        self._source.read_into(member.offset, memoryview(buffer))
        start = self._data_offset(member, buffer) - member.offset
        stored = memoryview(buffer)[start : start + member.stored_size]
        if len(stored) != member.stored_size:
            raise FormatError("a member of the ZIP file is cut short", location=where)
        data = _inflated(stored, member, where) if member.deflated else bytes(stored)
        if zlib.crc32(data) != member.crc32:
            raise FormatError("a member of the ZIP file does not fit its CRC-32", location=where)
        return data

    def _data_offset(self, member: Member, header: bytes | bytearray) -> int:
        """Where the stored bytes begin: the extra field here may differ from the directory's."""
        name_bytes = int.from_bytes(header[26:28], "little")
        extra_bytes = int.from_bytes(header[28:30], "little")
        start = member.offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes
        if header[:4] != _SIGNATURE or start + member.stored_size > member.stop:
            raise FormatError(
                "a member of the ZIP file is not where its directory says",
                location=f"{self.uri}{member.name}",
            )
        return start


class _Window(RemoteBytes):
    """A stored member, by the ranges of the ZIP around it."""

    def __init__(self, source: ByteSource, start: int, size: int, name: str, outer: Tree) -> None:
        super().__init__(name, size, source.range_bytes)
        self.remote = source.remote
        self._source, self._start, self._outer = source, start, outer

    def receive(self, offset: int, view: memoryview) -> None:
        self._source.read_into(self._start + offset, view)

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return self._outer.ordered(jobs)


def _inflated(stored: memoryview, member: Member, where: str) -> bytes:
    inflater = zlib.decompressobj(-15)
    try:
        data = inflater.decompress(stored, member.size + 1)
    except zlib.error as error:
        raise FormatError(f"a member of the ZIP file is damaged: {error}", location=where) from None
    if len(data) != member.size or not inflater.eof:
        raise FormatError(
            f"a member of the ZIP file holds other than its {member.size} bytes", location=where
        )
    return data


def _info(member: Member) -> ObjectInfo:
    crc = f"crc32:{member.crc32:08x}"
    return ObjectInfo(member.name, member.size, f"{crc}-{member.stored_size}", None, crc)
