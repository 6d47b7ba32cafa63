"""Half-arrived files: continued only if they are surely the same, never visible before whole."""

from __future__ import annotations

import hashlib
import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.errors import DestinationError, DestinationFullError, IncompleteTransferError
from lib.transport.partial import PartialFile

IDENTITY: dict[str, str | int | None] = {"url": "u", "size": 10, "etag": '"1"'}


def write(path: Path, data: bytes, identity: dict[str, str | int | None] = IDENTITY) -> int:
    with PartialFile(path, identity) as part:
        part.write(data)
        return part.offset


@pytest.mark.parametrize("data", [b"123456789", b"12345678901"])
def test_a_wrong_count_never_gets_the_final_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "v"
    with PartialFile(path, IDENTITY) as part:
        part.write(data)
        with pytest.raises(IncompleteTransferError):
            part.finish(10)
    assert not path.exists()
    # What is too short may go on; what is too long cannot.
    assert (tmp_path / "v.partial").exists() == (len(data) < 10)


def test_the_digest_covers_what_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "v"
    write(path, b"12345")
    with PartialFile(path, IDENTITY) as part:
        assert part.offset == 5
        part.write(b"67890")
        assert part.finish(10) == 10
        assert part.sha256.digest() == hashlib.sha256(b"1234567890").digest()
    assert path.read_bytes() == b"1234567890"
    assert [p.name for p in tmp_path.iterdir()] == ["v"]


@pytest.mark.parametrize(
    "change",
    [{"etag": '"2"'}, {"size": 11}, {"url": "other"}, {"etag": None}, {"size": 4}],
    ids=str,
)
def test_a_part_of_anything_else_is_begun_anew(
    tmp_path: Path, change: dict[str, str | int | None]
) -> None:
    write(tmp_path / "v", b"12345")
    assert write(tmp_path / "v", b"ab", {**IDENTITY, **change}) == 2
    assert (tmp_path / "v.partial").read_bytes() == b"ab"


def test_a_part_without_tag_or_date_is_begun_anew(tmp_path: Path) -> None:
    nameless: dict[str, str | int | None] = {"url": "u", "size": 10, "etag": None}
    write(tmp_path / "v", b"12345", nameless)
    assert write(tmp_path / "v", b"ab", nameless) == 2


@pytest.mark.parametrize("note", [None, "", "{", json.dumps([1])])
def test_a_part_without_a_readable_note_is_begun_anew(tmp_path: Path, note: str | None) -> None:
    write(tmp_path / "v", b"12345")
    beside = tmp_path / "v.partial.json"
    beside.unlink()
    if note is not None:
        beside.write_text(note)
    assert write(tmp_path / "v", b"ab") == 2


def test_links_in_place_of_a_part_are_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep")
    (tmp_path / "v.partial").symlink_to(victim)
    (tmp_path / "v.partial.json").symlink_to(victim)
    write(tmp_path / "v", b"ab")
    assert victim.read_text() == "keep"


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """The kernel refuses to let any file grow past 1 MiB, as a quota does."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    signal.signal(signal.SIGXFSZ, before)


def test_a_full_destination_has_its_own_name(tmp_path: Path, small_files_only: None) -> None:
    with pytest.raises(DestinationFullError, match=r"v\.partial"):
        write(tmp_path / "v", bytes(2 << 20))
    assert not (tmp_path / "v").exists()


def test_a_destination_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DestinationError, match="cannot write"):
        write(tmp_path / "file" / "v", b"x")
