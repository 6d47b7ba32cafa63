"""What remote files have in common, whatever the protocol: reading ahead, ranges in flight."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

from lib.bytesource.base import GAP_BYTES, BufferPool, check_range
from lib.errors import BadAnswerError, SourceChangedError
from lib.transport.http import RemoteFile
from lib.transport.listing import Likeness, compare
from lib.transport.session import Session

READ_AHEAD_BYTES = 128 * 2**10
_LEAD_BYTES = 4 * 2**10  # writers differ in whether a directory's arrays come before or after it
_KEPT = 64  # extents of read-ahead: 8 MiB

T = TypeVar("T")
_Fetched = tuple[int, memoryview] | None
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
    at_once
        Requests that `ordered` makes at the same time.
    last_bytes
        Of a slow server, the smallest range to ask for near the end of the file, so that no
        connection idles while another brings a whole last range; None asks for ranges as they are.
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
        at_once: int = 1,
        last_bytes: int | None = None,
    ) -> None:
        self.name, self.size, self.range_bytes = name, size, range_bytes
        self._at_once, self._last_bytes = at_once, last_bytes
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
        jobs = (job for offset, length in ranges for job in self._fetches(offset, length))
        for done in self.ordered(jobs):
            if done is None:
                continue
            offset, view = done
            if self._follow is not None:
                self._follow(offset, view)
            yield view
            self._buffers.give(view)

    def close(self) -> None:
        """Connections belong to the session."""

    def _fetches(self, offset: int, length: int) -> Iterator[Callable[[], _Fetched]]:
        """Requests for a range, in its order; the last of them gives its bytes."""
        check_range(self, offset, length)  # before a buffer of an impossible length is made
        pieces = self._pieces(offset, length)
        if len(pieces) == 1:
            yield lambda: self._fetch(offset, self._buffers.take(length))
            return
        view = self._buffers.take(length)
        for start, stop in pieces[:-1]:
            yield partial(self._receive, start, view[start - offset : stop - offset])
        start = pieces[-1][0]
        yield lambda: self._fetch(offset, view, start - offset)

    def _pieces(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Where a range is cut: the nearer to the end of the file, the smaller the pieces."""
        stop, pieces = offset + length, list[tuple[int, int]]()
        while self._last_bytes is not None and offset < stop:
            step = max(self._last_bytes, (self.size - offset) // (2 * self._at_once))
            if stop - offset < 2 * step:
                break
            pieces.append((offset, offset + step))
            offset += step
        return [*pieces, (offset, stop)]

    def _fetch(self, offset: int, view: memoryview, begin: int = 0) -> tuple[int, memoryview]:
        self._receive(offset + begin, view[begin:])
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
    tee, follow, last_bytes
        As in `RemoteBytes`.

    Where `remote` has no entity tag, those of the first answer hold for the others.

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
        last_bytes: int | None = None,
    ) -> None:
        name = remote.url.partition("?")[0]
        if remote.size is None:
            raise BadAnswerError("the server does not say how large the file is", location=name)
        range_bytes = session.limits(service).range_bytes
        at_once = session.limiter(service).connections
        super().__init__(
            name,
            remote.size,
            range_bytes,
            tee=tee,
            follow=follow,
            at_once=at_once,
            last_bytes=last_bytes,
        )
        self._session, self._service, self._file = session, service, remote
        self._lock_file = threading.Lock()

    def receive(self, offset: int, view: memoryview) -> None:
        asked = self._file
        seen = self._session.http(self._service).read_range_into(asked, offset, view)
        if asked.etag is not None or seen.etag is None:
            return
        with self._lock_file:
            if self._file.etag is None:  # what the first answer tells holds for all others
                self._file = replace(self._file, etag=seen.etag, last_modified=seen.last_modified)
        if compare(self._file.facts(), seen.facts()) in (Likeness.OTHER, Likeness.CHANGED):
            raise SourceChangedError("the file changed on the server", location=self.name)

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
