"""Files and names forced to the disk, so that a power cut takes nothing that was called complete;
and the errors of the operating system, named, with what to do.

Each file is forced by itself, some at once. A single ``syncfs`` is hardly faster (0.02 and 0.23 s
for 1 GB in 80 files, on ext4 without and with a journal, against 0.05 and 0.29 s), but it waits for
what others write to the same file system, hides errors before Linux 5.8, and does nothing on most
FUSE file systems.

Large files are written past the page cache. Nobody reads a shard soon after it was written, so its
pages in the cache only cost: the copy, and above all the fresh memory, which on a virtual machine
whose free pages went back to the host takes up to three processor seconds a gigabyte. ``O_DIRECT``
hands blocks to the device instead. It wants addresses, offsets and lengths in whole blocks; what
lies at the edges, and everything where the file system refuses, goes through the cache as usual.
The two never share a page.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

from lib.errors import DestinationError, DestinationFullError, NotFoundError

_AT_ONCE = 8  # a journal commits for all that wait for it
_PER_ROUND = 1000
# What file systems say that cannot: of folders CIFS, shared folders and some FUSE ones.
_CANNOT = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EISDIR)


def sync_file(handle: int) -> bool:
    """Force an open file to the disk; False where the file system cannot.

    Raises
    ------
    OSError
        The disk failed, or is full: some file systems say so only now.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def sync_folder(folder: str) -> bool:
    """Force the names in a folder to the disk; False where the file system cannot.

    Raises
    ------
    OSError
        The disk failed.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return False  # a folder that may be written to and not read
    try:
        return sync_file(handle)
    finally:
        os.close(handle)


def persist(root: str, paths: Collection[str]) -> None:
    """Force files and whole folders below `root` to the disk, and every name on the way to them.

    What is not there is left out.

    Raises
    ------
    OSError
        The disk failed, or is full.
    """
    files, folders = set[str](), set[str]()
    for path in paths:
        if os.path.isdir(path):
            for where, _, names in os.walk(path):
                folders.add(where)
                files.update(os.path.join(where, name) for name in names)
        elif os.path.lexists(path):
            files.add(path)
        folder = os.path.dirname(path)
        while len(folder) > len(root):
            folders.add(folder)
            folder = os.path.dirname(folder)
    folders |= {root, os.path.dirname(root)}  # who made `root` made its name
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while some := [files.pop() for _ in range(min(len(files), _PER_ROUND))]:
            list(pool.map(_sync_file, some))  # a future of each at once would take kilobytes
        list(pool.map(sync_folder, sorted(filter(os.path.isdir, folders))))


def _sync_file(path: str) -> None:
    if os.path.islink(path):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        sync_file(handle)
    finally:
        os.close(handle)


_FULL = {errno.ENOSPC: "no space is left", errno.EDQUOT: "the disk quota is used up"}
_REFUSED = {
    errno.EROFS: (
        "the file system is read-only",
        "Mount it writable, or choose another destination",
    ),
    errno.EACCES: (
        "permission is denied",
        "Give the user of this process write permission to the folder, or choose another one",
    ),
    errno.EPERM: (
        "the operation is not permitted",
        "Give the user of this process write permission to the folder, or choose another one",
    ),
    errno.EIO: (
        "the disk or its network reported an input/output error",
        "Check the disk (dmesg, or the storage's status), then run again: finished work is kept",
    ),
    errno.EFBIG: (
        "the file is larger than the file system or the process may hold",
        "Raise the file size limit (ulimit -f), or choose another file system",
    ),
    errno.ENAMETOOLONG: ("the name is too long for the file system", "Choose a shorter name"),
    errno.ESTALE: (
        "the network file system lost the file (stale handle)",
        "Run again: finished work is kept",
    ),
    errno.ENOTDIR: ("a file lies where a folder is needed", "Move that file away"),
    errno.EEXIST: ("a file lies where a folder is needed", "Move that file away"),
    errno.EISDIR: ("a folder lies where a file is needed", "Move that folder away"),
    errno.EOPNOTSUPP: ("the file system cannot do this", "Choose another file system"),
    errno.EMFILE: ("too many files are open", "Raise the limit of open files (ulimit -n)"),
    errno.ENFILE: ("too many files are open", "Raise the limit of open files (ulimit -n)"),
}
_RETRYABLE = {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE}


def named_os_error(error: OSError, location: str, doing: str) -> DestinationError | NotFoundError:
    """Return the named error for `error`, raised while `doing` (``write``, ``read``, ...)."""
    number = error.errno or 0
    if number in _FULL:
        return DestinationFullError(f"cannot {doing}: {_FULL[number]}", location=location)
    if number in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR) and doing == "read":
        return NotFoundError("there is no such file in the store", location=location)
    why, advice = _REFUSED.get(
        number, (error.strerror or str(error), "Check the destination, then run again")
    )
    return DestinationError(
        f"cannot {doing}: {why}", location=location, advice=advice, retryable=number in _RETRYABLE
    )


@contextmanager
def naming_os_errors(location: str, doing: str) -> Iterator[None]:
    """Turn every `OSError` of the block into its named error."""
    try:
        yield
    except OSError as error:
        raise named_os_error(error, location, doing) from error


BLOCK = 4096  # a multiple of every device's logical block
PIECE = 2 * 2**20
"""Bytes of one write to the device; smaller files are read again soon and stay in the cache."""
LEAST = 4 * 2**20
"""Bytes of a range that is worth it: its edges go through the cache, and that both ways meet in one
file is slow."""

_DIRECT = getattr(os, "O_DIRECT", 0)  # absent from macOS
_NO_DIRECT_IO = (errno.EINVAL, errno.EOPNOTSUPP)
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
                if error.errno not in _NO_DIRECT_IO:
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
                        if error.errno not in (*_NO_DIRECT_IO, errno.ENOENT):  # ENOENT: no /proc
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
            if error.errno not in _NO_DIRECT_IO:
                raise
            return False
    return True


def pwrite_all(fd: int, view: memoryview, offset: int) -> None:
    """Write all of a flat view of bytes at an offset, through the page cache."""
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
