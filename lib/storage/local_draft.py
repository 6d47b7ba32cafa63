"""A file on its way into a folder: under a temporary name until it is whole.

On overlayfs a folder of a lower layer (an image's, say) cannot be renamed (EXDEV). Its files are
moved one by one then, or deleted in place, and the documents directly in the folder, by which a
tree is a volume, come last or go first.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress

from lib.errors import AlreadyExistsError
from lib.storage.base import Buffer, Draft
from lib.storage.durable import UncachedFile, naming_os_errors, sync_file, sync_folder
from lib.storage.keys import temporary_name

_LONGEST_WRITE_S = 3600.0  # of what is written under no lock: a page, a catalogue, a probe


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


def remove_tree(path: str) -> None:
    """Delete a folder; it leaves its name in one step, so that no half tree is seen."""
    folder, name = os.path.split(path)
    gone = os.path.join(folder, temporary_name(name, "gone"))
    if _rename(path, gone):
        shutil.rmtree(gone)
        return
    for document in _files_in(path):
        os.unlink(document)
    shutil.rmtree(path)


def sweep_old(folder: str, now: float, wanted: Callable[[os.DirEntry[str]], bool]) -> int:
    """Remove what lies directly in a folder, is wanted, and was written to by nobody for an hour.

    Parameters
    ----------
    now
        Seconds since 1970.

    Returns
    -------
    int
        How many there were.
    """
    swept = 0
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        for one in found:
            with suppress(OSError):  # gone meanwhile; or it stays, and costs nothing
                if not wanted(one):
                    continue
                if now - one.stat(follow_symlinks=False).st_mtime <= _LONGEST_WRITE_S:
                    continue
                if one.is_dir(follow_symlinks=False):
                    shutil.rmtree(one.path, ignore_errors=True)
                else:
                    os.unlink(one.path)
                swept += 1
    return swept


def replace_tree(source: str, target: str, on_moved: Callable[[bool], object]) -> None:
    """Give a tree, or a file, its final name, in place of what is there.

    Killed at any moment, there is the old tree, the new one, or, for the moment between two
    renames, the old one under a temporary name of kind ``old``.

    Parameters
    ----------
    on_moved
        Called when the new tree has its name, before anything of the old one is deleted, with
        whether its files were moved one by one.
    """
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)
    aside = None
    if os.path.isdir(target):
        aside = os.path.join(folder, temporary_name(name, "old"))
        if not _rename(target, aside):
            remove_tree(target)
            aside = None
    moved = not _rename(source, target)
    if moved:
        _move_files(source, target)
    on_moved(moved)
    if aside is not None:
        remove_tree(aside)


def _rename(source: str, target: str) -> bool:
    """Rename; False where that would be a copy."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV or not os.path.isdir(source):
            raise
        return False
    return True


def _move_files(source: str, target: str) -> None:
    """Move a tree file by file, the documents directly in it last and ``zarr.json`` after all."""
    for where, folders, names in os.walk(source):
        there = os.path.join(target, os.path.relpath(where, source))
        os.makedirs(there, exist_ok=True)
        if where != source:
            for name in names:
                os.rename(os.path.join(where, name), os.path.join(there, name))
        folders.sort()
    for document in sorted(_files_in(source), key=lambda path: path.endswith("zarr.json")):
        os.rename(document, os.path.join(target, os.path.basename(document)))
    shutil.rmtree(source)


def _files_in(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if not entry.is_dir(follow_symlinks=False)]
