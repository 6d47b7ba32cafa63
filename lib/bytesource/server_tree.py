"""Files of a web server or an FTP server as a `Tree`.

A web server's are objects by name, listed where it has index pages; of an FTP server every object
is a transfer of its own, and files come whole.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

from lib.bytesource.remote import FtpBytes, HttpBytes
from lib.bytesource.tree import MOST_BYTES, SessionTree, check_length, join
from lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    NotFoundError,
    NotListableError,
    SourceChangedError,
)
from lib.transport.http import RemoteFile
from lib.transport.listing import Listing, ObjectInfo
from lib.transport.partial import Fetched
from lib.transport.session import Session


class HttpTree(SessionTree):
    """Files below a URL. Keys are names as people read them; they are percent-encoded here.

    Parameters
    ----------
    root
        ``https://host`` or ``https://host/folder``, percent-encoded, without a slash at the end.
    query
        What each request carries behind its ``?``, for example a signature; never shown.
    """

    listing_proves = False
    _most_folders = 10_000

    def __init__(self, session: Session, service: str, root: str, query: str = "") -> None:
        super().__init__(session, service, root.rstrip("/"))
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
        with suppress(NotFoundError):
            return self._http.get_bytes(self.url(key), most)
        return None

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        data = bytearray(length)
        with suppress(NotFoundError):
            self._http.read_range_into(RemoteFile(self.url(key), None), start, memoryview(data))
            return bytes(data)
        return None

    def head(self, key: str) -> ObjectInfo | None:
        with suppress(NotFoundError):
            return _info(key, self._http.head(self.url(key)))
        return None

    def look(self, key: str) -> ObjectInfo | None:
        with suppress(NotFoundError):
            found = self._http.look(self.url(key))
            return None if found is None else _info(key, found)
        return None

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

    def source(self, key: str, known: ObjectInfo | None = None) -> HttpBytes:
        remote = self._http.head(self.url(key)) if known is None else self._file(key, known)
        return HttpBytes(self._session, self._service, remote)

    def download(self, key: str, known: ObjectInfo, path: Path) -> Fetched:
        """Fetch a whole file to `path`, going on from what an earlier try left."""
        return self._http.download(self._file(key, known), path)

    def _file(self, key: str, known: ObjectInfo) -> RemoteFile:
        return RemoteFile(
            self.url(key), known.size, known.etag, known.last_modified, known.checksum
        )


def _info(key: str, found: RemoteFile) -> ObjectInfo:
    return ObjectInfo(key, found.size, found.etag, found.last_modified, found.publisher_checksum)


_SAFE = "/:@!$&'()*+,;=~"


class FtpTree(SessionTree):
    """Files below the root of an FTP server.

    Parameters
    ----------
    address
        ``host`` or ``host:port``.
    """

    ranged = False
    listing_proves = False

    def __init__(self, session: Session, service: str, address: str) -> None:
        super().__init__(session, service, f"ftp://{address}")
        self._address = address
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
