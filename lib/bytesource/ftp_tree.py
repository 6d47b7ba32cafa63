"""Files of an FTP server as a `Tree`: every object is a transfer of its own, files come whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from lib.bytesource.remote import FtpBytes
from lib.bytesource.tree import MOST_BYTES, Listing, ObjectInfo, check_length, join
from lib.errors import NotFoundError, SourceChangedError
from lib.transport.partial import Fetched
from lib.transport.session import Session

T = TypeVar("T")


class FtpTree:
    """Files below the root of an FTP server.

    Parameters
    ----------
    address
        ``host`` or ``host:port``.
    """

    remote = True
    ranged = False
    listing_proves = False

    def __init__(self, session: Session, service: str, address: str) -> None:
        self.uri = f"ftp://{address}"
        self.range_bytes = session.limits(service).range_bytes
        self._session, self._service, self._address = session, service, address
        self._client = session.ftp(service, address)

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | None:
        found = self.head(key)
        if found is None:
            return None
        check_length(f"{self.uri}/{key}", found.size, most)
        return self.get_range(key, 0, found.size or 0)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        data = bytearray(length)
        if length:
            try:
                self._client.read_range_into(f"/{key}", start, memoryview(data))
            except NotFoundError:
                return None
        return bytes(data)

    def head(self, key: str) -> ObjectInfo | None:
        try:
            size = self._client.size(f"/{key}")
        except NotFoundError:  # the listing of its folder lacks it, or shows a folder
            return None
        return ObjectInfo(key, size, None, self._client.modified(f"/{key}"))

    def look(self, key: str) -> ObjectInfo | None:
        return self.head(key)

    def list(self, prefix: str = "") -> Listing:
        try:
            entries = self._client.entries(f"/{prefix.strip('/')}")
        except NotFoundError:
            return Listing((), ())
        objects = [
            ObjectInfo(join(prefix, entry.name), entry.size, None, entry.modified)
            for entry in entries
            if not entry.is_dir
        ]
        prefixes = [join(prefix, entry.name) for entry in entries if entry.is_dir]
        return Listing(tuple(sorted(objects, key=lambda one: one.key)), tuple(sorted(prefixes)))

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        waiting = [prefix.strip("/")]
        while waiting:
            listing = self.list(waiting.pop())
            yield from listing.objects
            waiting += reversed(listing.prefixes)

    def source(self, key: str, known: ObjectInfo | None = None) -> FtpBytes:
        found = known or self.head(key)
        if found is None:
            raise NotFoundError("there is no such file", location=f"{self.uri}/{key}")
        size = found.size or 0
        return FtpBytes(self._session, self._service, self._address, f"/{key}", size)

    def download(self, key: str, known: ObjectInfo, path: Path) -> Fetched:
        fetched = self._client.download(f"/{key}", path)
        if known.size is not None and fetched.size != known.size:
            path.unlink(missing_ok=True)
            raise SourceChangedError(
                f"the file has {fetched.size} bytes, {known.size} were planned",
                location=f"{self.uri}/{key}",
            )
        return fetched

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return self._session.ordered(self._service, jobs)
