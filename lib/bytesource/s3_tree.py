"""Objects of an S3 bucket as a `Tree`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from lib.bytesource.remote import RemoteBytes
from lib.bytesource.tree import MOST_BYTES, Listing, ObjectInfo, check_length
from lib.errors import AccessDeniedError, NotFoundError, NotListableError
from lib.transport.s3.reader import ObjectReader
from lib.transport.session import Session

T = TypeVar("T")


class S3Tree:
    """Objects below ``s3://bucket[/prefix]``, through the one reader of object stores.

    Parameters
    ----------
    listed
        The bucket is known to be listed for everybody: a refusal is a failure like others.
    """

    remote = True
    ranged = True
    listing_proves = True

    def __init__(
        self, session: Session, service: str, objects: ObjectReader, *, listed: bool = False
    ) -> None:
        self.uri = objects.uri
        self.range_bytes = session.limits(service).range_bytes
        self.objects, self._listed = objects, listed
        self._session, self._service = session, service

    def get(self, key: str, most: int = MOST_BYTES) -> memoryview | None:
        return self.objects.get(key, most)

    def get_range(self, key: str, start: int, length: int) -> memoryview | None:
        return self.objects.get_range(key, start, length)

    def head(self, key: str) -> ObjectInfo | None:
        return self.objects.head(key)

    def look(self, key: str) -> ObjectInfo | None:
        return self.head(key)

    def list(self, prefix: str = "") -> Listing:
        try:
            return self.objects.list(_folder(prefix))
        except AccessDeniedError as error:
            if self._listed:
                raise
            raise _not_listable(error) from error

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        try:
            for key, size, etag in self.objects.list_all(_folder(prefix)):
                yield ObjectInfo(key, size, etag)
        except AccessDeniedError as error:
            if self._listed:
                raise
            raise _not_listable(error) from error

    def source(self, key: str, known: ObjectInfo | None = None) -> ObjectBytes:
        found = known or self.head(key)
        if found is None:
            raise NotFoundError("there is no such object", location=f"{self.uri}/{key}")
        return ObjectBytes(self, found)

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return self._session.ordered(self._service, jobs)


class ObjectBytes(RemoteBytes):
    """Ranges of one object, each tied to its entity tag where it has one."""

    def __init__(self, tree: S3Tree, info: ObjectInfo) -> None:
        name = f"{tree.uri}/{info.key}"
        check_length(name, info.size, 2**63)
        super().__init__(name, info.size or 0, tree.range_bytes)
        self._tree, self._info = tree, info

    def receive(self, offset: int, view: memoryview) -> None:
        data = self._tree.objects.get_range(self._info.key, offset, len(view), etag=self._info.etag)
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
