"""A file on a web server or an FTP server as a `ByteSource`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from lib.bytesource.remote import RemoteBytes, Tee
from lib.errors import BadAnswerError
from lib.transport.http import RemoteFile
from lib.transport.session import Session

T = TypeVar("T")


class HttpBytes(RemoteBytes):
    """Ranges of one remote file, all checked against the entity tag of `remote`.

    Parameters
    ----------
    session, service
        Whose connections and limits to use.
    remote
        What HEAD said: URL, size, entity tag.
    tee, follow
        As in `RemoteBytes`.

    Raises
    ------
    BadAnswerError
        The server does not say how large the file is.
    """

    def __init__(
        self,
        session: Session,
        service: str,
        remote: RemoteFile,
        *,
        tee: Tee | None = None,
        follow: Tee | None = None,
    ) -> None:
        name = remote.url.partition("?")[0]
        if remote.size is None:
            raise BadAnswerError("the server does not say how large the file is", location=name)
        range_bytes = session.limits(service).range_bytes
        super().__init__(name, remote.size, range_bytes, tee=tee, follow=follow)
        self._session, self._service, self._file = session, service, remote

    def receive(self, offset: int, view: memoryview) -> None:
        self._session.http(self._service).read_range_into(self._file, offset, view)

    def check_same(self) -> None:
        """Raise `SourceChangedError` unless the server still has this file."""
        self._session.http(self._service).check_same(self._file)

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return self._session.ordered(self._service, jobs)


class FtpBytes(RemoteBytes):
    """Ranges of a file over FTP, each a transfer that is broken off.

    Good for metadata only. FTP has no entity tags: nothing ties two reads to one version.
    """

    def __init__(self, session: Session, service: str, address: str, path: str, size: int) -> None:
        super().__init__(f"ftp://{address}{path}", size, session.limits(service).range_bytes)
        self._client = session.ftp(service, address)
        self._path = path

    def receive(self, offset: int, view: memoryview) -> None:
        self._client.read_range_into(self._path, offset, view)
