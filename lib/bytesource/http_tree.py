"""Files of a web server as a `Tree`: objects by name, listings where it has index pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

from lib.bytesource.remote import HttpBytes
from lib.bytesource.tree import MOST_BYTES, Listing, ObjectInfo, join
from lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    NotFoundError,
    NotListableError,
)
from lib.transport.http import RemoteFile
from lib.transport.partial import Fetched
from lib.transport.session import Session

T = TypeVar("T")

_MOST_FOLDERS = 10_000


class HttpTree:
    """Files below a URL. Keys are names as people read them; they are percent-encoded here.

    Parameters
    ----------
    root
        ``https://host`` or ``https://host/folder``, percent-encoded, without a slash at the end.
    query
        What each request carries behind its ``?``, for example a signature; never shown.
    """

    remote = True
    listing_proves = False

    def __init__(self, session: Session, service: str, root: str, query: str = "") -> None:
        self.uri = root.rstrip("/")
        self.range_bytes = session.limits(service).range_bytes
        self._session, self._service = session, service
        self._query = f"?{query}" if query else ""
        self._http = session.http(service)

    @property
    def ranged(self) -> bool:
        """False once the server has answered a range with the whole file."""
        return urlsplit(self.uri).netloc not in self._http.ranges_ignored

    def url(self, key: str) -> str:
        """The address of an object."""
        return f"{self.uri}/{quote(key, safe=_SAFE)}{self._query}"

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | None:
        try:
            return self._http.get_bytes(self.url(key), most)
        except NotFoundError:
            return None

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        data = bytearray(length)
        try:
            self._http.read_range_into(RemoteFile(self.url(key), None), start, memoryview(data))
        except NotFoundError:
            return None
        return bytes(data)

    def head(self, key: str) -> ObjectInfo | None:
        try:
            found = self._http.head(self.url(key))
        except NotFoundError:
            return None
        return _info(key, found)

    def look(self, key: str) -> ObjectInfo | None:
        try:
            found = self._http.look(self.url(key))
        except NotFoundError:
            return None
        return None if found is None else _info(key, found)

    def list(self, prefix: str = "") -> Listing:
        folder = f"{self.url(prefix.strip('/')).partition('?')[0].rstrip('/')}/{self._query}"
        try:
            entries = self._http.list_index(folder)
        except (NotFoundError, AccessDeniedError, BadAnswerError) as error:
            raise NotListableError(
                f"the server shows no directory page ({error.message})", location=folder
            ) from error
        files = (join(prefix, entry.name) for entry in entries if not entry.is_dir)
        folders = (join(prefix, entry.name) for entry in entries if entry.is_dir)
        return Listing(tuple(ObjectInfo(key, None) for key in files), tuple(folders))

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        waiting, seen = [prefix.strip("/")], 0
        while waiting:
            seen += 1
            if seen > _MOST_FOLDERS:
                raise NotListableError(
                    f"more than {_MOST_FOLDERS} folders would have to be listed page by page",
                    location=self.uri,
                )
            listing = self.list(waiting.pop())
            yield from listing.objects
            waiting += reversed(listing.prefixes)

    def source(self, key: str, known: ObjectInfo | None = None) -> HttpBytes:
        if known is None:
            remote = self._http.head(self.url(key))
        else:
            remote = RemoteFile(
                self.url(key), known.size, known.etag, known.last_modified, known.checksum
            )
        return HttpBytes(self._session, self._service, remote)

    def download(self, key: str, known: ObjectInfo, path: Path) -> Fetched:
        """Fetch a whole file to `path`, going on from what an earlier try left."""
        remote = RemoteFile(
            self.url(key), known.size, known.etag, known.last_modified, known.checksum
        )
        return self._http.download(remote, path)

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return self._session.ordered(self._service, jobs)


def _info(key: str, found: RemoteFile) -> ObjectInfo:
    return ObjectInfo(key, found.size, found.etag, found.last_modified, found.publisher_checksum)


_SAFE = "/:@!$&'()*+,;=~"
