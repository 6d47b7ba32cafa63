"""XXH32, the checksum of the blocks that lz4-java writes (the specification of xxHash, 0.1.1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from lib.compiled import compiled

_P1, _P2, _P3, _P4, _P5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
_MASK = 2**32 - 1
LZ4_JAVA_SEED = 0x9747B28C


def xxh32(data: bytes | memoryview, seed: int = 0) -> int:
    """The hash of some bytes, 32 bits."""
    return int(_loop(np.frombuffer(data, np.uint8), seed))


@compiled
def _loop(data: Any, seed: int) -> Any:
    length, at = len(data), 0
    if length >= 16:
        one, two = (seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK
        three, four = seed & _MASK, (seed - _P1) & _MASK
        while at + 16 <= length:
            one = _round(one, _word(data, at))
            two = _round(two, _word(data, at + 4))
            three = _round(three, _word(data, at + 8))
            four = _round(four, _word(data, at + 12))
            at += 16
        found = _rotated(one, 1) + _rotated(two, 7) + _rotated(three, 12) + _rotated(four, 18)
    else:
        found = seed + _P5
    found = (found + length) & _MASK
    while at + 4 <= length:
        found = _rotated((found + _times(_word(data, at), _P3)) & _MASK, 17)
        found = _times(found, _P4)
        at += 4
    while at < length:
        found = _times(_rotated((found + _times(np.int64(data[at]), _P5)) & _MASK, 11), _P1)
        at += 1
    found = _times(found ^ (found >> 15), _P2)
    found = _times(found ^ (found >> 13), _P3)
    return found ^ (found >> 16)


@compiled
def _times(a: Any, b: Any) -> Any:
    """The product of two words, modulo 2^32, without leaving 63 bits."""
    return ((a * (b & 0xFFFF)) + (((a * (b >> 16)) & 0xFFFF) << 16)) & _MASK


@compiled
def _word(data: Any, at: int) -> Any:
    return (
        np.int64(data[at])
        | np.int64(data[at + 1]) << 8
        | np.int64(data[at + 2]) << 16
        | np.int64(data[at + 3]) << 24
    )


@compiled
def _rotated(word: Any, by: int) -> Any:
    return ((word << by) | (word >> (32 - by))) & _MASK


@compiled
def _round(lane: Any, word: Any) -> Any:
    return _times(_rotated((lane + _times(word, _P2)) & _MASK, 13), _P1)
