"""A folder as a store: atomic files, published trees, locks that the kernel releases."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property, partial
from typing import Any

from lib.errors import AlreadyExistsError, DestinationError
from lib.storage.base import Buffer, Fence, Folder, Missing, StoredObject, Versioned
from lib.storage.capabilities import probe_folder
from lib.storage.durable import naming_os_errors, persist, sync_folder
from lib.storage.keys import (
    LOCKS,
    PARTIAL,
    byte_views,
    check_key,
    check_prefix,
    is_reserved,
    is_shortened,
    lock_key,
    partial_key,
    temporary_of,
)
from lib.storage.local_draft import LocalDraft, remove_tree, replace_tree, sweep_old
from lib.storage.local_lock import (
    FolderLease,
    FollowedFolderLease,
    FollowedLock,
    honours_flock,
    lock,
)

_RECORDS = ("metadata_", "validation_report_")


class LocalStore:
    """Objects as files below `root`.

    A file is written under a temporary name in its own folder and then renamed, so that a process
    killed at any moment leaves either no file or a whole one. Symbolic links that lead outside
    `root` are refused, and links are left out of listings.

    Parameters
    ----------
    root
        The folder; made when first written to.
    durable
        Force records and reports to the disk before a write returns, and all else in `persist`.
        Without it a killed process or container still loses nothing, but a power cut may take
        files of volumes that were called complete.
    lease_seconds
        How long a lock outlives its holder where the file system has no kernel locks.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        durable: bool = True,
        lease_seconds: float = 60.0,
    ) -> None:
        self.root = os.path.realpath(os.fspath(root))
        self.uri = self.root
        self.durable = durable
        self.lease_seconds = lease_seconds
        self._fence = Fence()
        self._held: set[str] = set()  # by kernel locks of this very store

    def __repr__(self) -> str:
        return f"LocalStore({self.root!r}, durable={self.durable!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        again = partial(LocalStore, durable=self.durable, lease_seconds=self.lease_seconds)
        return (again, (self.root,))

    # --- objects ----------------------------------------------------------------------------

    def put(
        self,
        key: str,
        data: Buffer | Sequence[Buffer],
        *,
        create: bool = False,
        replaces: str | None = None,
    ) -> None:
        """Write one file atomically; see `lib.storage.base.Store.put`.

        That the file still is what it ``replaces`` is looked at before it is written, no more: on
        a folder the lock is what keeps two runs apart.
        """
        views = byte_views(data)
        if replaces is not None and self._version(key) != replaces:
            raise AlreadyExistsError("something else is there", location=self._path(key))
        with self.draft(key) as draft:
            for view in views:
                draft.write(view)
            draft.commit(create=create)

    def get_versioned(self, key: str) -> Versioned:
        version = self._version(key)
        return Versioned(self.get(key), version)

    def _version(self, key: str) -> str:
        path = self._path(check_key(key), follow=True)
        with naming_os_errors(path, "look at"):
            try:
                state = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                return ""
        return f"{state.st_ino}-{state.st_mtime_ns}-{state.st_size}"

    def draft(self, key: str) -> LocalDraft:
        """Write one file bit by bit; see `lib.storage.base.Store.draft`."""
        path = self._path(check_key(key))
        may = partial(self._fence.left, path)
        sync = self.durable and os.path.basename(path).startswith(_RECORDS)
        return LocalDraft(path, sync=sync, may=may)

    def get(self, key: str) -> bytes:
        path = self._path(check_key(key), follow=True)
        with naming_os_errors(path, "read"), open(path, "rb") as file:
            return file.read()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        path = self._path(check_key(key), follow=True)
        with naming_os_errors(path, "read"), open(path, "rb") as file:
            file.seek(start)
            data = file.read(length)
        if len(data) != length:
            raise DestinationError(
                f"the file ends before byte {start + length}",
                location=path,
                advice="Run again to make it anew",
            )
        return data

    def size(self, key: str) -> int | None:
        path = self._path(check_key(key), follow=True)
        with naming_os_errors(path, "look at"):
            try:
                state = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return state.st_size if stat.S_ISREG(state.st_mode) else None

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """All files below a folder, sorted by key; temporary files and locks are left out."""
        folder = self._path(check_prefix(prefix))
        with naming_os_errors(folder, "list"):
            yield from _walk(folder, prefix)

    def list_folder(self, prefix: str = "") -> Folder:
        folder = self._path(check_prefix(prefix))
        objects, folders = [], []
        with naming_os_errors(folder, "list"):
            for key, entry in _entries(folder, prefix):
                if key.endswith("/"):
                    folders.append(key[:-1])
                else:
                    with suppress(FileNotFoundError):  # deleted while we looked
                        objects.append(_stored(key, entry))
        return Folder(tuple(objects), tuple(folders))

    def delete(self, key: str) -> None:
        path = self._path(check_key(key))
        self._fence.left(path)
        with naming_os_errors(path, "delete"), suppress(FileNotFoundError, NotADirectoryError):
            if not os.path.isdir(path) or os.path.islink(path):
                os.unlink(path)
        self._prune(os.path.dirname(path))

    # --- trees ------------------------------------------------------------------------------

    def delete_tree(self, prefix: str) -> None:
        """Delete a folder. It leaves its name in one step, so that no half tree is ever seen."""
        path = self._path(check_key(prefix))
        self._fence.left(path)
        if not os.path.isdir(path):
            return
        with naming_os_errors(path, "delete"):
            remove_tree(path)
        self._prune(os.path.dirname(path))

    def publish_tree(self, staging: str, final: str) -> None:
        """Rename a finished tree (or file) to its final name, in place of what was there.

        Killed at any moment, the store holds the old tree, the new one, or, for the moment between
        two renames, the old one under a temporary name, which `sweep_temporaries` puts back.
        """
        source, target = self._path(check_key(staging)), self._path(check_key(final))
        self._fence.left(target)
        if not os.path.lexists(source):
            raise DestinationError(
                "there is no finished tree to publish",
                location=source,
                advice="Run again to make the volume anew",
            )
        with naming_os_errors(target, "publish"):
            replace_tree(source, target, partial(self._settle, final))
        self._prune(os.path.dirname(source))

    def _settle(self, final: str, moved: bool) -> None:
        """Force a new tree's name to the disk; all of its names where it was moved file by file."""
        if moved:
            self.persist(final)
        elif self.durable:
            sync_folder(os.path.dirname(self._path(final)))

    def persist(self, *keys: str) -> None:
        if self.durable:
            paths = [self._path(check_key(key)) for key in keys]
            with naming_os_errors(self.root, "force to the disk"):
                persist(self.root, paths)

    def staging_key(self, final: str) -> str:
        """``data/ebi/x.ome.zarr`` -> ``data/ebi/.partial/x/x.ome.zarr``."""
        return partial_key(final)

    def sweep_temporaries(self, prefix: str = "", *, names: Collection[str] | None = None) -> int:
        """Remove what killed runs left below a folder and return how many things that were.

        Call it while holding the lock of the volumes concerned: another run's temporary files
        look the same. A tree that was moved aside and never replaced is put back.

        Parameters
        ----------
        names
            Only what stands for one of these names, directly in the folder; None is everything,
            however deep.
        """
        folder = self._path(check_prefix(prefix))
        self._fence.left(folder)
        swept = 0
        with naming_os_errors(folder, "clear up"):
            for where, folders, files in os.walk(folder):
                for name in (*folders, *files):
                    found = temporary_of(name)
                    if found is None or not (names is None or is_shortened(found[0], names)):
                        continue
                    _sweep(os.path.join(where, name), os.path.join(where, found[0]), found[1])
                    swept += 1
                folders[:] = [] if names is not None else [n for n in folders if not is_reserved(n)]
        return swept

    def sweep_abandoned(self, folder: str = "") -> int:
        """Remove temporary files directly in a folder to which nobody has written for an hour."""

        def is_draft(one: os.DirEntry[str]) -> bool:
            kind = (temporary_of(one.name) or ("", ""))[1]
            return kind == "tmp" and one.is_file(follow_symlinks=False)

        return sweep_old(self._path(check_prefix(folder)), time.time(), is_draft)

    # --- the rest ---------------------------------------------------------------------------

    def lock(self, key: str, holder: str) -> AbstractContextManager[None]:
        """Hold a volume until the block or the process ends, however it ends.

        Where the file system has no kernel locks, by a lease that outlives a killed holder on
        another machine by `lease_seconds`.
        """
        path, holder_path = self._path(lock_key(key, ".lock")), self._path(lock_key(key, ".json"))
        if self._flocks:
            return self._hold(path, holder_path, key, holder)
        path = self._path(lock_key(key, ".lease"))
        return FolderLease(path, holder_path, self._fence, key, holder, self.lease_seconds)

    @contextmanager
    def _hold(self, path: str, holder_path: str, key: str, holder: str) -> Iterator[None]:
        with lock(path, holder_path, key, holder):
            self._held.add(key)
            try:
                yield
            finally:
                self._held.discard(key)

    def follow(self, key: str, holder: str) -> None:
        """Let later writes depend on that run's lock, unless it is this very store's own."""
        path, holder_path = self._path(lock_key(key, ".lease")), self._path(lock_key(key, ".json"))
        if key in self._fence or key in self._held:
            return
        if self._flocks:
            self._fence.add(key, FollowedLock(holder_path, holder))
        else:
            followed = FollowedFolderLease(path, holder_path, holder, self.lease_seconds)
            self._fence.add(key, followed)

    @cached_property
    def _flocks(self) -> bool:
        with naming_os_errors(self.root, "lock"):
            os.makedirs(self.root, exist_ok=True)
            return honours_flock(self.root)

    def may_write(self, key: str) -> None:
        self._fence.left(self._path(check_key(key)))

    def probe(self) -> tuple[Missing, ...]:
        """Try what the file system can do; the folder is made where it is not there."""
        return probe_folder(self.root)

    def free_bytes(self) -> int | None:
        """Bytes that this process may still write here."""
        path = self.root
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        with naming_os_errors(path, "look at"):
            state = os.statvfs(path)
        return state.f_bavail * state.f_frsize

    def counts(self) -> dict[str, int]:
        """Empty: a folder is asked nothing over a network."""
        return {}

    def local_path(self, key: str) -> str | None:
        return self._path(check_key(key))

    def _path(self, key: str, *, follow: bool = False) -> str:
        """The path of a checked key, after making sure that no symbolic link leads outside."""
        path = os.path.join(self.root, key) if key else self.root
        real = os.path.realpath(path if follow else os.path.dirname(path)) if key else path
        if real != self.root and not real.startswith(self.root.rstrip("/") + "/"):
            raise DestinationError(
                f"a symbolic link leads outside the store {self.root}",
                location=path,
                advice="Give the store its real address, or mount the other folder inside it",
            )
        return path

    def _prune(self, folder: str) -> None:
        """Remove folders of unfinished work or locks that have become empty."""
        while {PARTIAL, LOCKS} & set(os.path.relpath(folder, self.root).split("/")):
            try:
                os.rmdir(folder)
            except OSError:
                return
            folder = os.path.dirname(folder)


def _sweep(path: str, final: str, kind: str) -> None:
    """Remove one temporary file or tree; put back a tree whose successor never came."""
    if kind == "old" and not os.path.lexists(final):
        os.rename(path, final)
    elif os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _walk(folder: str, prefix: str) -> Iterator[StoredObject]:
    for key, entry in _entries(folder, prefix):
        if key.endswith("/"):
            yield from _walk(entry.path, key[:-1])
        else:
            with suppress(FileNotFoundError):  # deleted while we looked
                yield _stored(key, entry)


def _entries(folder: str, prefix: str) -> list[tuple[str, os.DirEntry[str]]]:
    """Keys and entries of a folder in the order of whole keys: folders count with their slash."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not is_reserved(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    start = f"{prefix}/" if prefix else ""
    keyed = [
        (start + entry.name + "/" * entry.is_dir(follow_symlinks=False), entry)
        for entry in entries
        if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
    ]
    return sorted(keyed, key=lambda pair: pair[0])


def _stored(key: str, entry: os.DirEntry[str]) -> StoredObject:
    return StoredObject(key, entry.stat(follow_symlinks=False).st_size)
