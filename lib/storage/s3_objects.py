"""Requests that read a bucket, and how any request is counted, tried again and named."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import obstore.store
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from lib.concurrency import cancel as stopping
from lib.errors import MacroscopeError, NotFoundError
from lib.storage.base import Folder, StoredObject
from lib.storage.s3_client import make_client, parse_uri
from lib.storage.s3_errors import named_s3_error, no_bucket
from lib.storage.settings import StoreSettings

T = TypeVar("T")

PAGE = 1000  # keys of one LIST, and of one bulk DELETE: the protocol's limit
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

    def full(self, key: str) -> str:
        """A key as the bucket has it, with the store's prefix."""
        return f"{self.prefix}/{key}" if self.prefix else key

    # --- reading

    def get(self, key: str) -> Found:
        """Raises `NotFoundError` where there is no such object."""

        def ask() -> Found:
            self.count("GET")
            result = obstore.get(self.client, key)
            meta = result.meta
            return Found(result.bytes().to_bytes(), meta["e_tag"] or "", meta["last_modified"])

        return self.trying(ask, key, "read")

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`."""

        def ask() -> bytes:
            self.count("GET")
            return obstore.get_range(self.client, key, start=start, length=length).to_bytes()

        return self.trying(ask, key, "read")

    def head(self, key: str) -> obstore.ObjectMeta | None:
        """Size, entity tag and time; None where there is no such object."""

        def ask() -> obstore.ObjectMeta:
            self.count("HEAD")
            return obstore.head(self.client, key)

        try:
            return self.trying(ask, key, "look at")
        except NotFoundError:
            if not self._bucket_seen:  # a HEAD has no body to say that the bucket is missing
                self.require_bucket()
            return None

    def listing(self, prefix: str) -> list[StoredObject]:
        """Everything below a prefix, sorted by key (SeaweedFS does not sort as S3 does)."""

        def ask() -> list[StoredObject]:
            found: list[StoredObject] = []
            self.count("LIST")
            for page in obstore.list(self.client, prefix or None, chunk_size=PAGE):
                if found:
                    self.count("LIST")
                found.extend(
                    StoredObject(meta["path"], meta["size"], meta["e_tag"] or "") for meta in page
                )
            return found

        return sorted(self.trying(ask, prefix, "list"), key=lambda item: item.key)

    def folder(self, prefix: str) -> Folder:
        """What lies directly below a prefix, sorted by key."""

        def ask() -> Folder:
            self.count("LIST")
            found = obstore.list_with_delimiter(self.client, prefix or None)
            objects = [StoredObject(meta["path"], meta["size"]) for meta in found["objects"]]
            self.count("LIST", (len(objects) + len(found["common_prefixes"]) - 1) // PAGE)
            return Folder(
                tuple(sorted(objects, key=lambda item: item.key)),
                tuple(sorted(found["common_prefixes"])),
            )

        return self.trying(ask, prefix, "list")

    def require_bucket(self) -> None:
        """Raise `DestinationError` if the bucket does not exist."""

        def ask() -> None:
            self.count("LIST")
            next(iter(obstore.list(self.client, None, chunk_size=1)), None)

        try:
            self.trying(ask, "", "list")
        except NotFoundError as error:
            raise no_bucket(self.uri, "list") from error

    # --- what reading and writing share

    def count(self, kind: str, number: int = 1) -> None:
        """Note requests of a kind."""
        with self._guard:
            self._counts[kind] += number

    def trying(
        self, ask: Callable[[], T], key: str, doing: str, *, attempts: int | None = None
    ) -> T:
        """Ask until it succeeds, as often as the settings say; every failure gets its name."""

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
    text = str(error).partition("\n\nDebug source")[0]
    try:
        return type(error)(text)
    except TypeError:  # it wants other arguments
        return Exception(text)
