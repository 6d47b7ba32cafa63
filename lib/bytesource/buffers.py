"""Buffers that are used again: fresh pages from the kernel cost as much as filling them."""

from __future__ import annotations

import contextlib
import queue

import numpy as np


class BufferPool:
    """Buffers of at least `nbytes`, given out and taken back. Thread-safe.

    It holds as many as were ever out at once.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._idle: queue.SimpleQueue[memoryview] = queue.SimpleQueue()

    def take(self, nbytes: int | None = None) -> memoryview:
        """A buffer of `nbytes` (default: the pool's) with undefined content; see `give`."""
        length = self._nbytes if nbytes is None else nbytes
        if length > self._nbytes:
            return np.empty(length, np.uint8).data
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()[:length]
        return np.empty(self._nbytes, np.uint8).data[:length]

    def give(self, view: memoryview) -> None:
        """Take back what `take` gave; nobody may look at it any more."""
        whole = view.obj
        if isinstance(whole, np.ndarray) and whole.nbytes == self._nbytes:
            self._idle.put(whole.data)
