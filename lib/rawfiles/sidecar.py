"""What lies beside a raw file: a note of what is known about it, and the part while it comes.

The note lies at ``.fetched/<name>.json`` in the folder of the file: size, sha256, what the server
said (entity tag, modification time), and the modification time of the local file.

A file whose ranges are read is kept in the same pass, by several threads and processes at once. The
part lies beside the final file under a name that holds the source's identity, so that halves of two
versions never meet. Behind its ``size`` bytes follows one byte for each cell of 64 KiB, set once
the cell is whole: data and coverage are one file, neither can be lost without the other, and
setting a byte needs no agreement between processes.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lib.concurrency import cancel as stopping
from lib.errors import DestinationError
from lib.plan import SourceFile
from lib.storage.durable import UncachedFile, naming_os_errors
from lib.storage.keys import temporary_name
from lib.transport.listing import FileIdentity, Likeness, compare
from lib.transport.partial import Fetched

_NOTES = ".fetched"
_FIELDS = ("size", "sha256", "etag", "last_modified", "publisher_checksum")


def note_path(path: Path) -> Path:
    """Where the note of the file at `path` lies."""
    return path.parent / _NOTES / f"{path.name}.json"


def write_note(
    path: Path, fetched: Fetched, measured: Path, notes: Sequence[str], url: str
) -> None:
    """Write the note of the file at `path`, which may still lie at `measured`.

    Raises
    ------
    DestinationError
    """
    note = note_path(path)
    with naming_os_errors(str(note), "write"):
        record: dict[str, Any] = {"path": path.name}
        record |= {name: getattr(fetched, name) for name in _FIELDS}
        record |= {"mtime_ns": measured.stat().st_mtime_ns, "notes": [*notes], "url": url}
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_name(temporary_name(note.name, "tmp"))
        temporary.write_text(json.dumps(record, indent=1))
        os.replace(temporary, note)


def facts_of(file: SourceFile) -> FileIdentity:
    """What is said of a source file."""
    return FileIdentity(file.size, file.etag, file.last_modified, file.publisher_checksum)


def differs(file: SourceFile, fetched: Fetched) -> bool:
    """Whether the archive's file may be another one than the one that was fetched.

    Where only an entity tag speaks against it, the file is fetched again: a kept file must be
    right, and here nobody can be asked.
    """
    kept = FileIdentity(
        fetched.size, fetched.etag, fetched.last_modified, fetched.publisher_checksum
    )
    return compare(facts_of(file), kept) is not Likeness.SAME


def as_fetched(path: Path, note: dict[str, Any]) -> Fetched:
    """What a note says of the file at `path`."""
    return Fetched(path, **{field: note[field] for field in _FIELDS})


def note_key(key: str) -> str:
    """The key of the note of a kept file."""
    folder, _, name = key.rpartition("/")
    return f"{folder}/{_NOTES}/{name}.json"


def read_note(path: Path) -> dict[str, Any] | None:
    """The note at `path`; None if there is none, or it is damaged."""
    try:
        return parse_note(path.read_bytes())
    except OSError:
        return None


def parse_note(text: bytes) -> dict[str, Any] | None:
    """A note if it is complete, else None."""
    try:
        note = json.loads(text)
        whole = isinstance(note["size"], int) and isinstance(note["sha256"], str)
        known = {"etag", "last_modified", "publisher_checksum", "mtime_ns", "notes", "url"}
    except (ValueError, KeyError, TypeError):
        return None
    return note if whole and known <= note.keys() else None


CELL_BYTES = 64 * 2**10
_FILL_BYTES = 8 * 2**20
_HASH_BYTES = 2**20

FetchGap = Callable[[int, memoryview], None]


class RawTee:
    """One file that arrives in ranges. Thread-safe; processes may share the folder.

    Parameters
    ----------
    path
        Where the file will be; the part lies beside it.
    identity
        What must not change between two ranges: URL, size, entity tag, modification time. A part
        of another identity is deleted.
    size
        Bytes of the whole file.
    """

    def __init__(self, path: Path, identity: dict[str, Any], size: int) -> None:
        self.size = size
        text = json.dumps(identity, sort_keys=True).encode()
        self._part = path.with_name(f"{path.name}.{hashlib.sha256(text).hexdigest()[:16]}.part")
        self._others = f"{glob.escape(path.name)}.{'[0-9a-f]' * 16}.part"
        self._lock = threading.Lock()
        self._pieces: dict[int, list[tuple[int, int]]] = {}  # of cells that are not yet whole
        self._file: UncachedFile | None = None

    @property
    def cells(self) -> int:
        """Number of cells of the file."""
        return -(-self.size // CELL_BYTES)

    def write(self, offset: int, view: memoryview) -> None:
        """Keep the bytes at `offset`. Raises `DestinationFullError` or `DestinationError`."""
        view = view.cast("B")
        if offset < 0 or offset + len(view) > self.size:
            raise DestinationError(
                f"{len(view)} bytes at {offset} do not belong to a file of {self.size}",
                location=str(self._part),
            )
        file = self._open()
        with naming_os_errors(str(self._part), "write"):
            file.pwrite(view, offset)
            # Data first, coverage after: a killed process leaves bytes that do not count.
            for first, count in self._whole_now(offset, offset + len(view)):
                file.pwrite(memoryview(b"\1" * count), self.size + first)

    def gaps(self) -> list[tuple[int, int]]:
        """``(offset, length)`` of what is not yet there, in whole cells."""
        file = self._open()
        with naming_os_errors(str(self._part), "read"):
            cover = os.pread(file.fd, self.cells, self.size)
        cover = cover.ljust(self.cells, b"\0")
        found: list[tuple[int, int]] = []
        start = cover.find(b"\0")
        while start >= 0:
            stop = cover.find(b"\1", start)
            stop = self.cells if stop < 0 else stop
            end = min(stop * CELL_BYTES, self.size)
            found.append((start * CELL_BYTES, end - start * CELL_BYTES))
            start = cover.find(b"\0", stop)
        return found

    def fill(self, fetch_gap: FetchGap, sha256: str | None = None) -> tuple[Path, str]:
        """Fetch what is missing, hash the whole file, cut off the coverage.

        Parameters
        ----------
        fetch_gap
            Fills a view with the bytes at an offset.
        sha256
            Of the whole file, where all of its bytes came by; None hashes what lies on the disk.

        Returns
        -------
        The finished part, to be renamed by the caller, and its sha256.
        """
        for offset, length in self.gaps():
            for start in range(offset, offset + length, _FILL_BYTES):
                view = memoryview(bytearray(min(_FILL_BYTES, offset + length - start)))
                fetch_gap(start, view)
                self.write(start, view)
        file = self._open()
        with naming_os_errors(str(self._part), "write"):
            os.fsync(file.fd)
            sha256 = sha256 or hash_file(self._part, self.size)
            # The long work comes before the coverage goes: without it, all is fetched again.
            os.ftruncate(file.fd, self.size)
        self.close()
        return self._part, sha256

    def discard(self) -> None:
        """Delete the part."""
        self.close()
        with naming_os_errors(str(self._part), "delete"):
            self._part.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the part; it stays for later, and `write` opens it again."""
        with self._lock:
            file, self._file = self._file, None
            self._pieces.clear()
        if file is not None:
            file.close()

    def _open(self) -> UncachedFile:
        with self._lock:
            if self._file is not None:
                return self._file
            with naming_os_errors(str(self._part), "write"):
                self._part.parent.mkdir(parents=True, exist_ok=True)
                for other in self._part.parent.glob(self._others):
                    if other != self._part:
                        other.unlink(missing_ok=True)
                file = UncachedFile(str(self._part), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
                whole = self.size + self.cells
                if os.fstat(file.fd).st_size < whole:
                    # A part cut to its final size, by a run killed before the rename, loses its
                    # coverage here and is fetched again.
                    os.ftruncate(file.fd, whole)
            self._file = file
            return file

    def _whole_now(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Runs ``(first, count)`` of cells that the bytes from `start` to `stop` complete."""
        first = -(-start // CELL_BYTES)
        last = self.cells if stop == self.size else stop // CELL_BYTES
        if last > first:
            yield first, last - first
        for cell in {start // CELL_BYTES, (stop - 1) // CELL_BYTES}:
            if not first <= cell < last and stop > start and self._completes(cell, start, stop):
                yield cell, 1

    def _completes(self, cell: int, start: int, stop: int) -> bool:
        low, high = cell * CELL_BYTES, min((cell + 1) * CELL_BYTES, self.size)
        with self._lock:
            pieces = [*self._pieces.get(cell, []), (max(start, low), min(stop, high))]
            reached = low
            for piece_start, piece_stop in sorted(pieces):
                if piece_start > reached:
                    break
                reached = max(reached, piece_stop)
            if reached >= high:
                self._pieces.pop(cell, None)
                return True
            self._pieces[cell] = pieces
            return False


def hash_file(path: Path, size: int | None = None) -> str:
    """Hexadecimal sha256 of a file, or of its first `size` bytes, read once in order.

    Raises
    ------
    DestinationError, NotFoundError, StoppedError
    """
    digest = hashlib.sha256()
    view = memoryview(bytearray(_HASH_BYTES))
    with naming_os_errors(str(path), "read"), path.open("rb", buffering=0) as file:
        left = path.stat().st_size if size is None else size
        while left and (count := file.readinto(view[:left])):
            stopping.check()
            digest.update(view[:count])
            left -= count
    return digest.hexdigest()
