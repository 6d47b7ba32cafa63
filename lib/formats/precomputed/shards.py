"""Where a chunk lies in the sharded form of a precomputed volume.

neuroglancer ``src/datasource/precomputed/sharded.rst``: a chunk's id is its compressed Morton code;
a hash of the id chooses shard and minishard. A shard begins with an index of its minishards, and
each minishard has an index of its chunks, whose ids and offsets are stored as differences.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from imagecodecs import BrotliError, brotli_decode
from numpy.typing import NDArray

from lib.errors import FormatError, UnsupportedFormatError
from lib.geometry import ShapeZYX

_MOST_BITS = 32  # of minishards: the index of a shard has 16 bytes for each
_MOST_INDEX_BYTES = 2**28
_MASK = 2**64 - 1
_M32 = 2**32 - 1


@dataclass(frozen=True, slots=True)
class ShardingSpec:
    """The parameters of ``neuroglancer_uint64_sharded_v1``."""

    preshift_bits: int
    murmur: bool
    minishard_bits: int
    shard_bits: int
    index_gzip: bool
    data_gzip: bool

    @property
    def index_bytes(self) -> int:
        """Length of the index at the beginning of a shard."""
        return 16 << self.minishard_bits

    def place(self, chunk_id: int) -> tuple[int, int]:
        """Shard and minishard of a chunk."""
        shifted = chunk_id >> self.preshift_bits
        hashed = murmur3_low64(shifted) if self.murmur else shifted
        minishard = hashed & ((1 << self.minishard_bits) - 1)
        shard = (hashed >> self.minishard_bits) & ((1 << self.shard_bits) - 1)
        return shard, minishard

    def file(self, shard: int) -> str:
        """Name of a shard's object."""
        return f"{shard:0{max(1, -(-self.shard_bits // 4))}x}.shard"

    def minishard_range(
        self, index: bytes | memoryview, minishard: int, size: int
    ) -> tuple[int, int]:
        """Offset and length of a minishard's index in the shard; length 0 where it is empty.

        Raises
        ------
        FormatError
            The range leads out of the shard.
        """
        start, stop = (int(n) for n in np.frombuffer(index, "<u8", 2, 16 * minishard))
        if not start <= stop or self.index_bytes + stop > size:
            raise FormatError("the index of a shard leads out of it")
        if stop - start > _MOST_INDEX_BYTES:
            raise FormatError(f"a minishard index of {stop - start} bytes")
        return self.index_bytes + start, stop - start

    def chunks(self, data: bytes | memoryview, size: int) -> dict[int, tuple[int, int]]:
        """Offset and length in the shard of each chunk of a minishard, by id.

        Raises
        ------
        FormatError
            The index is damaged, or leads out of the shard.
        """
        raw = _gunzip(data, _MOST_INDEX_BYTES) if self.index_gzip else bytes(data)
        if len(raw) % 24:
            raise FormatError(f"a minishard index of {len(raw)} bytes")
        table: NDArray[np.uint64] = np.frombuffer(raw, "<u8").reshape(3, -1)
        found, number, at = {}, 0, self.index_bytes
        for delta, gap, length in zip(*(row.tolist() for row in table), strict=True):
            number, start = (number + delta) & _MASK, at + gap
            at = start + length
            if at > size:
                raise FormatError("the index of a minishard leads out of its shard")
            found[number] = (start, length)
        if len(found) != table.shape[1]:
            raise FormatError("the index of a minishard names a chunk twice")
        return found


def parse_sharding(given: dict[str, Any], where: str) -> ShardingSpec:
    """Read ``sharding`` of a scale; raises `FormatError` and `UnsupportedFormatError`."""
    if given.get("@type") != "neuroglancer_uint64_sharded_v1":
        raise UnsupportedFormatError(f"sharding {given.get('@type')!r}", location=where)
    if given["hash"] not in ("identity", "murmurhash3_x86_128"):
        raise UnsupportedFormatError(f"shard hash {given['hash']!r}", location=where)
    encodings = [given.get(name, "raw") for name in ("minishard_index_encoding", "data_encoding")]
    if not set(encodings) <= {"raw", "gzip"}:
        raise UnsupportedFormatError(f"shard encodings {encodings}", location=where)
    bits = [int(given[name]) for name in ("preshift_bits", "minishard_bits", "shard_bits")]
    if min(bits) < 0 or max(bits) > 64 or bits[1] > _MOST_BITS or 16 << bits[1] > _MOST_INDEX_BYTES:
        raise FormatError(f"impossible bits of a sharding: {bits}", location=where)
    return ShardingSpec(
        preshift_bits=bits[0],
        murmur=given["hash"] != "identity",
        minishard_bits=bits[1],
        shard_bits=bits[2],
        index_gzip=encodings[0] == "gzip",
        data_gzip=encodings[1] == "gzip",
    )


def morton(index_zyx: ShapeZYX, grid_zyx: ShapeZYX) -> int:
    """The compressed Morton code of a cell: bits of x, y, z in turn, of those that the grid has."""
    code, place = 0, 0
    for bit in range(max(n.bit_length() for n in grid_zyx)):
        for axis in (2, 1, 0):
            if 1 << bit < grid_zyx[axis]:
                code |= (index_zyx[axis] >> bit & 1) << place
                place += 1
    return code


def murmur3_low64(number: int) -> int:
    """Low 64 bits of MurmurHash3 x86_128, seed 0, of the eight little-endian bytes of a number."""
    c1, c2, c3 = 0x239B961B, 0xAB0E9789, 0x38B34AE5
    k2, k1 = number >> 32 & _M32, number & _M32
    h2 = _rotate(k2 * c2 & _M32, 16) * c3 & _M32
    h1 = _rotate(k1 * c1 & _M32, 15) * c2 & _M32
    h3 = h4 = 0
    h1, h2, h3, h4 = (h ^ 8 for h in (h1, h2, h3, h4))
    h1 = (h1 + h2 + h3 + h4) & _M32
    h2, h3, h4 = ((h + h1) & _M32 for h in (h2, h3, h4))
    h1, h2, h3, h4 = (_mixed(h) for h in (h1, h2, h3, h4))
    h1 = (h1 + h2 + h3 + h4) & _M32
    h2 = (h2 + h1) & _M32
    return h1 | h2 << 32


def _rotate(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & _M32


def _mixed(word: int) -> int:
    word ^= word >> 16
    word = word * 0x85EBCA6B & _M32
    word ^= word >> 13
    word = word * 0xC2B2AE35 & _M32
    return word ^ word >> 16


def unbrotli(data: bytes | memoryview, most: int) -> bytes:
    """Unpack brotli, which has no checksum, to at most so many bytes; else `FormatError`."""
    try:
        out = bytes(brotli_decode(bytes(data), out=most))
    except (BrotliError, ValueError) as error:
        raise FormatError(f"brotli bytes are damaged, or unpack to more: {error}") from None
    return out


def _gunzip(data: bytes | memoryview, most: int) -> bytes:
    """Unpack a gzip stream of which only a bound is known, far above what comes.

    Raises
    ------
    FormatError
        It is damaged, cut short, or longer.
    """
    unpack = zlib.decompressobj(31)
    try:
        out = unpack.decompress(data, most + 1)
    except zlib.error as error:
        raise FormatError(f"gzip bytes are damaged: {error}") from None
    if len(out) > most or not unpack.eof:
        raise FormatError("gzip bytes are cut short, or unpack to more than can be")
    return out
