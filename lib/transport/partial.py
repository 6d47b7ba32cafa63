"""A file that arrives in pieces: ``<name>.partial`` beside a note of what it is a part of.

The part survives a killed run. It is continued only if the source still has the identity (size,
entity tag, modification time) under which it was begun, and it is hashed again before it is, so
the digest of a finished file always covers the bytes on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from lib.concurrency import cancel as stopping
from lib.errors import DestinationError, DestinationFullError, IncompleteTransferError

_BLOCK = 1024 * 1024
_ROOM = 256 * 1024  # of one read: what a broken connection may lose
_AHEAD = 4  # blocks that wait for their digest
_FULL = {28, 122, 27}  # ENOSPC, EDQUOT, EFBIG


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that arrived whole.

    Attributes
    ----------
    path, size, sha256
        Where it is, its bytes, and the hexadecimal digest of what is on the disk.
    etag, last_modified
        As the server gave them (FTP: MDTM as ISO 8601), or None.
    publisher_checksum
        ``md5:...`` where the server published one that was checked, else None.
    """

    path: Path
    size: int
    sha256: str
    etag: str | None = None
    last_modified: str | None = None
    publisher_checksum: str | None = None


class PartialFile:
    """Writes ``path.partial`` and renames it to ``path`` when it is whole.

    Parameters
    ----------
    identity
        What is said of the source: URL, size, entity tag, modification time.
    md5
        Compute that digest, too.
    may_continue
        Asked where a part was begun under another identity, with that identity and the part:
        whether it is one of this file after all.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, object],
        *,
        md5: bool = False,
        may_continue: Callable[[dict[str, Any], Path], bool] | None = None,
    ) -> None:
        self.path = path
        self.identity = dict(identity)
        self._may_continue = may_continue
        self.offset = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        self._behind = _Behind()
        self._block, self._filled = self._behind.block(), 0
        self._part = path.with_name(path.name + ".partial")
        self._note = path.with_name(path.name + ".partial.json")
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._continues():
                self._file = self._part.open("r+b")
                self._hash_again()
            else:
                self._begin()
        except OSError as error:
            raise destination_error(error, self._part) from error
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._file is not None:
                self._flush()
        finally:
            self._behind.end()
            if self._file is not None:
                self._file.close()
                self._file = None

    @property
    def sha256(self) -> hashlib._Hash:
        """The running digest of all bytes so far."""
        self._flush()
        self._behind.settle()
        return self._sha256

    @property
    def md5(self) -> hashlib._Hash | None:
        """The same, where it was asked for."""
        self._flush()
        self._behind.settle()
        return self._md5

    def room(self) -> memoryview:
        """Where the next bytes are to be received; tell `took` how many came."""
        return self._block[self._filled : self._filled + _ROOM]

    def took(self, count: int) -> None:
        """Append what was received into `room`; it is written and hashed a block at a time.

        Raises
        ------
        DestinationFullError, DestinationError
        """
        self._filled += count
        self.offset += count
        if self._filled == len(self._block):
            self._flush()

    def write(self, data: memoryview | bytes) -> None:
        """Append bytes and hash them."""
        data = memoryview(data).cast("B")
        while data:
            room = self.room()
            count = min(len(room), len(data))
            room[:count] = data[:count]
            self.took(count)
            data = data[count:]

    def _flush(self) -> None:
        if self._file is None or not self._filled:
            return
        view, self._filled = self._block[: self._filled], 0
        try:
            self._file.write(view)
        except OSError as error:
            raise destination_error(error, self._part) from error
        self._behind.add(view, self._digest)
        self._block = self._behind.block()

    def _digest(self, view: memoryview) -> None:
        self._sha256.update(view)
        if self._md5 is not None:
            self._md5.update(view)

    def held(self) -> Path | None:
        """The part as it is on the disk, or None while there is nothing of it."""
        if self._file is None or self.offset == 0:
            return None
        self._flush()
        self._file.flush()
        return self._part

    def restart(self) -> None:
        """Throw the part away and begin at byte 0."""
        self._filled = 0
        if self._file is not None:
            self._file.close()
        try:
            self._begin()
        except OSError as error:
            raise destination_error(error, self._part) from error

    def discard(self) -> None:
        """Delete the part and its note."""
        self._filled = 0
        self.__exit__(None, None, None)
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self, size: int | None) -> int:
        """Compare the byte count, make the file durable, give it its final name.

        Raises
        ------
        IncompleteTransferError
            If fewer or more bytes arrived than announced; a longer part is thrown away.
        """
        assert self._file is not None
        if size is not None and self.offset != size:
            if self.offset > size:
                self.discard()
            raise IncompleteTransferError(
                f"{self.offset} bytes arrived where {size} were announced", location=self.path.name
            )
        self._flush()
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self.__exit__(None, None, None)
            os.replace(self._part, self.path)
            self._note.unlink(missing_ok=True)
        except OSError as error:
            raise destination_error(error, self.path) from error
        return self.offset

    def _continues(self) -> bool:
        if not self._part.is_file() or self._part.is_symlink():
            return False
        try:
            noted = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return False
        # Without a size or a tag nothing proves that the part belongs to what is there now.
        known = any(self.identity.get(key) is not None for key in ("etag", "last_modified"))
        size = self.identity.get("size")
        fits = not isinstance(size, int) or self._part.stat().st_size <= size
        if not (known and fits and isinstance(noted, dict)):
            return False
        if noted == self.identity:
            return True
        if self._may_continue is None or not self._may_continue(noted, self._part):
            return False
        self._note.write_text(json.dumps(self.identity))
        return True

    def _begin(self) -> None:
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._note.write_text(json.dumps(self.identity))
        self._file = self._part.open("xb")
        self._behind.settle()
        self.offset = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if self._md5 is not None else None

    def _hash_again(self) -> None:
        assert self._file is not None
        buffer = memoryview(bytearray(_BLOCK))
        while count := self._file.readinto(buffer):  # type: ignore[attr-defined]
            stopping.check()
            self._digest(buffer[:count])
            self.offset += count


_Hashing = tuple[memoryview, Callable[[memoryview], None]]


class _Behind:
    """Hands blocks to a thread that hashes them while the next ones travel.

    A file of one block is hashed where it is written, without a thread. Nothing here refers to the
    file: in a cycle its blocks would stay until the garbage collector came by, a megabyte and more
    of every section of a stack.
    """

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[_Hashing | threading.Event | None] = queue.SimpleQueue()
        self._idle: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._made = 0
        self._thread: threading.Thread | None = None

    def block(self) -> memoryview:
        """A block to fill, as soon as there is one."""
        if self._made < _AHEAD and self._idle.empty():
            self._made += 1
            return memoryview(bytearray(_BLOCK))
        return self._idle.get()

    def add(self, view: memoryview, digest: Callable[[memoryview], None]) -> None:
        """Hash the beginning of a block, in the order of calls; the block is taken back."""
        if self._thread is None and len(view) < _BLOCK:
            digest(view)
            self._idle.put(memoryview(view.obj))
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="digest", daemon=True)
            self._thread.start()
        self._todo.put((view, digest))

    def settle(self) -> None:
        """Wait until all that was handed over is hashed."""
        if self._thread is not None:
            done = threading.Event()
            self._todo.put(done)
            done.wait()

    def end(self) -> None:
        """Hash what was handed over; later blocks have a thread of their own."""
        if self._thread is not None:
            self._todo.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (item := self._todo.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            view, digest = item
            digest(view)
            self._idle.put(memoryview(view.obj))


def destination_error(error: OSError, path: Path) -> DestinationError:
    """Name what a local file system refused."""
    reason = error.strerror or type(error).__name__
    kind = DestinationFullError if error.errno in _FULL else DestinationError
    advice = None if kind is DestinationFullError else "Check the folder and its permissions"
    return kind(f"cannot write the file: {reason}", location=str(path), advice=advice)
