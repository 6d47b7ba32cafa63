"""A file on its way into a folder: under a temporary name until it is whole."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress

from lib.errors import AlreadyExistsError, DestinationError
from lib.storage.base import Buffer, Draft
from lib.storage.durable import sync_folder
from lib.storage.keys import temporary_name
from lib.storage.os_errors import naming_os_errors
from lib.storage.uncached import UncachedFile


class LocalDraft(Draft):
    """Bytes written under a temporary name beside `path`; see `lib.storage.base.Draft`.

    Parameters
    ----------
    sync
        Force file and folder to the disk before `commit` returns.
    """

    def __init__(self, path: str, *, sync: bool) -> None:
        folder, name = os.path.split(path)
        self._path, self._sync = path, sync
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
                os.fsync(self._file.fd)
            self._open.close()
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


def _link_new(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise AlreadyExistsError("something is there already", location=path) from error
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise DestinationError(
                "the file system has no hard links, so nothing can be created exclusively",
                location=path,
                advice="Choose a file system with hard links (ext4, xfs, NFS, CephFS)",
            ) from error
        raise
