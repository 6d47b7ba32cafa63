"""Large files written past the page cache.

Nobody reads a shard soon after it was written, so its pages in the cache only cost: the copy, and
above all the fresh memory, which on a virtual machine whose free pages went back to the host takes
up to three processor seconds a gigabyte. ``O_DIRECT`` hands blocks to the device instead. It wants
addresses, offsets and lengths in whole blocks; what lies at the edges, and everything where the
file system refuses, goes through the cache as usual. The two never share a page.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

BLOCK = 4096  # a multiple of every device's logical block
PIECE = 2 * 2**20
"""Bytes of one write to the device; smaller files are read again soon and stay in the cache."""
LEAST = 4 * 2**20
"""Bytes of a range that is worth it: its edges go through the cache, and that both ways meet in one
file is slow."""

_DIRECT = getattr(os, "O_DIRECT", 0)  # absent from macOS
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP)
_NEW = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOFOLLOW  # of the first opening only

_idle: list[mmap.mmap] = []


class Appender(AbstractContextManager["Appender"]):
    """Gathers bytes into pieces that end where a block ends, and writes those. For one thread.

    What is left is written by `flush`.
    """

    def __init__(self, write: Callable[[memoryview, int], object], offset: int) -> None:
        self._write, self._start, self._filled = write, offset, 0
        try:  # a page-aligned buffer, used again by whoever comes next
            self._piece = _idle.pop()
        except IndexError:
            self._piece = mmap.mmap(-1, PIECE)

    def __exit__(self, *_: object) -> None:
        _idle.append(self._piece)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes; whole pieces are written at once."""
        view = memoryview(data)
        while view:
            room = (-self._start % BLOCK or PIECE) - self._filled
            count = min(len(view), room)
            self._piece[self._filled : self._filled + count] = view[:count]
            view, self._filled = view[count:], self._filled + count
            if count == room:
                self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        with memoryview(self._piece) as whole, whole[: self._filled] as view:
            self._write(view, self._start)
        self._start, self._filled = self._start + self._filled, 0


class UncachedFile(AbstractContextManager["UncachedFile"]):
    """An open file whose long writes leave no pages in the cache. Thread-safe for `pwrite`.

    Parameters
    ----------
    path, flags
        As for `os.open`.

    Raises
    ------
    OSError
        From every method, as the system calls raise it.
    """

    def __init__(self, path: str, flags: int) -> None:
        self.fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
        self._flags, self._lock = flags & ~_NEW, threading.Lock()
        self._direct: int | None = None  # not tried yet; -1 is refused

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        for fd in (self._direct, self.fd):
            if fd is not None and fd >= 0:
                os.close(fd)
        self._direct = self.fd = -1

    def pwrite(self, view: memoryview, offset: int) -> None:
        """Write all of a flat view of bytes at an offset."""
        if len(view) < LEAST:
            pwrite_all(self.fd, view, offset)
            return
        with self.append(offset) as end:
            end.write(view)
            end.flush()

    def append(self, offset: int) -> Appender:
        """Write from an offset on, bit by bit."""
        return Appender(self._write, offset)

    def _write(self, piece: memoryview, offset: int) -> None:
        if offset or len(piece) == PIECE:
            self._past_cache(piece, offset)
        else:  # all that there is
            pwrite_all(self.fd, piece, offset)

    def _past_cache(self, piece: memoryview, offset: int) -> None:
        """Write an aligned buffer: its whole blocks to the device, the rest through the cache."""
        whole = 0 if offset % BLOCK else len(piece) // BLOCK * BLOCK
        while whole and (direct := self._opened_again()) >= 0:
            try:
                count = os.pwrite(direct, piece[:whole], offset)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                break
            piece, offset, whole = piece[count:], offset + count, whole - count
            if count % BLOCK:
                break
        pwrite_all(self.fd, piece, offset)

    def _opened_again(self) -> int:
        """The same file past the cache, or -1; small files never need it."""
        with self._lock:
            if self._direct is None:
                self._direct = -1
                if _DIRECT:
                    # not by its name, which may be another file's by now
                    again = f"/proc/self/fd/{self.fd}"
                    try:
                        self._direct = os.open(again, self._flags | _DIRECT | os.O_CLOEXEC)
                    except OSError as error:
                        if error.errno not in (*_REFUSED, errno.ENOENT):  # ENOENT: no /proc
                            raise
            return self._direct


def is_possible(path: str) -> bool:
    """Whether a block can be written past the cache to a file that is there; it is overwritten."""
    if not _DIRECT:
        return False
    with mmap.mmap(-1, BLOCK) as block:
        try:
            handle = os.open(path, os.O_WRONLY | _DIRECT | os.O_CLOEXEC)
            try:
                os.pwrite(handle, block, 0)
            finally:
                os.close(handle)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            return False
    return True


def pwrite_all(fd: int, view: memoryview, offset: int) -> None:
    """Write all of a flat view of bytes at an offset, through the page cache."""
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
