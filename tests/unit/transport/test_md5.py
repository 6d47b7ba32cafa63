"""MD5 in the lanes of a vector is that of hashlib, whatever is beside a message."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.concurrency.bounded_map import ComputeSlots
from lib.errors import IncompleteTransferError
from lib.transport import md5
from lib.transport.http_wire import Answer, Headers
from lib.transport.s3 import reader

LONG = 20_000


def expected(messages: Sequence[bytes | memoryview]) -> list[str]:
    return [hashlib.md5(message).hexdigest() for message in messages]


@pytest.fixture(scope="module")
def lanes() -> Callable[[Sequence[bytes]], list[str]]:
    compiled = md5.compile_lanes()
    assert compiled is not None, "LLVM compiles for every processor that the tests run on"
    return compiled


@pytest.fixture
def shared(lanes: Any) -> md5.Md5:
    """One that has seen enough to hash in lanes."""
    one = md5.Md5(compiled_after=LONG)
    one.digests([bytes(LONG)])
    return one


def test_messages_of_every_short_length_in_every_lane(lanes: Any) -> None:
    data = random.Random(5).randbytes(400)
    for size in range(301):  # ends of blocks and of the padding among them
        messages = [data[lane : lane + size + lane % 3] for lane in range(md5.LANES)]
        assert lanes(messages) == expected(messages)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=md5.LANES), st.integers(0, 10**6))
def test_messages_of_unequal_lengths(lanes: Any, sizes: list[int], seed: int) -> None:
    messages = [memoryview(random.Random(seed + size).randbytes(size)) for size in sizes]
    assert lanes(messages) == expected(messages)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 16, 17, 40])
def test_as_many_as_come(shared: md5.Md5, count: int) -> None:
    messages = [random.Random(n).randbytes(LONG + 7 * n) for n in range(count)]
    messages[count // 2] = b""
    assert shared.digests(messages) == expected(messages)
    assert shared.digests([]) == []
    assert not shared._waiting


def test_what_other_threads_wait_with_is_hashed_along(shared: md5.Md5) -> None:
    calls: list[int] = []
    compiled = shared._compiled
    assert compiled is not None

    def counted(messages: Sequence[Any]) -> list[str]:
        calls.append(len(messages))
        return compiled(messages)

    shared._compiled = counted
    slots, found = ComputeSlots(1), dict[int, list[str]]()
    messages = {n: [random.Random(n).randbytes(LONG + n)] for n in range(5)}

    def work(number: int) -> None:
        with slots.bounding():
            found[number] = shared.digests(messages[number])

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in messages]
    slots.take()
    for thread in threads:
        thread.start()
    until(lambda: len(slots._waiters) == 5)
    slots.free()
    for thread in threads:
        thread.join()
    assert calls == [5]
    assert found == {n: expected(messages[n]) for n in messages}


def until(ready: Callable[[], bool]) -> None:
    for _ in range(60_000):
        if ready():
            return
        time.sleep(0.001)
    raise AssertionError("it did not come to pass")


def test_without_llvm_hashlib_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(md5, "import_module", refuse)
    hashing = md5.Md5(compiled_after=1)
    messages = [random.Random(n).randbytes(LONG) for n in range(8)]
    for _ in range(2):
        assert hashing.digests(messages) == expected(messages)
    assert hashing._compiled is None


def test_a_loop_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(md5, "_SINES", [1, *md5._SINES[1:]])
    assert md5.compile_lanes() is None


@pytest.mark.parametrize("bad", range(md5.LANES))
def test_wrong_bytes_are_found_in_each_lane_and_cost_no_other(
    shared: md5.Md5, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    monkeypatch.setattr(reader, "MD5", shared)
    bodies = [random.Random(n).randbytes(LONG + n) for n in range(md5.LANES)]
    tags = expected(bodies)
    bodies[bad] = bodies[bad][:-1] + bytes([bodies[bad][-1] ^ 1])
    answers = [
        Answer(200, Headers(etag=f'"{tag}"'), memoryview(body), lasting=True)
        for body, tag in zip(bodies, tags, strict=True)
    ]
    faults = list(reader.EtagProof().faults(answers))
    assert [n for n, fault in enumerate(faults) if fault is not None] == [bad]
    assert isinstance(faults[bad], IncompleteTransferError)


def test_a_digest_that_is_wrong_by_itself_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(md5.Md5):
        def digests(self, messages: Sequence[Any]) -> list[str]:
            return ["0" * 32 for _ in messages]

    monkeypatch.setattr(reader, "MD5", Wrong())
    body = bytes(LONG)
    answer = Answer(200, Headers(etag=expected([body])[0]), memoryview(body), lasting=True)
    assert list(reader.EtagProof().faults([answer])) == [None]
