"""The beginning of a file on an FTP server as a `ByteSource`."""

from __future__ import annotations

from lib.bytesource.base import check_range
from lib.bytesource.http_bytes import RemoteBytes
from lib.transport.session import Session


class FtpBytes(RemoteBytes):
    """Ranges of a file over FTP, each a transfer that is broken off.

    Good for metadata only. FTP has no entity tags: nothing ties two reads to one version.
    """

    def __init__(self, session: Session, service: str, address: str, path: str, size: int) -> None:
        super().__init__(f"ftp://{address}{path}", size, session.limits(service).range_bytes)
        self._client = session.ftp(service, address)
        self._path = path

    def read_into(self, offset: int, view: memoryview) -> None:
        check_range(self, offset, len(view))
        if len(view):
            self._client.read_range_into(self._path, offset, view)
