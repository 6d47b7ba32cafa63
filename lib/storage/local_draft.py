"""A file on its way into a folder: under a temporary name until it is whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress

from lib.errors import AlreadyExistsError
from lib.storage.base import Buffer, Draft
from lib.storage.durable import sync_file, sync_folder
from lib.storage.keys import temporary_name
from lib.storage.os_errors import naming_os_errors
from lib.storage.uncached import UncachedFile


class LocalDraft(Draft):
    """Bytes written under a temporary name beside `path`; see `lib.storage.base.Draft`.

    Parameters
    ----------
    sync
        Force file and folder to the disk before `commit` returns.
    may
        Called before the file is made and before it gets its name; raises where that is not
        allowed any more.
    """

    def __init__(self, path: str, *, sync: bool, may: Callable[[], object]) -> None:
        may()
        folder, name = os.path.split(path)
        self._path, self._sync, self._may = path, sync, may
        self._temporary = os.path.join(folder, temporary_name(name, "tmp"))
        self._open = ExitStack()
        with naming_os_errors(path, "write"):
            self._file = self._open.enter_context(_open_new(self._temporary))
            self._end = self._open.enter_context(self._file.append(0))

    def write(self, data: Buffer) -> None:
        """Append bytes."""
        with naming_os_errors(self._path, "write"):
            self._end.write(data)

    def commit(self, *, create: bool = False) -> None:
        """Give the file its name; `create` refuses to replace one.

        Raises
        ------
        AlreadyExistsError, DestinationFullError, DestinationError
        """
        with naming_os_errors(self._path, "write"):
            self._end.flush()
            if self._sync:
                sync_file(self._file.fd)
            self._open.close()
            self._may()
            if create:
                _link_new(self._temporary, self._path)
            else:
                os.replace(self._temporary, self._path)
            if self._sync:
                sync_folder(os.path.dirname(self._path))

    def abandon(self) -> None:
        """Remove what was written; after `commit` nothing is left to remove."""
        self._open.close()
        with suppress(OSError):
            os.unlink(self._temporary)


def _open_new(path: str) -> UncachedFile:
    """Make a file, and its folder, which another run may remove (being empty) in between."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for _ in range(100):
        with suppress(FileNotFoundError):
            return UncachedFile(path, flags)
        with suppress(FileNotFoundError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
    return UncachedFile(path, flags)


NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""What file systems say that have no hard links."""


def _link_new(temporary: str, path: str) -> None:
    """Give a file a name that nothing has."""
    try:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            # An empty file takes the name, and then the whole one takes its place.
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
            os.replace(temporary, path)
    except FileExistsError as error:
        raise AlreadyExistsError("something is there already", location=path) from error
