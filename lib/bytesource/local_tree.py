"""A folder of this machine as a `Tree`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from lib.bytesource.base import RANGE_BYTES, LocalBytes, named_os_error
from lib.bytesource.tree import MOST_BYTES, Listing, ObjectInfo, check_length
from lib.concurrency.bounded_map import run_ordered
from lib.errors import FormatError, MacroscopeError, SourceChangedError

T = TypeVar("T")

_THREADS = max(2, min(8, os.cpu_count() or 2))
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


class LocalTree:
    """Files below a folder. Symbolic links are followed: they are the owner's own.

    Parameters
    ----------
    root
        Absolute.
    """

    remote = False
    ranged = True
    listing_proves = True
    range_bytes = RANGE_BYTES

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = root.as_uri().rstrip("/")

    def path(self, key: str) -> Path:
        """Where an object lies; raises `FormatError` where its key leads out of the root."""
        parts = [part for part in key.split("/") if part]
        if "\0" in key or ".." in parts:
            raise FormatError("a name leads out of its folder", location=f"{self.uri}/{key}")
        return self.root.joinpath(*parts)

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | None:
        path = self.path(key)
        try:
            with path.open("rb") as file:
                check_length(str(path), os.fstat(file.fileno()).st_size, most)
                return file.read()
        except OSError as error:
            _absent(error, path)
            return None

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        path = self.path(key)
        try:
            source = LocalBytes(path)
        except MacroscopeError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _ABSENT:
                return None
            raise
        try:
            return source.read(start, length)
        finally:
            source.close()

    def head(self, key: str) -> ObjectInfo | None:
        path = self.path(key)
        try:
            found = path.stat()
        except OSError as error:
            _absent(error, path)
            return None
        return _info(key, found) if path.is_file() else None

    def look(self, key: str) -> ObjectInfo | None:
        return self.head(key)

    def list(self, prefix: str = "") -> Listing:
        folder = self.path(prefix)
        objects, prefixes = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    key = f"{prefix.strip('/')}/{entry.name}".lstrip("/")
                    if entry.is_dir():
                        prefixes.append(key)
                    elif entry.is_file():
                        objects.append(_info(key, entry.stat()))
        except OSError as error:
            _absent(error, folder)
        objects.sort(key=lambda one: one.key)
        return Listing(tuple(objects), tuple(sorted(prefixes)))

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        waiting = [prefix.strip("/")]
        while waiting:
            listing = self.list(waiting.pop())
            yield from listing.objects
            waiting += reversed(listing.prefixes)

    def source(self, key: str, known: ObjectInfo | None = None) -> LocalBytes:
        path = self.path(key)
        if known is not None and known.etag != _info(key, path.stat()).etag:
            raise SourceChangedError("the file changed since it was planned", location=str(path))
        return LocalBytes(path)

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return run_ordered(jobs, _THREADS)


def _info(key: str, found: os.stat_result) -> ObjectInfo:
    moment = datetime.fromtimestamp(found.st_mtime, UTC).isoformat()
    return ObjectInfo(key, found.st_size, f"{found.st_size}-{found.st_mtime_ns}", moment)


def _absent(error: OSError, path: Path) -> None:
    """Nothing where the file is not there; raises for whatever else went wrong."""
    if error.errno not in _ABSENT:
        raise named_os_error(error, str(path)) from error
