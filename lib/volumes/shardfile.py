"""The bytes of one shard: chunks one after another, then the index and its crc32c.

Zarr v3 ``sharding_indexed`` with the index at the end: for each chunk slot in C order two
little-endian u64, offset and length (both 2^64-1 for a chunk that is not there), followed by the
crc32c of the index (Zarr v3 core specification, codec ``sharding_indexed`` 1.0).
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Sequence

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from lib.errors import IntegrityError
from lib.geometry import ShapeZYX
from lib.storage.base import Buffer, Draft

ABSENT = np.uint64(2**64 - 1)


def index_length(chunks_per_shard_zyx: ShapeZYX) -> int:
    """Bytes of the index with its checksum."""
    return 16 * math.prod(chunks_per_shard_zyx) + 4


class ShardStream:
    """One shard on its way into the store.

    Chunks come in any order, from any thread, and are written and hashed in the order of their
    slots as soon as that can be: while they are still in the processor's cache, and so that few
    are held. What is written does not depend on the order in which they come.

    Parameters
    ----------
    draft
        Where the bytes go.
    slots
        Slots of all chunks that will come, ascending.
    chunks_per_shard_zyx
        Slots of the index: their number, those past the volume's edge included.
    """

    def __init__(self, draft: Draft, slots: Sequence[int], chunks_per_shard_zyx: ShapeZYX) -> None:
        self._draft, self._slots, self._next = draft, slots, 0
        self._index = np.full((math.prod(chunks_per_shard_zyx), 2), ABSENT, dtype="<u8")
        self._digest, self._size = hashlib.sha256(), 0
        self._waiting: dict[int, Buffer | None] = {}
        self._lock, self._writing = threading.Lock(), False

    def add(self, slot: int, chunk: Buffer | None) -> None:
        """Take an encoded chunk; None is one that is not there."""
        with self._lock:
            self._waiting[slot] = chunk
            if self._writing:  # whoever writes will come to it
                return
            self._writing = True
        while True:
            with self._lock:
                slot = self._slots[self._next] if self._next < len(self._slots) else -1
                if slot not in self._waiting:
                    self._writing = False
                    return
                chunk = self._waiting.pop(slot)
                self._next += 1
            if chunk is not None:
                self._index[slot] = (self._size, len(chunk))
                self._append(chunk)

    def seal(self) -> tuple[int, str]:
        """Add the index and make the object; returns its size and sha256.

        Raises
        ------
        IntegrityError
            Not every chunk came, or one came that was not announced.
        """
        if self._next < len(self._slots) or self._waiting:
            raise IntegrityError(f"{self._next} of {len(self._slots)} chunks of the shard came")
        table = self._index.tobytes()
        self._append(table + google_crc32c.value(table).to_bytes(4, "little"))
        self._draft.commit()
        return self._size, self._digest.hexdigest()

    def abandon(self) -> None:
        """Forget it; after `seal` this does nothing."""
        self._draft.abandon()

    def _append(self, data: Buffer) -> None:
        self._digest.update(data)
        self._draft.write(data)
        self._size += len(data)


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
