"""The operating system's error numbers, turned into named errors that say what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from lib.errors import DestinationError, DestinationFullError, NotFoundError

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
