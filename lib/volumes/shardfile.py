"""The bytes of one shard: chunks one after another, then the index and its crc32c; and reading them
back, chunk by chunk, with every checksum looked at.

Zarr v3 ``sharding_indexed`` with the index at the end: for each chunk slot in C order two
little-endian u64, offset and length (both 2^64-1 for a chunk that is not there), followed by the
crc32c of the index (Zarr v3 core specification, codec ``sharding_indexed`` 1.0).

Levels are read back to make the coarse levels, previews and deep verification without holding a
level. zarr-python stays the reference that tests read everything back with.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from lib.bytesource.neighbours import SharedReads
from lib.compression import decode_into, open_codec
from lib.errors import IntegrityError, NotFoundError
from lib.formats.base import Block, Layout, VolumeReader
from lib.geometry import Box, ShapeZYX
from lib.storage.base import Buffer, Draft, Store
from lib.volumes.grid import ShardGrid, shard_key

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


_INDEXES = 16
_READ_BYTES = 8 * 2**20


class StoredLevel(VolumeReader):
    """One level of a sharded OME-Zarr as a `lib.formats.base.VolumeReader`.

    Parameters
    ----------
    root
        Key of the OME-Zarr in the store (under its staging name while it is being made).
    """

    def __init__(
        self,
        store: Store,
        root: str,
        level: int,
        grid: ShardGrid,
        dtype: np.dtype[Any],
        codec: dict[str, Any],
        fill_value: int | float = 0,
    ) -> None:
        self.shape_zyx = grid.shape_zyx
        self.dtype = dtype
        self.layout = Layout(grid.chunk_zyx)
        self._store, self._root, self._level, self._grid = store, root, level, grid
        self._codec = open_codec(codec)
        self._fill = fill_value
        self._indexes = SharedReads(self._index, _INDEXES)

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield the parts of `box`, chunk by chunk.

        Raises
        ------
        IntegrityError
            A shard is absent or damaged.
        """
        for shard in box.cells(self._grid.shard_zyx).indices():
            yield from self._shard_blocks(shard, box)

    def read(self, box: Box) -> NDArray[Any]:
        """The voxels of a box, shape of the box."""
        voxels = np.empty(box.shape_zyx, self.dtype)
        for block in self.blocks(box):
            voxels[block.box.slices(box.start_zyx)] = block.data
        return voxels

    def absent_chunks(self, index_zyx: ShapeZYX) -> int:
        """How many chunks of a shard its index says are not there: they read as the fill value.

        Raises
        ------
        IntegrityError
            The shard is absent or damaged.
        """
        table = self._indexes.get(f"{self._root}/{shard_key(self._level, index_zyx)}")
        return sum(int(table[slot, 0] == ABSENT) for slot, _ in self._grid.chunks_of(index_zyx))

    def _shard_blocks(self, shard: ShapeZYX, box: Box) -> Iterator[Block]:
        key = f"{self._root}/{shard_key(self._level, shard)}"
        table = self._indexes.get(key)
        chunks = [*self._grid.chunks_within(shard, box)]
        voxels = np.empty(self._grid.chunk_zyx, self.dtype)
        encoded = self._encoded(key, [slot for slot, _ in chunks], table)
        for (slot, chunk), data in zip(chunks, encoded, strict=True):
            whole = self._grid.chunk_box(chunk)
            part = whole.intersect(box)
            if data is None:
                voxels.fill(self._fill)
            else:
                try:
                    decode_into(self._codec, data, voxels)
                except Exception as error:
                    raise IntegrityError(
                        f"a stored chunk cannot be read: {error}",
                        location=key,
                        unit=f"chunk {slot}",
                    ) from error
            yield Block(part, voxels[part.slices(whole.start_zyx)])

    def _encoded(
        self, key: str, slots: list[int], table: NDArray[np.uint64]
    ) -> Iterator[memoryview | None]:
        """Encoded chunks, None of one that is not there; neighbours in the file by one request."""
        entries = [(int(table[slot, 0]), int(table[slot, 1])) for slot in slots]
        at = 0
        while at < len(entries):
            offset, length = entries[at]
            if offset == ABSENT:
                yield None
                at += 1
                continue
            count = 1
            while (
                at + count < len(entries)
                and entries[at + count][0] == offset + length
                and length + entries[at + count][1] <= _READ_BYTES
            ):
                length += entries[at + count][1]
                count += 1
            run = memoryview(self._store.get_range(key, offset, length))
            for start, size in entries[at : at + count]:
                yield run[start - offset : start - offset + size]
            at += count

    def _index(self, key: str) -> NDArray[np.uint64]:
        size = self._store.size(key)
        length = index_length(self._grid.chunks_per_shard_zyx)
        if size is None or size < length:
            raise IntegrityError("a shard is not there, or cut short", location=key)
        try:
            trailer = self._store.get_range(key, size - length, length)
        except NotFoundError as error:
            raise IntegrityError("a shard is not there", location=key) from error
        return read_index(trailer, self._grid.chunks_per_shard_zyx, size, key)
