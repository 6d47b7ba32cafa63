"""Digests: of an object that is there, and of a file whose ranges stream by nearly in order."""

from __future__ import annotations

import hashlib
import mmap
import threading
from collections.abc import Iterator
from pathlib import Path

from lib.concurrency import cancel as stopping
from lib.errors import NotFoundError
from lib.storage.base import Store
from lib.storage.durable import naming_os_errors

_BLOCK = 8 * 2**20


def digest_of(store: Store, key: str) -> tuple[int, str]:
    """Size and hexadecimal sha256 of one object, read in blocks.

    Raises
    ------
    NotFoundError, DestinationError, StoppedError
    """
    size, digest = 0, hashlib.sha256()
    for block in blocks_of(store, key):
        size += len(block)
        digest.update(block)
    return size, digest.hexdigest()


def blocks_of(store: Store, key: str) -> Iterator[bytes]:
    """The bytes of one object, 8 MiB at a time; raises as `digest_of` does."""
    size = store.size(key)
    if size is None:
        raise NotFoundError("there is no such object", location=key)
    for start in range(0, size, _BLOCK):
        stopping.check()
        yield store.get_range(key, start, min(_BLOCK, size - start))


def put_file(store: Store, key: str, path: Path) -> None:
    """Put a file into a store without holding it in memory.

    Raises
    ------
    DestinationError, DestinationBusyError, NotFoundError
    """
    with naming_os_errors(str(path), "read"), path.open("rb") as file:
        if not path.stat().st_size:
            store.put(key, b"")
            return
        # It is closed with its last view: a refused request that is sent again may still hold one,
        # and to close it under such a view is an error.
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        store.put(key, memoryview(content))


REORDER_BYTES = 64 * 2**20


class OrderedHasher:
    """sha256 over ranges that arrive out of order by no more than a bounded amount. Thread-safe.

    Ranges may overlap. Once more bytes wait than `reorder_bytes`, the digest is given up and costs
    nothing any more.
    """

    def __init__(self, reorder_bytes: int = REORDER_BYTES) -> None:
        self._limit = reorder_bytes
        self._lock = threading.Lock()
        self._sha256 = hashlib.sha256()
        self._next = 0
        self._waiting: dict[int, bytes] = {}
        self._held = 0
        self._given_up = False

    def write(self, offset: int, view: memoryview) -> None:
        """Take the bytes at `offset`; they are copied if they have to wait."""
        with self._lock:
            if self._given_up or offset + len(view) <= self._next:
                return
            if offset <= self._next:
                self._take(offset, view)
                self._drain()
                return
            more = len(view) - len(self._waiting.get(offset, b""))
            if self._held + more > self._limit:
                self._given_up = True
                self._waiting.clear()
            elif more > 0:
                self._held += more
                self._waiting[offset] = bytes(view)

    @property
    def reached(self) -> int:
        """All bytes before this one have been digested."""
        return self._next

    def hexdigest(self, size: int) -> str | None:
        """The digest if all `size` bytes came by, else None."""
        with self._lock:
            whole = not self._given_up and self._next == size
            return self._sha256.hexdigest() if whole else None

    def _take(self, offset: int, view: memoryview | bytes) -> None:
        self._sha256.update(memoryview(view)[self._next - offset :])
        self._next = offset + len(view)

    def _drain(self) -> None:
        while ready := [offset for offset in self._waiting if offset <= self._next]:
            for offset in sorted(ready):
                data = self._waiting.pop(offset)
                self._held -= len(data)
                if offset + len(data) > self._next:
                    self._take(offset, data)
