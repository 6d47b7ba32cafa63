"""Buffers are used again, and never by two at once."""

from __future__ import annotations

from lib.bytesource.base import BufferPool


def test_what_was_given_back_is_taken_again() -> None:
    pool = BufferPool(100)
    first = pool.take(40)
    first[:] = b"a" * 40
    pool.give(first)
    again = pool.take()
    assert len(again) == 100
    assert bytes(again[:40]) == b"a" * 40


def test_what_is_out_is_given_to_nobody_else() -> None:
    pool = BufferPool(8)
    one, other = pool.take(8), pool.take(8)
    one[:] = b"1" * 8
    other[:] = b"2" * 8
    assert bytes(one) == b"1" * 8


def test_one_larger_than_the_pools_is_not_kept() -> None:
    pool = BufferPool(8)
    large = pool.take(9)
    assert len(large) == 9
    pool.give(large)
    assert len(pool.take()) == 8
