"""The archive's own files on their way through: where they lie and how long they stay."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib.concurrency import cancel as stopping
from lib.errors import IntegrityError, NotFoundError
from lib.plan import SourceFile
from lib.rawfiles.sidecar import (
    FetchGap,
    RawTee,
    as_fetched,
    differs,
    hash_file,
    note_key,
    note_path,
    parse_note,
    read_note,
    write_note,
)
from lib.safety import marked_file_name, place_of, safe_join, safe_name, same_place
from lib.storage.base import Store
from lib.storage.digests import OrderedHasher, put_file
from lib.storage.durable import naming_os_errors
from lib.storage.keys import LOCKS, temporary_name, temporary_of
from lib.storage.local_lock import acquire, release
from lib.transport.partial import Fetched

_log = logging.getLogger(__name__)
_COPY_BYTES = 8 * 2**20
_PERSISTED = 1000  # files that are forced to the disk together


class RawFiles:
    """The raw files of one volume. Thread-safe.

    Kept files (``keep_raw``) end under ``<source>/downloads/<folder>/`` of the store; others lie in
    the scratch folder and go when the volume is complete. On an object store, kept files are made
    in the scratch folder and uploaded at the end.

    A file lies under its own name. Where another file of the archive lies there already, told by
    the address in its note, a digest of its own address is part of the name.

    Attributes
    ----------
    notes
        Doubts that arose while files were checked, for the volume's record.
    """

    def __init__(
        self, store: Store, source: str, folder: str, *, keep: bool, scratch_dir: Path
    ) -> None:
        self.store, self.source, self.folder = store, source, folder
        self.keep, self.scratch_dir = keep, scratch_dir
        self.notes: list[str] = []
        self._lock = threading.Lock()
        # By folder; names are the plan's own, so that each of 20,000 sections costs few bytes.
        self._seen: dict[str, set[str]] = {}  # what lies there
        self._names: dict[str, dict[str, str]] = {}  # URL -> name of the file
        self._stored: dict[str, dict[str, Any] | None] = {}  # notes of the store, read once
        self._marked: dict[str, str] = {}  # name with a digest -> that whose turn its writers take
        self._tees: dict[tuple[str, str], RawTee] = {}
        self._hashers: dict[tuple[str, str], OrderedHasher] = {}

    def within(self, folder: str) -> RawFiles:
        """The same, in another folder: for files that several volumes share."""
        other = RawFiles(
            self.store, self.source, folder, keep=self.keep, scratch_dir=self.scratch_dir
        )
        other.notes, other._lock, other._seen = self.notes, self._lock, self._seen
        other._tees, other._hashers = self._tees, self._hashers
        other._names, other._marked, other._stored = self._names, self._marked, self._stored
        return other

    # --- where ------------------------------------------------------------------------------

    def path(self, file: SourceFile) -> Path:
        """Where a file lies on this machine, whether or not it is there.

        Raises
        ------
        FormatError, DestinationError
            A symbolic link leads out of the folder.
        """
        return safe_join(self._directory(), self._name(file))

    def key(self, file: SourceFile) -> str:
        """The key of a kept file in the store."""
        return self._key(self._name(file))

    def key_of(self, fetched: Fetched) -> str | None:
        """The key of a file that came, as `finish` tells it; None where it is not kept."""
        folder, name = fetched.path.parent.name, fetched.path.name
        seen = self.keep and name in self._seen.get(folder, ())
        return self._key(name, folder) if seen else None

    @contextmanager
    def turn(self, file: SourceFile) -> Iterator[None]:
        """Be the only one, of all threads and processes, that brings a file.

        Raises
        ------
        StoppedError, DestinationError
        """
        with self._turn(safe_name(file.name)):
            # who had the turn may be another file
            self._names.get(self.folder, {}).pop(file.url, None)
            yield

    # --- what is there ----------------------------------------------------------------------

    def known(self, file: SourceFile) -> Fetched | None:
        """The file from an earlier run, if it is whole and the source is still the same.

        A file that was touched since is hashed again. One that is damaged, or that the archive
        has replaced, is deleted.
        """
        path = self.path(file)
        note = read_note(note_path(path))
        if note is None or not path.is_file():
            note = self._restore(file, path)
            if note is None:
                return None
        fetched = as_fetched(path, note)
        if differs(file, fetched) or not self._unharmed(fetched, note):
            self.forget(file)
            return None
        with self._lock:
            self._note_seen(file)
            self.notes += [text for text in note.get("notes", []) if text not in self.notes]
        return fetched

    def remember(self, file: SourceFile, fetched: Fetched, notes: Sequence[str] = ()) -> Fetched:
        """Note what is known about a file that arrived, for later runs.

        Raises
        ------
        DestinationError
        """
        path = self.path(file)
        write_note(path, fetched, path, [*notes], file.url)
        with self._lock:
            self._note_seen(file)
            self.notes += [text for text in notes if text not in self.notes]
        return replace(fetched, path=path)

    def forget(self, file: SourceFile) -> None:
        """Delete a file and what is known about it."""
        path = self.path(file)
        with self._lock:
            self._seen.get(safe_name(self.folder), set()).discard(self._name(file))
        with naming_os_errors(str(path), "delete"):
            note_path(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    # --- files read by ranges ---------------------------------------------------------------

    def tee(self, file: SourceFile) -> RawTee | None:
        """Where ranges of a remote file are kept while they are read.

        None where files are not kept, or where nothing identifies the file, so that ranges of two
        days could not be told apart. The same object for each call in one process.
        """
        if not self.keep or file.size is None or not (file.etag or file.last_modified):
            return None
        path, key = self.path(file), (self.folder, file.url)
        identity = {name: getattr(file, name) for name in ("url", "size", "etag", "last_modified")}
        with self._lock:
            if key not in self._tees:
                self._tees[key] = RawTee(path, identity, file.size)
            return self._tees[key]

    def hasher(self, file: SourceFile) -> OrderedHasher:
        """The running digest of a remote file that is read by ranges; one for each process."""
        with self._lock:
            return self._hashers.setdefault((self.folder, file.url), OrderedHasher())

    def new_hasher(self, file: SourceFile) -> OrderedHasher:
        """A running digest that begins again, for a file that is streamed once more."""
        with self._lock:
            self._hashers[self.folder, file.url] = fresh = OrderedHasher()
            return fresh

    def complete(self, file: SourceFile, tee: RawTee, fetch_gap: FetchGap) -> Fetched:
        """Fill the gaps of a tee and make it a kept file; see `RawTee.fill`.

        Its bytes are read again for their digest, unless all of them came by in this process.
        """
        with self.turn(file):
            known = self.known(file)
            if known is not None:
                tee.discard()
                return known
            size = file.size or 0
            part, sha256 = tee.fill(fetch_gap, self.hasher(file).hexdigest(size))
            fetched = Fetched(self.path(file), size, sha256, file.etag, file.last_modified)
            # The note first: a file without one would have to be fetched again.
            write_note(fetched.path, fetched, part, [], file.url)
            with naming_os_errors(str(fetched.path), "rename"):
                os.replace(part, fetched.path)
            with self._lock:
                self._note_seen(file)
            return fetched

    # --- the end ----------------------------------------------------------------------------

    def finish(self, complete: bool) -> list[str]:
        """End the work on a volume.

        Parameters
        ----------
        complete
            The volume is finished: kept files go to an object store, others are deleted. Otherwise
            all stays for the next run.

        Returns
        -------
        list of str
            Keys of the raw files that the store now holds.
        """
        for tee in self._tees.values():
            tee.close()
        if not complete:
            return []
        on_store = self.keep and self.store.local_path(self.source) is not None
        keys = []
        self._clear_up()
        for folder, names in sorted(self._seen.items()):
            for name in sorted(names):
                key, path = self._key(name, folder), self._directory(folder) / name
                if self.keep:
                    if not on_store:
                        self._upload(key, path)
                    keys.append(key)
                if not on_store:
                    self._remove(path)
        for start in range(0, len(keys), _PERSISTED):
            some = keys[start : start + _PERSISTED]
            self.store.persist(*some, *(note_key(key) for key in some))
        return keys

    # --- inside -----------------------------------------------------------------------------

    def _name(self, file: SourceFile) -> str:
        """The file's own name, or one with its digest where another file has that one."""
        names = self._names.setdefault(self.folder, {})
        name = names.get(file.url)
        if name is None:
            name = plain = safe_name(file.name)
            note = self._note(plain)
            if note is not None and not same_place(str(note["url"]), file.url):
                name = marked_file_name(file.name, place_of(file.url))
                self._marked[name] = plain
            names[file.url] = name
        return name

    def _note_seen(self, file: SourceFile) -> None:
        self._seen.setdefault(safe_name(self.folder), set()).add(self._name(file))

    def _note(self, name: str) -> dict[str, Any] | None:
        """The note of a file of that name, in the folder or else in the store."""
        note, key = read_note(note_path(safe_join(self._directory(), name))), self._key(name)
        if note is None and self.keep and self.store.local_path(key) is None:
            note = self._stored[key] = self._stored_note(key)
        return note

    def _stored_note(self, key: str) -> dict[str, Any] | None:
        try:
            return parse_note(self.store.get(note_key(key)))
        except NotFoundError:
            return None

    def _key(self, name: str, folder: str | None = None) -> str:
        return f"{self.source}/downloads/{folder or safe_name(self.folder)}/{name}"

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        path = self._directory() / LOCKS / f"{name}.lock"
        with naming_os_errors(str(path), "lock"):
            lock = acquire(str(path), patience_s=None, soft=True)
        try:
            yield
        finally:
            release(lock)

    def _directory(self, name: str | None = None) -> Path:
        """The folder of that name, by default this one's."""
        folder = f"{self.source}/downloads/{name or safe_name(self.folder)}"
        local = self.store.local_path(folder) if self.keep else None
        return Path(local) if local is not None else self.scratch_dir / folder

    def _unharmed(self, fetched: Fetched, note: dict[str, Any]) -> bool:
        state = fetched.path.stat()
        if state.st_size != fetched.size:
            return False
        if state.st_mtime_ns == note["mtime_ns"]:
            return True
        if hash_file(fetched.path) != fetched.sha256:
            _log.warning("%s was changed by hand and is fetched again", fetched.path)
            return False
        write_note(fetched.path, fetched, fetched.path, note["notes"], note["url"])
        return True

    def _restore(self, file: SourceFile, path: Path) -> dict[str, Any] | None:
        """Bring a kept file back from an object store."""
        key = self.key(file)
        if not self.keep or self.store.local_path(key) is not None:
            return None
        # What was asked for a moment ago, to choose the name, is not asked for again.
        note = self._stored.pop(key) if key in self._stored else self._stored_note(key)
        if note is None or self.store.size(key) != note["size"]:
            return None
        if differs(file, as_fetched(path, note)):
            return None
        digest, part = hashlib.sha256(), path.with_name(temporary_name(path.name, "tmp"))
        with naming_os_errors(str(path), "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as target:
                for start in range(0, note["size"], _COPY_BYTES):
                    stopping.check()
                    length = min(_COPY_BYTES, note["size"] - start)
                    piece = self.store.get_range(key, start, length)
                    digest.update(piece)
                    target.write(piece)
            if digest.hexdigest() != note["sha256"]:
                part.unlink()
                return None
            os.replace(part, path)
        write_note(path, as_fetched(path, note), path, note["notes"], note["url"])
        return read_note(note_path(path))

    def _clear_up(self) -> None:
        """Remove the lock files and temporary files that killed runs left beside this one's files.

        Who writes beside a file holds its turn, so whoever has the turn may remove them.
        """
        for folder, names in self._seen.items():
            for name, rubbish in _left_behind(self._directory(folder)).items():
                if name in names:
                    with self.within(folder)._turn(self._marked.get(name, name)):
                        for path in rubbish:
                            path.unlink(missing_ok=True)

    def _upload(self, key: str, path: Path) -> None:
        put_file(self.store, key, path)
        self.store.put(note_key(key), note_path(path).read_bytes())

    def _remove(self, path: Path) -> None:
        with naming_os_errors(str(path), "delete"):
            path.unlink(missing_ok=True)
            note_path(path).unlink(missing_ok=True)
        folder = path.parent
        shutil.rmtree(folder / LOCKS, ignore_errors=True)
        for empty in (note_path(path).parent, folder, folder.parent, folder.parent.parent):
            with suppress(OSError):
                empty.rmdir()


def _left_behind(folder: Path) -> dict[str, list[Path]]:
    """By raw file, what writers left in a folder; a lock file goes with the turn itself."""
    found: dict[str, list[Path]] = {}
    notes = note_path(folder / "x").parent
    for place, suffix in ((folder, ""), (notes, ".json"), (folder / LOCKS, ".lock")):
        for path in place.iterdir() if place.is_dir() else ():
            temporary = temporary_of(path.name)
            if temporary is not None:
                found.setdefault(temporary[0].removesuffix(suffix), []).append(path)
            elif place.name == LOCKS:
                found.setdefault(path.name.removesuffix(suffix), [])
    return found


def kept_or_error(file: SourceFile, raw: RawFiles) -> Fetched:
    """The kept file, where no voxels may be fetched. Raises `NotFoundError`."""
    known = raw.known(file)
    if known is None:
        raise NotFoundError(
            "the file is not among the kept raw files, and enable_downloads is false",
            archive=raw.source,
            location=str(raw.path(file)),
            advice="Set enable_downloads to true, and keep_raw for later runs",
        )
    return known


def fetched_or_error(file: SourceFile, raw: RawFiles) -> Fetched:
    """The file that the volume was made from.

    Raises
    ------
    IntegrityError
        It went away or was changed while the volume was made.
    """
    known = raw.known(file)
    if known is None:
        raise IntegrityError(
            "the raw file went away or was changed while its volume was made",
            archive=raw.source,
            location=str(raw.path(file)),
        )
    return known
