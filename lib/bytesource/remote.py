"""What remote files have in common, whatever the protocol: reading ahead, ranges in flight."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from lib.bytesource.base import GAP_BYTES, BufferPool, check_range
from lib.errors import BadAnswerError
from lib.transport.http import RemoteFile
from lib.transport.session import Session

READ_AHEAD_BYTES = 128 * 2**10
_LEAD_BYTES = 4 * 2**10  # writers differ in whether a directory's arrays come before or after it
_KEPT = 64  # extents of read-ahead: 8 MiB

T = TypeVar("T")
Tee = Callable[[int, memoryview], None]


class RemoteBytes:
    """A `ByteSource` whose bytes come by `receive`. Thread-safe.

    Metadata, asked for bit by bit, are read ahead; ranges are fetched side by side by `ordered`.

    Parameters
    ----------
    tee
        Called with ``(offset, bytes)`` for each range that arrives, from the thread that fetched
        it, before anybody sees the bytes, so that a file can be kept in the same pass.
    follow
        The same, but called in the order in which ranges were asked for, so that a digest need
        not keep what comes early.
    """

    remote = True

    def __init__(
        self,
        name: str,
        size: int,
        range_bytes: int,
        *,
        tee: Tee | None = None,
        follow: Tee | None = None,
    ) -> None:
        self.name, self.size, self.range_bytes = name, size, range_bytes
        self._tee, self._follow = tee, follow
        self._extents: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()
        self._buffers = BufferPool(range_bytes + GAP_BYTES)  # what `GapFillingBytes` may add

    def watch(self, tee: Tee | None, follow: Tee | None) -> None:
        """Set `tee` and `follow`, before anything is read."""
        self._tee, self._follow = tee, follow

    def receive(self, offset: int, view: memoryview) -> None:
        """Fill `view`, which is not empty and lies inside the file, by one request."""
        raise NotImplementedError

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        """Results of jobs in their order; a protocol of several connections runs some at once."""
        return (job() for job in jobs)

    def read_into(self, offset: int, view: memoryview) -> None:
        check_range(self, offset, len(view))
        self._receive(offset, view)
        if self._follow is not None:
            self._follow(offset, view)

    def read(self, offset: int, length: int) -> bytes:
        check_range(self, offset, length)
        with self._lock:  # two threads that miss alike must not ask twice
            for start, data in reversed(self._extents):
                if start <= offset and offset + length <= start + len(data):
                    return data[offset - start : offset - start + length]
            start = max(0, offset - _LEAD_BYTES)
            stop = min(self.size, max(offset + length, start + READ_AHEAD_BYTES))
            buffer = bytearray(stop - start)
            self.read_into(start, memoryview(buffer))
            data = bytes(buffer)
            if len(data) <= READ_AHEAD_BYTES:
                self._extents.append((start, data))
            return data[offset - start : offset - start + length]

    def ranges_ordered(self, ranges: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
        jobs = (partial(self._fetch, offset, length) for offset, length in ranges)
        for offset, view in self.ordered(jobs):
            if self._follow is not None:
                self._follow(offset, view)
            yield view
            self._buffers.give(view)

    def close(self) -> None:
        """Connections belong to the session."""

    def _fetch(self, offset: int, length: int) -> tuple[int, memoryview]:
        check_range(self, offset, length)  # before a buffer of an impossible length is made
        view = self._buffers.take(length)
        self._receive(offset, view)
        return offset, view

    def _receive(self, offset: int, view: memoryview) -> None:
        if not len(view):
            return
        self.receive(offset, view)
        if self._tee is not None:
            self._tee(offset, view)


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
