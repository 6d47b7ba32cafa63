"""Neighbouring pieces come by one request, each byte once, with as many threads as ask."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lib.bytesource.neighbours import Neighbours, SharedReads
from lib.errors import TransportError

OBJECT = bytes(range(256)) * 4
PLACES = {number: (number * 16, 16) for number in range(64)}


class Ranges:
    """An object whose reads are counted."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.lock = threading.Lock()

    def __call__(self, key: str, start: int, length: int) -> bytes | None:
        with self.lock:
            self.asked.append((start, length))
        return None if key == "gone" else OBJECT[start : start + length]


def piece(neighbours: Neighbours, number: int, key: str = "x") -> bytes | None:
    data = neighbours.get(key, key, number, PLACES[number], PLACES.get)  # type: ignore[arg-type]
    return None if data is None else bytes(data)


def truth(number: int) -> bytes:
    return OBJECT[number * 16 : number * 16 + 16]


def test_expected_neighbours_come_by_one_request() -> None:
    ranges = Ranges()
    neighbours = Neighbours(ranges, most=64)
    neighbours.expect("x", range(8))
    assert [piece(neighbours, n) for n in range(8)] == [truth(n) for n in range(8)]
    assert ranges.asked == [(0, 64), (64, 64)]


def test_what_nobody_expects_is_never_fetched_along() -> None:
    ranges = Ranges()
    neighbours = Neighbours(ranges, most=2**20)
    neighbours.expect("x", [0, 1, 2])
    for n in (0, 1, 2, 4, 3):
        assert piece(neighbours, n) == truth(n)
    assert ranges.asked == [(0, 48), (64, 16), (48, 16)]


def test_a_piece_that_is_asked_for_again_is_fetched_again() -> None:
    ranges = Ranges()
    neighbours = Neighbours(ranges)
    neighbours.expect("x", [0, 1])
    assert [piece(neighbours, n) for n in (0, 1, 1)] == [truth(0), truth(1), truth(1)]
    assert ranges.asked == [(0, 32), (16, 16)]


def test_every_byte_comes_once_however_many_ask() -> None:
    ranges = Ranges()
    neighbours = Neighbours(ranges, most=64)
    neighbours.expect("x", range(64))
    with ThreadPoolExecutor(8) as pool:
        got = [*pool.map(lambda n: piece(neighbours, n), range(64))]
    assert got == [truth(n) for n in range(64)]
    assert sum(length for _, length in ranges.asked) == len(OBJECT)
    assert len(ranges.asked) < 64


def test_whoever_waits_fetches_what_comes_next() -> None:
    begun, go = threading.Event(), threading.Event()
    asked: list[tuple[int, int]] = []

    def slow(_: str, start: int, length: int) -> bytes:
        asked.append((start, length))
        if start == 0:
            begun.set()
            assert go.wait(120)
        else:
            go.set()  # only a second request in flight lets the first go on
        return OBJECT[start : start + length]

    neighbours = Neighbours(slow, most=32)
    neighbours.expect("x", range(4))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(piece, neighbours, 0)
        assert begun.wait(120)
        second = pool.submit(piece, neighbours, 1)
        assert first.result(30) == truth(0)
        assert second.result(30) == truth(1)
    assert asked == [(0, 32), (32, 32)]


def test_a_failure_reaches_everybody_whose_piece_it_was() -> None:
    def refused(*_: Any) -> bytes:
        raise TransportError("refused")

    neighbours = Neighbours(refused)
    neighbours.expect("x", [0, 1])
    for n in (0, 1):
        with pytest.raises(TransportError):
            piece(neighbours, n)


def test_an_object_that_went_away_is_none() -> None:
    assert piece(Neighbours(Ranges()), 0, "gone") is None


def test_threads_that_ask_at_once_read_once() -> None:
    asked: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def read(key: str) -> str:
        asked.append(key)
        begun.set()
        assert go_on.wait(60)
        return key.upper()

    reads = SharedReads(read, 4)
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(reads.get, "a")
        assert begun.wait(60)
        others = [pool.submit(reads.get, "a") for _ in range(4)]
        assert reads.peek("a") is None
        go_on.set()
        assert {one.result(60) for one in (first, *others)} == {"A"}
    assert asked == ["a"]
    assert (reads.get("a"), reads.peek("a"), reads.peek("b")) == ("A", "A", None)


def test_a_failure_is_its_readers_own_and_is_not_kept() -> None:
    begun, go_on = threading.Event(), threading.Event()
    times: list[int] = []

    def read(key: str) -> str:
        times.append(1)
        if len(times) > 1:
            return key.upper()
        begun.set()
        assert go_on.wait(60)
        raise ValueError(key)

    reads = SharedReads(read, 4)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(reads.get, "a")
        assert begun.wait(60)
        second = pool.submit(reads.get, "a")
        go_on.set()
        with pytest.raises(ValueError, match="a"):
            first.result(60)
        assert second.result(60) == "A"


def test_what_was_asked_for_longest_ago_is_read_again() -> None:
    asked: list[str] = []
    reads = SharedReads(lambda key: asked.append(key) or key, 2)
    for key in ("a", "b", "a", "c", "a", "b"):
        reads.get(key)
    assert asked == ["a", "b", "c", "b"]
