"""Indexes that many threads need and one reads: those of shards."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Read(Generic[V]):
    """A read in flight, or what it brought."""

    __slots__ = ("done", "value")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: list[V] = []  # empty where the read failed


class SharedReads(Generic[K, V]):
    """Values by their keys, each read by the thread that asks first. Thread-safe.

    A read that fails is its reader's own failure: whoever waited for it reads again.

    Parameters
    ----------
    read
        Brings the value of a key.
    most
        Values that are kept; those that were asked for longest ago go first.
    """

    def __init__(self, read: Callable[[K], V], most: int) -> None:
        self._read, self._most = read, most
        self._held: OrderedDict[K, _Read[V]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V:
        """The value of a key; raises what reading it raises."""
        while True:
            with self._lock:
                read = self._held.get(key)
                if mine := read is None:
                    read = self._held[key] = _Read()
                self._held.move_to_end(key)
            assert read is not None
            if mine:
                return self._bring(key, read)
            read.done.wait()
            if read.value:
                return read.value[0]

    def peek(self, key: K) -> V | None:
        """The value of a key if it is here; nothing is read."""
        with self._lock:
            read = self._held.get(key)
        return read.value[0] if read is not None and read.value else None

    def _bring(self, key: K, read: _Read[V]) -> V:
        try:
            value = self._read(key)
            read.value.append(value)
            return value
        finally:
            with self._lock:
                if not read.value:
                    self._held.pop(key, None)
                while len(self._held) > self._most:
                    self._held.popitem(last=False)
            read.done.set()
