"""Indexes of shards: one thread reads, the others wait for it; a failure is its reader's own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.bytesource.shared_reads import SharedReads


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
