"""The members of a ZIP file as a `Tree`: each read by its range, never unpacked to a folder.

APPNOTE 6.3.10; zip64, stored and deflated members. The central directory is held against what is
possible, and whatever could make a member mean two things is refused: encryption, names that leave
the archive, two members of one name or of the same bytes.
"""

from __future__ import annotations

import io
import itertools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from lib.bytesource.base import ByteSource, MemoryBytes, read_filled
from lib.bytesource.remote import RemoteBytes
from lib.bytesource.tree import MOST_BYTES, Tree, WalkedTree, check_length
from lib.errors import FormatError, NotFoundError, SourceChangedError, UnsupportedFormatError
from lib.transport.listing import Listing, ObjectInfo

LOCAL_HEADER_BYTES = 30
_MOST_DIRECTORY_BYTES = 64 * 2**20  # 46 bytes and a name each: half a million members
_MOST_RATIO = 200  # of pixels; Deflate itself reaches 1032
_FREE_BYTES = 2**20  # below this no ratio is a bomb
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DOS = 0
_METHODS = {zipfile.ZIP_STORED: False, zipfile.ZIP_DEFLATED: True}


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a ZIP.

    Attributes
    ----------
    name
        As the archive writes it, ``/`` between its parts.
    size, stored_size
        Bytes of the file, and of its stored form.
    offset
        Where its local header begins.
    stop
        Where at the latest its stored bytes end: the next member, or the directory.
    """

    name: str
    size: int
    stored_size: int
    deflated: bool
    crc32: int
    offset: int
    stop: int


def read_directory(source: ByteSource) -> dict[str, Member]:
    """The members of a ZIP by name, folders left out.

    Raises
    ------
    FormatError
        No ZIP, a damaged one, one that was cut, or one that contradicts itself.
    UnsupportedFormatError
        Encrypted members, other methods than stored and deflated, names that leave the archive.
    """
    try:
        with zipfile.ZipFile(_RangeFile(source)) as archive:
            found, directory = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, struct.error, ValueError, OverflowError, EOFError) as error:
        raise FormatError(f"the ZIP file cannot be read: {error}", location=source.name) from None
    except NotImplementedError as error:
        raise UnsupportedFormatError(f"the ZIP file: {error}", location=source.name) from None
    members: dict[str, Member] = {}
    ordered = sorted(found, key=lambda info: info.header_offset)
    for info, following in itertools.zip_longest(ordered, ordered[1:]):
        stop = directory if following is None else following.header_offset
        member = _member(info, stop, source)
        if member is None:
            continue
        if member.name in members:
            raise FormatError(
                "the ZIP file holds two members of one name",
                location=source.name,
                unit=member.name,
                advice="Unpack it and choose",
            )
        members[member.name] = member
    return members


def _member(info: zipfile.ZipInfo, stop: int, source: ByteSource) -> Member | None:
    name = info.orig_filename
    drive = False
    if info.create_system == _DOS and "\\" in name and "/" not in name:
        # as .NET wrote folders for years, whatever the standard says
        name = name.replace("\\", "/")
        drive = name[1:2] == ":"

    def refuse(why: str) -> UnsupportedFormatError:
        return UnsupportedFormatError(
            f"a member of the ZIP file {why}",
            location=source.name,
            unit=name[:200],
            advice="Unpack the archive, and give the folder's address",
        )

    parts = name.rstrip("/").split("/")
    if (
        drive
        or "\0" in name
        or "\\" in name
        or name.startswith("/")
        or {"", ".", ".."} & set(parts)
    ):
        raise refuse("has a name that leads out of the archive")
    if name.endswith("/"):
        return None
    if info.flag_bits & _ENCRYPTED:
        raise refuse("is encrypted")
    if info.compress_type not in _METHODS:
        raise refuse(f"is compressed by method {info.compress_type}; stored and deflated are read")
    deflated = _METHODS[info.compress_type]
    if info.file_size > max(_FREE_BYTES, _MOST_RATIO * info.compress_size):
        raise refuse(f"claims to grow from {info.compress_size} to {info.file_size} bytes")
    if not deflated and info.file_size != info.compress_size:
        raise FormatError("a stored member has two sizes", location=source.name, unit=name[:200])
    if info.header_offset + LOCAL_HEADER_BYTES + info.compress_size > stop:
        raise FormatError(
            "members of the ZIP file overlap, or reach into its directory",
            location=source.name,
            unit=name[:200],
        )
    return Member(
        name,
        info.file_size,
        info.compress_size,
        deflated,
        info.CRC,
        info.header_offset,
        stop,
    )


class _RangeFile(io.RawIOBase):
    """What zipfile needs of a file, to read its directory and nothing else."""

    def __init__(self, source: ByteSource) -> None:
        self._source, self._at = source, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise OSError("a seek before the beginning")  # zipfile takes it for a short file
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        rest = max(0, self._source.size - self._at)
        count = rest if size is None or size < 0 else min(size, rest)
        if count > _MOST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its directory would have {count} bytes")
        data = self._source.read(self._at, count)
        self._at += count
        return data


T = TypeVar("T")

_SIGNATURE = b"PK\x03\x04"
_SLACK_BYTES = 2 * 2**16 + 64  # of a local header's extra field, its descriptor and padding


class ZipTree(WalkedTree):
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
    listing_proves = True

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
        return read_filled(self.source(key), start, length)  # a source's `read` reads ahead

    def head(self, key: str) -> ObjectInfo | None:
        member = self._members.get(key)
        return None if member is None else _info(member)

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
        own = bytes(buffer[LOCAL_HEADER_BYTES:][: int.from_bytes(buffer[26:28], "little")])
        if own not in _spellings(member.name):
            raise FormatError(
                "a member of the ZIP file has another name than its directory says",
                location=where,
            )
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


def _spellings(name: str) -> set[bytes]:
    """The bytes that a local header may have for a name: UTF-8, or the code page of DOS."""
    names = (name, name.replace("/", "\\"))
    return {one.encode(code, "replace") for one in names for code in ("utf-8", "cp437")}


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
