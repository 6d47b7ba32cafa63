"""A stream's digest is that of the file, or there is none: never that of something else."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest

from lib.concurrency import cancel
from lib.errors import NotFoundError, StoppedError
from lib.storage.digests import REORDER_BYTES, OrderedHasher, blocks_of, digest_of, put_file
from lib.storage.local import LocalStore

CONTENT = bytes(range(10))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def fed(pieces: list[tuple[int, int]], limit: int = REORDER_BYTES) -> OrderedHasher:
    hasher = OrderedHasher(limit)
    for start, stop in pieces:
        hasher.write(start, memoryview(CONTENT)[start:stop])
    return hasher


@pytest.mark.parametrize("order", list(itertools.permutations([(0, 2), (2, 3), (3, 7), (7, 10)])))
def test_pieces_in_any_order_give_the_digest_of_the_whole(
    order: tuple[tuple[int, int], ...],
) -> None:
    assert fed(list(order)).hexdigest(10) == SHA256


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, 5), (5, 10), (5, 10)],  # again, at the end
        [(0, 10), (2, 4)],  # again, inside
        [(0, 6), (4, 10)],  # half of it again
        [(4, 6), (4, 10), (0, 4)],  # the longer of two that wait counts
        [(4, 10), (4, 6), (0, 4)],
        [(6, 10), (4, 8), (0, 5)],  # overlapping while they wait
        [(5, 7), (4, 10), (0, 4)],  # one inside the other
    ],
)
def test_bytes_that_come_twice_are_digested_once(pieces: list[tuple[int, int]]) -> None:
    assert fed(pieces).hexdigest(10) == SHA256


def test_nothing_has_the_digest_of_nothing() -> None:
    assert OrderedHasher().hexdigest(0) == hashlib.sha256().hexdigest()


@pytest.mark.parametrize("pieces", [[], [(0, 9)], [(1, 10)], [(0, 4), (5, 10)]])
def test_a_file_that_did_not_come_whole_has_no_digest(pieces: list[tuple[int, int]]) -> None:
    assert fed(pieces).hexdigest(10) is None


def test_a_file_that_is_longer_than_was_said_has_no_digest() -> None:
    assert fed([(0, 10)]).hexdigest(9) is None


def test_as_much_disorder_as_was_agreed_is_borne_and_not_a_byte_more() -> None:
    assert fed([(6, 10), (0, 6)], limit=4).hexdigest(10) == SHA256
    assert fed([(5, 10), (0, 5)], limit=4).hexdigest(10) is None
    assert fed([(8, 10), (5, 8), (0, 5)], limit=4).hexdigest(10) is None


def test_what_has_been_digested_counts_no_longer_as_waiting() -> None:
    hasher = fed([(2, 5), (0, 2), (7, 10), (5, 7)], limit=3)
    assert hasher.hexdigest(10) == SHA256


def test_a_longer_piece_in_place_of_a_shorter_one_counts_with_its_own_length() -> None:
    assert fed([(6, 8), (6, 10), (0, 6)], limit=4).hexdigest(10) == SHA256
    assert fed([(5, 8), (5, 10), (0, 5)], limit=4).hexdigest(10) is None
    assert fed([(6, 10), (6, 10), (6, 8), (0, 6)], limit=4).hexdigest(10) == SHA256


def test_what_was_given_up_stays_given_up_and_holds_no_memory() -> None:
    hasher = fed([(5, 10)], limit=4)
    assert not hasher._waiting
    hasher.write(6, memoryview(CONTENT)[6:10])
    assert not hasher._waiting, "given up: nothing is held any more"
    hasher.write(0, memoryview(CONTENT))
    assert hasher.hexdigest(10) is None


def test_bytes_that_wait_are_a_copy_of_a_buffer_that_is_used_again() -> None:
    hasher, buffer = OrderedHasher(), bytearray(CONTENT[5:])
    hasher.write(5, memoryview(buffer))
    buffer[:] = b"other"
    hasher.write(0, memoryview(CONTENT)[:5])
    assert hasher.hexdigest(10) == SHA256


def test_by_default_no_more_than_64_mib_wait() -> None:
    whole = bytes(64 * 2**20 + 2)
    hasher = OrderedHasher()
    hasher.write(1, memoryview(whole)[1:-1])
    hasher.write(0, memoryview(whole)[:1])
    assert hasher.hexdigest(len(whole) - 1) is not None
    hasher = OrderedHasher()
    hasher.write(1, memoryview(whole)[1:])
    hasher.write(0, memoryview(whole)[:1])
    assert hasher.hexdigest(len(whole)) is None


MIB = 2**20


class Asked(LocalStore):
    """A store that notes which ranges it was asked for."""

    ranges: list[tuple[int, int]]

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.ranges.append((start, length))
        return super().get_range(key, start, length)


@pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 3])
def test_an_object_is_digested_block_by_block_to_its_last_byte(tmp_path: Path, size: int) -> None:
    store, data = Asked(tmp_path, durable=False), bytes(range(251)) * (size // 251 + 1)
    store.ranges = []
    store.put("a", data[:size])
    assert digest_of(store, "a") == (size, hashlib.sha256(data[:size]).hexdigest())
    whole, rest = divmod(size, 8 * MIB)
    blocks = [8 * MIB] * whole + ([rest] if rest else [])
    assert store.ranges == [(8 * MIB * n, length) for n, length in enumerate(blocks)]


def test_an_absent_object_has_no_digest_and_a_stop_ends_a_long_reading(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, durable=False)
    with pytest.raises(NotFoundError) as caught:
        digest_of(store, "a/b")
    assert caught.value.location == "a/b"
    store.put("a", bytes(9 * MIB))
    blocks = blocks_of(store, "a")
    next(blocks)
    cancel.request_stop()
    try:
        with pytest.raises(StoppedError):
            next(blocks)
    finally:
        cancel.reset()


@pytest.mark.parametrize("data", [b"", b"data"])
def test_a_file_is_put_whole_also_where_it_is_empty(tmp_path: Path, data: bytes) -> None:
    store = LocalStore(tmp_path / "store", durable=False)
    (tmp_path / "file").write_bytes(data)
    put_file(store, "a", tmp_path / "file")
    assert store.get("a") == data
