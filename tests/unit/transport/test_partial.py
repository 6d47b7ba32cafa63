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


def received(part: PartialFile, data: bytes, most: int) -> None:
    """As from a connection that gives at most so many bytes at once."""
    while data:
        room = part.room()
        count = min(most, len(room), len(data))
        room[:count], data = data[:count], data[count:]
        part.took(count)


@pytest.mark.parametrize("most", [100_003, 2**20])
def test_what_is_hashed_while_the_next_bytes_travel_is_hashed_in_order(
    tmp_path: Path, most: int
) -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(2_000_003))  # over seven blocks
    with PartialFile(tmp_path / "v", {"url": "u", "size": len(data)}, md5=True) as part:
        received(part, data, most)
        assert part.offset == len(data)
        part.finish(len(data))
        assert part.sha256.hexdigest() == hashlib.sha256(data).hexdigest()
        assert part.md5 is not None and part.md5.hexdigest() == hashlib.md5(data).hexdigest()
    assert (tmp_path / "v").read_bytes() == data


def test_a_part_that_is_begun_anew_forgets_what_was_on_its_way(tmp_path: Path) -> None:
    with PartialFile(tmp_path / "v", {"url": "u", "size": 3}) as part:
        received(part, b"x" * (3 * 2**20 + 5), 2**20)
        part.restart()
        received(part, b"abc", 3)
        part.finish(3)
        assert part.sha256.hexdigest() == hashlib.sha256(b"abc").hexdigest()
    assert (tmp_path / "v").read_bytes() == b"abc"


def test_a_transfer_that_ends_early_keeps_all_that_came(tmp_path: Path) -> None:
    identity: dict[str, str | int | None] = {"url": "u", "size": 3 * 2**20, "etag": "1"}
    data = bytes(range(256)) * (5 * 2**10)  # a block and a quarter
    with PartialFile(tmp_path / "v", identity) as part:
        received(part, data, 70_000)
    assert (tmp_path / "v.partial").read_bytes() == data
    with PartialFile(tmp_path / "v", identity) as part:
        assert part.offset == len(data)
        assert part.sha256.hexdigest() == hashlib.sha256(data).hexdigest()
