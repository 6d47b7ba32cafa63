"""Objects of a bucket of Google Cloud Storage as a `Tree`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from lib.bytesource.base import ByteSource, MemoryBytes
from lib.bytesource.remote import RemoteBytes
from lib.bytesource.tree import MOST_BYTES, Listing, ObjectInfo, check_length
from lib.errors import AccessDeniedError, NotFoundError, NotListableError, SourceChangedError
from lib.transport.gcs import GcsInfo, GcsReader
from lib.transport.session import Session

T = TypeVar("T")


class GcsTree:
    """Objects of ``gs://bucket``. What is stored compressed is read whole and unpacked."""

    remote = True
    ranged = True
    listing_proves = True

    def __init__(self, session: Session, service: str, reader: GcsReader) -> None:
        self.uri = reader.uri
        self.range_bytes = session.limits(service).range_bytes
        self.reader = reader
        self._session, self._service = session, service

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | None:
        return self.reader.get(key, most)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        return self.reader.get_range(key, start, length)

    def head(self, key: str) -> GcsInfo | None:
        return self.reader.head(key)

    def look(self, key: str) -> GcsInfo | None:
        return self.reader.head(key) if key else None

    def list(self, prefix: str = "") -> Listing:
        try:
            return self.reader.list(_folder(prefix))
        except AccessDeniedError as error:
            raise _not_listable(error) from error

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        try:
            yield from self.reader.list_all(_folder(prefix))
        except AccessDeniedError as error:
            raise _not_listable(error) from error

    def source(self, key: str, known: ObjectInfo | None = None) -> ByteSource:
        found = known if isinstance(known, GcsInfo) else self.reader.head(key)
        name = f"{self.uri}/{key}"
        if found is None:
            raise NotFoundError("there is no such object", location=name)
        if known is not None and (known.etag, known.size) != (found.etag, found.size):
            raise SourceChangedError("the object was replaced", location=name)
        if found.encoding is not None:
            data = self.reader.get(key, MOST_BYTES)
            if data is None:
                raise NotFoundError("the object is not there any more", location=name)
            return MemoryBytes(data, name=name)
        return _GcsBytes(self, found)

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return self._session.ordered(self._service, jobs)


class _GcsBytes(RemoteBytes):
    """Ranges of one generation of an object."""

    def __init__(self, tree: GcsTree, info: GcsInfo) -> None:
        name = f"{tree.uri}/{info.key}"
        check_length(name, info.size, 2**63)
        super().__init__(name, info.size or 0, tree.range_bytes)
        self._tree, self._info = tree, info

    def receive(self, offset: int, view: memoryview) -> None:
        data = self._tree.reader.get_range(self._info.key, offset, len(view), self._info.etag)
        if data is None:
            raise NotFoundError("the object is not there any more", location=self.name)
        view[:] = data

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return self._tree.ordered(jobs)


def _folder(prefix: str) -> str:
    return f"{prefix.strip('/')}/" if prefix.strip("/") else ""


def _not_listable(error: AccessDeniedError) -> NotListableError:
    return NotListableError(
        f"the bucket is not listed for everybody ({error.message})", location=error.location
    )
