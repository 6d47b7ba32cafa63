"""Memory as it is on a machine that has been at work: full, and backed by the host."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_STEP = 64 * 2**20
_LEFT_FREE = 512 * 2**20


class WarmMemory:
    """Keeps the machine's free memory small by filling the page cache.

    A virtual machine gives pages that have been free for a second or two back to its host, and the
    first write to such a page costs several times as much as another. A long run would pay for
    that, a short one that follows another would not. Pages of a cached file are never given back,
    and are there for whoever wants them.

    Parameters
    ----------
    path
        A file with one hole, as long as the memory; it takes no room on the disk.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb+", buffering=0)
        self._size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _STEP * _STEP
        self._file.truncate(self._size)
        self._at = 0
        self._buffer = memoryview(bytearray(_STEP))

    def fill(self) -> None:
        """Read on until little is free, at most once round."""
        for _ in range(self._size // _STEP):
            if psutil.virtual_memory().free < _LEFT_FREE:
                return
            os.preadv(self._file.fileno(), [self._buffer], self._at)
            self._at = (self._at + _STEP) % self._size
