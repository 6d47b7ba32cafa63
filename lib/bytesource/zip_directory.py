"""The central directory of a ZIP file, read by ranges and held against what is possible.

APPNOTE 6.3.10; zip64, stored and deflated members. Whatever could make a member mean two things is
refused: encryption, names that leave the archive, two members of one name or of the same bytes.
"""

from __future__ import annotations

import io
import itertools
import struct
import zipfile
from dataclasses import dataclass

from lib.bytesource.base import ByteSource
from lib.errors import FormatError, UnsupportedFormatError

LOCAL_HEADER_BYTES = 30
_MOST_DIRECTORY_BYTES = 64 * 2**20  # 46 bytes and a name each: half a million members
_MOST_RATIO = 200  # of pixels; Deflate itself reaches 1032
_FREE_BYTES = 2**20  # below this no ratio is a bomb
_ENCRYPTED = 0x1 | 0x40 | 0x2000
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

    def refuse(why: str) -> UnsupportedFormatError:
        return UnsupportedFormatError(
            f"a member of the ZIP file {why}",
            location=source.name,
            unit=name[:200],
            advice="Unpack the archive, and give the folder's address",
        )

    parts = name.rstrip("/").split("/")
    if "\0" in name or "\\" in name or name.startswith("/") or {"", ".", ".."} & set(parts):
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
