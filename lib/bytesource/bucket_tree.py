"""Objects of a bucket, S3's or Google's, as a `Tree`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from lib.bytesource.base import ByteSource, MemoryBytes
from lib.bytesource.remote import RemoteBytes
from lib.bytesource.tree import MOST_BYTES, SessionTree, check_length
from lib.errors import AccessDeniedError, NotFoundError, NotListableError, SourceChangedError
from lib.transport.gcs import GcsInfo, GcsReader
from lib.transport.listing import Listing, ObjectInfo
from lib.transport.s3.reader import ObjectReader
from lib.transport.session import Session

T = TypeVar("T")


class _Reader(Protocol):
    """What both readers of object stores have; the last argument is the version that is meant."""

    @property
    def uri(self) -> str: ...
    def get(self, key: str, most: int, /) -> bytes | memoryview | None: ...
    def get_range(
        self, key: str, start: int, length: int, version: str | None = None, /
    ) -> bytes | memoryview | None: ...
    def head(self, key: str, /) -> ObjectInfo | None: ...
    def list(self, prefix: str = "", /) -> Listing: ...


class _BucketTree(SessionTree):
    """Objects of a bucket, through its reader."""

    ranged = True
    listing_proves = True
    listed = False  # known to be listed for everybody: a refusal is a failure like others

    def __init__(self, session: Session, service: str, reader: _Reader) -> None:
        super().__init__(session, service, reader.uri)
        self._reader = reader

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | memoryview | None:
        return self._reader.get(key, most)

    def get_range(
        self, key: str, start: int, length: int, version: str | None = None
    ) -> bytes | memoryview | None:
        return self._reader.get_range(key, start, length, version)

    def head(self, key: str) -> ObjectInfo | None:
        return self._reader.head(key)

    def list(self, prefix: str = "") -> Listing:
        try:
            return self._reader.list(_folder(prefix))
        except AccessDeniedError as error:
            raise self._not_listable(error) from error

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        try:
            yield from self._below(_folder(prefix))
        except AccessDeniedError as error:
            raise self._not_listable(error) from error

    def source(self, key: str, known: ObjectInfo | None = None) -> ByteSource:
        found = known or self.head(key)
        if found is None:
            raise NotFoundError("there is no such object", location=f"{self.uri}/{key}")
        return ObjectBytes(self, found)

    def _below(self, folder: str) -> Iterator[ObjectInfo]:
        raise NotImplementedError

    def _not_listable(self, error: AccessDeniedError) -> AccessDeniedError | NotListableError:
        if self.listed:
            return error
        return NotListableError(
            f"the bucket is not listed for everybody ({error.message})", location=error.location
        )


class S3Tree(_BucketTree):
    """Objects below ``s3://bucket[/prefix]``."""

    def __init__(
        self, session: Session, service: str, objects: ObjectReader, *, listed: bool = False
    ) -> None:
        super().__init__(session, service, objects)
        self.objects, self.listed = objects, listed

    def get_several(self, keys: Sequence[str], most: int = MOST_BYTES) -> list[memoryview | None]:
        return self.objects.get_several(keys, most)

    def _below(self, folder: str) -> Iterator[ObjectInfo]:
        for key, size, etag in self.objects.list_all(folder):
            yield ObjectInfo(key, size, etag)


class GcsTree(_BucketTree):
    """Objects of ``gs://bucket``. What is stored compressed is read whole and unpacked."""

    def __init__(self, session: Session, service: str, reader: GcsReader) -> None:
        super().__init__(session, service, reader)
        self.reader = reader

    def look(self, key: str) -> ObjectInfo | None:
        return self.head(key) if key else None

    def source(self, key: str, known: ObjectInfo | None = None) -> ByteSource:
        found = known if isinstance(known, GcsInfo) else self.reader.head(key)
        name = f"{self.uri}/{key}"
        if found is None:
            raise NotFoundError("there is no such object", location=name)
        if known is not None and (known.etag, known.size) != (found.etag, found.size):
            raise SourceChangedError("the object was replaced", location=name)
        if found.encoding is None:
            return ObjectBytes(self, found)
        data = self.get(key)
        if data is None:
            raise NotFoundError("the object is not there any more", location=name)
        return MemoryBytes(data, name=name)

    def _below(self, folder: str) -> Iterator[ObjectInfo]:
        return self.reader.list_all(folder)


class ObjectBytes(RemoteBytes):
    """Ranges of one object, each tied to its entity tag or generation where it has one."""

    def __init__(self, tree: _BucketTree, info: ObjectInfo) -> None:
        name = f"{tree.uri}/{info.key}"
        check_length(name, info.size, 2**63)
        super().__init__(name, info.size or 0, tree.range_bytes)
        self._tree, self._info = tree, info

    def receive(self, offset: int, view: memoryview) -> None:
        data = self._tree.get_range(self._info.key, offset, len(view), self._info.etag)
        if data is None:
            raise NotFoundError("the object is not there any more", location=self.name)
        view[:] = data

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return self._tree.ordered(jobs)


def _folder(prefix: str) -> str:
    return f"{prefix.strip('/')}/" if prefix.strip("/") else ""
