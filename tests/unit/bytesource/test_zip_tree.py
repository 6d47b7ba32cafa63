"""ZIP files by ranges: every member proven, everything that could mean two things refused."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.bytesource.base import LocalBytes, MemoryBytes
from lib.bytesource.tree import LocalTree
from lib.bytesource.zip_tree import ZipTree, read_directory
from lib.errors import (
    BadAnswerError,
    FormatError,
    MacroscopeError,
    NotFoundError,
    SourceChangedError,
    UnsupportedFormatError,
)

TEXT = b"sections " * 5000


def made(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED, **more: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, **more) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, data)
    return buffer.getvalue()


def opened(data: bytes) -> ZipTree:
    return ZipTree(MemoryBytes(data, name="a.zip"), LocalTree(Path("/")))


class Counted(MemoryBytes):
    """Counts what is read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data, name="a.zip")
        self.reads: list[int] = []

    def read_into(self, offset: int, view: memoryview) -> None:
        self.reads.append(len(view))
        super().read_into(offset, view)

    def ranges_ordered(self, ranges: Any) -> Iterator[memoryview]:
        raise AssertionError


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_objects_with_their_crc_as_checksum(method: int) -> None:
    tree = opened(made(("a/1.tif", TEXT), ("a/2.tif", b""), ("b.txt", b"x"), method=method))
    assert tree.get("a/1.tif") == TEXT
    assert tree.get("a/2.tif") == b""
    assert tree.get("a/3.tif") is None
    assert tree.get_range("a/1.tif", 9, 8) == b"sections"
    info = tree.head("a/1.tif")
    assert info is not None
    assert (info.size, info.checksum) == (len(TEXT), f"crc32:{zlib.crc32(TEXT):08x}")
    listing = tree.list()
    assert ([one.key for one in listing.objects], listing.prefixes) == (["b.txt"], ("a",))
    assert [one.key for one in tree.list("a").objects] == ["a/1.tif", "a/2.tif"]
    assert sorted(one.key for one in tree.list_all()) == ["a/1.tif", "a/2.tif", "b.txt"]
    assert tree.source("a/1.tif", info).read(0, 4) == b"sect"
    with pytest.raises(NotFoundError):
        tree.source("c")


def test_a_directory_of_thousands_of_members_costs_four_reads_and_a_member_one() -> None:
    data = made(*((f"stack/{z:05d}.tif", TEXT[: z % 97]) for z in range(3000)))
    source = Counted(data)
    tree = ZipTree(source, LocalTree(Path("/")))
    assert len(source.reads) <= 5
    source.reads.clear()
    assert tree.get("stack/01234.tif") == TEXT[: 1234 % 97]
    assert len(source.reads) == 1


def test_zip64_and_bytes_in_front_are_read() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("a", "w", force_zip64=True) as file:
        file.write(TEXT)
    assert opened(buffer.getvalue()).get("a") == TEXT
    assert opened(b"#!/bin/sh\n" + made(("a", TEXT))).get("a") == TEXT
    many = made(*((f"{n}", b"") for n in range(66_000)))  # more than a plain directory can count
    assert len(read_directory(MemoryBytes(many))) == 66_000


def test_a_stored_member_is_read_by_ranges() -> None:
    source = Counted(made(("a", bytes(10**6)), method=zipfile.ZIP_STORED))
    tree = ZipTree(source, LocalTree(Path("/")))
    source.reads.clear()
    assert tree.get_range("a", 500_000, 10) == bytes(10)
    assert sum(source.reads) == 30 + 10


def test_a_member_that_was_changed_is_another_one() -> None:
    known = opened(made(("a", b"1"))).head("a")
    with pytest.raises(SourceChangedError):
        opened(made(("a", b"2"))).source("a", known)


@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/etc/passwd", "a\\b", "./a", "a//b", "C:\\x"]
)
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    info = made(("x" * len(name), b"1")).replace(b"x" * len(name), name.encode())
    with pytest.raises(UnsupportedFormatError, match="leads out"):
        opened(info)


def from_windows(name: str) -> bytes:
    """A ZIP as .NET wrote it for years: by DOS, with backslashes between folders."""
    data = bytearray(made(("x" * len(name), TEXT)).replace(b"x" * len(name), name.encode()))
    data[data.index(b"PK\x01\x02") + 5] = 0
    return bytes(data)


def test_folders_that_windows_wrote_with_backslashes_are_folders() -> None:
    tree = opened(from_windows("em\\raw\\a.tif"))
    assert tree.get("em/raw/a.tif") == TEXT
    assert tree.list("em").prefixes == ("em/raw",)
    assert opened(from_windows("em\\")).list("").prefixes == ()
    for name in ("C:\\x", "..\\x", "\\x", "a\\..\\x", "a\\\\x"):
        with pytest.raises(UnsupportedFormatError, match="leads out"):
            opened(from_windows(name))


def patched(change: Callable[[bytearray, int], None]) -> bytes:
    """A ZIP whose directory's entry was changed by hand."""
    data = bytearray(made(("a", TEXT), ("b", b"1")))
    change(data, data.index(b"PK\x01\x02"))
    return bytes(data)


def test_what_cannot_be_read_is_refused_by_name() -> None:
    encrypted = patched(lambda data, at: data.__setitem__(at + 8, data[at + 8] | 1))
    with pytest.raises(UnsupportedFormatError, match="encrypted"):
        opened(encrypted)
    with pytest.raises(UnsupportedFormatError, match="method 12"):
        opened(made(("a", b"1"), method=zipfile.ZIP_BZIP2))
    bomb = patched(lambda data, at: struct.pack_into("<I", data, at + 24, 2**31))
    with pytest.raises(UnsupportedFormatError, match="claims to grow"):
        opened(bomb)
    twice = made(("a", b"1"), ("b", b"2")).replace(b"b", b"a")
    with pytest.raises(FormatError, match="two members of one name"):
        opened(twice)
    overlap = patched(lambda data, at: struct.pack_into("<I", data, at + 20, len(TEXT)))
    with pytest.raises(FormatError, match="overlap"):
        opened(overlap)


def test_a_lie_about_a_member_is_told_when_it_is_read() -> None:
    for lie in (
        patched(lambda data, at: struct.pack_into("<I", data, at + 24, len(TEXT) - 1)),
        patched(lambda data, at: struct.pack_into("<I", data, at + 24, len(TEXT) + 1)),
        patched(lambda data, at: struct.pack_into("<I", data, at + 16, 7)),
        patched(lambda data, at: data.__setitem__(40, data[40] ^ 0xFF)),
        patched(lambda data, at: data.__setitem__(0, 0)),
    ):
        with pytest.raises(FormatError):
            opened(lie).get("a")


@pytest.mark.parametrize("keep", [0, 3, 21, 22, 100, -1, -30])
def test_a_cut_file_is_no_zip(keep: int) -> None:
    data = made(("a", TEXT))
    with pytest.raises(FormatError):
        opened(data[:keep])


def test_no_damage_brings_anything_but_a_named_error_or_the_right_bytes() -> None:
    good = made(("a/1", TEXT), ("a/2", b"two"))
    for at in range(len(good)):
        for flip in (0x01, 0x80, 0xFF):
            data = bytearray(good)
            data[at] ^= flip
            try:
                tree = opened(bytes(data))
                found = {one.key: tree.get(one.key) for one in tree.list_all()}
            except MacroscopeError:
                continue
            assert set(found.values()) <= {TEXT, b"two"}


def test_more_than_the_caller_can_use_is_not_inflated(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(made(("a", TEXT)))
    tree = ZipTree(LocalBytes(path), LocalTree(Path("/")))
    with pytest.raises(BadAnswerError, match="at most 10"):
        tree.get("a", 10)
