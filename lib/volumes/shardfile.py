"""The bytes of one shard: chunks one after another, then the index and its crc32c.

Zarr v3 ``sharding_indexed`` with the index at the end: for each chunk slot in C order two
little-endian u64, offset and length (both 2^64-1 for a chunk that is not there), followed by the
crc32c of the index (Zarr v3 core specification, codec ``sharding_indexed`` 1.0).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from lib.errors import IntegrityError
from lib.geometry import ShapeZYX
from lib.storage.base import Buffer

ABSENT = np.uint64(2**64 - 1)


@dataclass(frozen=True, slots=True)
class SealedShard:
    """A shard ready to be written: its buffers in order, its length and its sha256."""

    buffers: list[Buffer]
    size: int
    sha256: str


def index_length(chunks_per_shard_zyx: ShapeZYX) -> int:
    """Bytes of the index with its checksum."""
    return 16 * math.prod(chunks_per_shard_zyx) + 4


def seal(chunks: Sequence[Buffer | None]) -> SealedShard:
    """Put encoded chunks, in slot order, together with their index."""
    index = np.full((len(chunks), 2), ABSENT, dtype="<u8")
    buffers: list[Buffer] = []
    digest = hashlib.sha256()
    offset = 0
    for slot, chunk in enumerate(chunks):
        if chunk is None:
            continue
        length = len(chunk)
        index[slot] = (offset, length)
        buffers.append(chunk)
        digest.update(chunk)
        offset += length
    table = index.tobytes()
    trailer = table + google_crc32c.value(table).to_bytes(4, "little")
    buffers.append(trailer)
    digest.update(trailer)
    return SealedShard(buffers, offset + len(trailer), digest.hexdigest())


def read_index(
    trailer: Buffer, chunks_per_shard_zyx: ShapeZYX, shard_size: int, name: str
) -> NDArray[np.uint64]:
    """Offsets and lengths of a shard's chunks, shape ``(slots, 2)``.

    Raises
    ------
    IntegrityError
        The checksum does not match, or an entry points outside the shard.
    """
    table, stored = bytes(trailer[:-4]), bytes(trailer[-4:])
    slots = math.prod(chunks_per_shard_zyx)
    if len(table) != 16 * slots or google_crc32c.value(table).to_bytes(4, "little") != stored:
        raise IntegrityError("the shard's index does not match its checksum", location=name)
    index = np.frombuffer(table, dtype="<u8").reshape(slots, 2)
    present = index[index[:, 0] != ABSENT]
    limit = shard_size - index_length(chunks_per_shard_zyx)
    # each number alone first: the sum of two numbers near 2^64 would wrap round
    if len(present) and (int(present.max()) > limit or int(present.sum(axis=1).max()) > limit):
        raise IntegrityError("the shard's index points outside the shard", location=name)
    return index.astype(np.uint64)
