"""Single requests to an S3 server: counted, tried again where that helps, named when they fail."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import obstore.store
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from lib.concurrency import cancel as stopping
from lib.errors import AlreadyExistsError, MacroscopeError, NotFoundError
from lib.storage.base import Folder, StoredObject
from lib.storage.s3_client import make_client, parse_uri
from lib.storage.s3_errors import named_s3_error, no_bucket
from lib.storage.s3_uploads import abort_uploads
from lib.storage.settings import StoreSettings

T = TypeVar("T")

_PART = 64 * 2**20  # at most 10,000 parts: objects of up to 640 GB
_PARTS_AT_ONCE = 4
_PAGE = 1000  # keys of one LIST, and of one bulk DELETE: the protocol's limit
_ATTEMPTS_WHEN_STOPPING = 2  # the last record should be written, but the run has seconds to go


@dataclass(frozen=True, slots=True)
class Found:
    """An object's bytes, entity tag and time of writing by the server's clock."""

    data: bytes
    etag: str
    written: datetime


class S3Objects:
    """Requests on keys as they are; names are checked by the caller.

    Attributes
    ----------
    uri
        ``s3://bucket/prefix``.
    """

    def __init__(self, uri: str, settings: StoreSettings) -> None:
        self.bucket, self.prefix = parse_uri(uri)
        self.uri = "/".join(part for part in ("s3:/", self.bucket, self.prefix) if part)
        self.settings = settings
        self.client = make_client(self.bucket, self.prefix, settings)
        self._counts: Counter[str] = Counter()
        self._guard = threading.Lock()
        self._bucket_seen = False

    def counts(self) -> dict[str, int]:
        """Requests sent so far, by kind; attempts that failed included."""
        with self._guard:
            return {kind: self._counts[kind] for kind in ("PUT", "GET", "HEAD", "LIST", "DELETE")}

    def where(self, key: str) -> str:
        """The full address of a key, for messages."""
        return f"{self.uri}/{key}" if key else self.uri

    # --- reading

    def get(self, key: str) -> Found:
        """Raises `NotFoundError` where there is no such object."""

        def ask() -> Found:
            self._count("GET")
            result = obstore.get(self.client, key)
            meta = result.meta
            return Found(result.bytes().to_bytes(), meta["e_tag"] or "", meta["last_modified"])

        return self._try(ask, key, "read")

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`."""

        def ask() -> bytes:
            self._count("GET")
            return obstore.get_range(self.client, key, start=start, length=length).to_bytes()

        return self._try(ask, key, "read")

    def head(self, key: str) -> obstore.ObjectMeta | None:
        """Size, entity tag and time; None where there is no such object."""

        def ask() -> obstore.ObjectMeta:
            self._count("HEAD")
            return obstore.head(self.client, key)

        try:
            return self._try(ask, key, "look at")
        except NotFoundError:
            if not self._bucket_seen:  # a HEAD has no body to say that the bucket is missing
                self.require_bucket()
            return None

    def listing(self, prefix: str) -> list[StoredObject]:
        """Everything below a prefix, sorted by key (SeaweedFS does not sort as S3 does)."""

        def ask() -> list[StoredObject]:
            found: list[StoredObject] = []
            self._count("LIST")
            for page in obstore.list(self.client, prefix or None, chunk_size=_PAGE):
                if found:
                    self._count("LIST")
                found.extend(StoredObject(meta["path"], meta["size"]) for meta in page)
            return found

        return sorted(self._try(ask, prefix, "list"), key=lambda item: item.key)

    def folder(self, prefix: str) -> Folder:
        """What lies directly below a prefix, sorted by key."""

        def ask() -> Folder:
            self._count("LIST")
            found = obstore.list_with_delimiter(self.client, prefix or None)
            objects = [StoredObject(meta["path"], meta["size"]) for meta in found["objects"]]
            self._count("LIST", (len(objects) + len(found["common_prefixes"]) - 1) // _PAGE)
            return Folder(
                tuple(sorted(objects, key=lambda item: item.key)),
                tuple(sorted(found["common_prefixes"])),
            )

        return self._try(ask, prefix, "list")

    def require_bucket(self) -> None:
        """Raise `DestinationError` if the bucket does not exist."""

        def ask() -> None:
            self._count("LIST")
            next(iter(obstore.list(self.client, None, chunk_size=1)), None)

        try:
            self._try(ask, "", "list")
        except NotFoundError as error:
            raise no_bucket(self.uri, "list") from error

    # --- writing

    def put(self, key: str, views: list[memoryview]) -> str:
        """Write, whatever is there; returns the entity tag."""
        size = sum(view.nbytes for view in views)
        if size > self.settings.multipart_above:
            return self._put_in_parts(key, views, size)

        def ask() -> str:
            self._count("PUT")
            answer = obstore.put(self.client, key, _body(views), use_multipart=False)
            return answer["e_tag"] or ""

        return self._try(ask, key, "write")

    def put_if(
        self, key: str, views: list[memoryview], etag: str | None, *, attempts: int | None = None
    ) -> str:
        """Write only if the object still has `etag`, or, with None, only if there is none.

        A success whose answer was lost shows up as a refusal of the next try; then what is stored
        decides whether it was ours.

        Raises
        ------
        AlreadyExistsError
            Something else is there.
        """
        doubtful = False

        def ask() -> str:
            nonlocal doubtful
            self._count("PUT")
            mode: obstore.PutMode = "create" if etag is None else {"e_tag": etag}
            try:
                answer = obstore.put(self.client, key, _body(views), mode=mode, use_multipart=False)
                return answer["e_tag"] or ""
            except Exception as error:
                named = named_s3_error(error, self.where(key), "write")
                if isinstance(named, AlreadyExistsError) and doubtful:
                    ours = self._if_ours(key, views)
                    if ours is not None:
                        return ours
                doubtful = doubtful or named.retryable
                raise named from _plain(error)

        return self._try(ask, key, "write", attempts=attempts)

    def delete(self, keys: list[str]) -> None:
        """Delete in bulk; absent is fine."""
        for start in range(0, len(keys), _PAGE):
            batch = keys[start : start + _PAGE]

            def ask(batch: list[str] = batch) -> None:
                self._count("DELETE")
                obstore.delete(self.client, batch)

            with suppress(NotFoundError):
                self._try(ask, batch[0], "delete")

    def abort_uploads(self, prefix: str) -> int:
        """Drop unfinished uploads below a prefix; returns how many."""
        full = "/".join(part for part in (self.prefix, prefix) if part)
        return abort_uploads(self.bucket, full, self.settings, self.where(prefix), self._count)

    # --- inside

    def _put_in_parts(self, key: str, views: list[memoryview], size: int) -> str:
        def ask() -> str:
            self._count("PUT", 2 + -(-size // _PART))
            answer = obstore.put(
                self.client,
                key,
                iter(views),
                use_multipart=True,
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
            )
            return answer["e_tag"] or ""

        # obstore aborts the upload when a part fails; what a killed run leaves is swept later.
        return self._try(ask, key, "write")

    def _if_ours(self, key: str, views: list[memoryview]) -> str | None:
        """The entity tag of the stored object if it holds exactly these bytes."""
        try:
            found = self.get(key)
        except NotFoundError:
            return None
        return found.etag if found.data == b"".join(views) else None

    def _count(self, kind: str, number: int = 1) -> None:
        with self._guard:
            self._counts[kind] += number

    def _try(self, ask: Callable[[], T], key: str, doing: str, *, attempts: int | None = None) -> T:
        def named() -> T:
            try:
                answer = ask()
            except MacroscopeError:
                raise
            except Exception as error:
                raise named_s3_error(error, self.where(key), doing) from _plain(error)
            self._bucket_seen = True
            return answer

        stopping_already = stopping.stop_requested()
        most = attempts or self.settings.attempts
        retrying = Retrying(
            stop=stop_after_attempt(
                min(most, _ATTEMPTS_WHEN_STOPPING) if stopping_already else most
            ),
            wait=wait_random_exponential(multiplier=0.2, max=10),
            # A run that is stopping still writes its last record: it must not be cut short here.
            sleep=time.sleep if stopping_already else stopping.sleep,
            retry=retry_if_exception(lambda e: isinstance(e, MacroscopeError) and e.retryable),
            reraise=True,
        )
        return retrying(named)


def _plain(error: Exception) -> Exception:
    """The cause without obstore's debug text, which may quote a whole answer."""
    return type(error)(str(error).partition("\n\nDebug source")[0])


def _body(views: list[memoryview]) -> bytes | Iterator[memoryview]:
    # obstore takes the buffers as they are; joining them would double the memory of a shard.
    return iter(views) if views else b""
