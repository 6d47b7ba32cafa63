"""Requests that read a bucket, and how any request of a store is tried again and named."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import quote

from lib.errors import BadAnswerError, MacroscopeError, NotFoundError, TransportError
from lib.storage.base import Folder, StoredObject, StoreSettings
from lib.storage.keys import check_prefix
from lib.transport import bounds
from lib.transport.bounds import ServiceCounters
from lib.transport.limits import Limits
from lib.transport.listing import ObjectInfo, Walk
from lib.transport.responses import content_length, content_range
from lib.transport.retry import call_with_retry, http_date
from lib.transport.s3.address import S3Access, parse_uri, server_url
from lib.transport.s3.errors import Refusal, store_error, way_error
from lib.transport.s3.listing import read_page
from lib.transport.s3.requests import S3Requests

_CONNECTIONS = 32


def endpoint_of(settings: StoreSettings) -> str | None:
    """The server's address; None is AWS itself."""
    given = (
        settings.endpoint_url
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
    )
    return server_url(given) if given else None


def access_of(settings: StoreSettings) -> S3Access:
    """Which server, and as whom."""
    secrets = {
        name: value.get_secret_value()
        for name in ("key", "secret", "token")
        if (value := getattr(settings, name)) is not None
    }
    return S3Access(
        endpoint_url=endpoint_of(settings),
        region=settings.region,
        anonymous=settings.anonymous,
        profile=settings.profile,
        addressing_style=settings.addressing_style,
        ca_bundle=settings.ca_bundle,
        **secrets,
    )


def limits_of(settings: StoreSettings) -> Limits:
    """How patient a store's requests are."""
    seconds = settings.timeout_seconds
    return Limits(
        _CONNECTIONS,
        connect_timeout_s=min(10.0, seconds),
        read_timeout_s=seconds,
        tries=settings.attempts,
        first_backoff_s=0.2,
        document_s=max(600.0, 2 * seconds),
    )


T = TypeVar("T")

_LARGEST = 64 * bounds.GIB  # of an object that is read whole; as much as a store may announce
_KINDS = ("PUT", "GET", "HEAD", "LIST", "DELETE")


@dataclass(frozen=True, slots=True)
class ReadObject:
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
        self.bucket, prefix = parse_uri(uri)
        self.prefix = check_prefix(prefix)
        self.uri = "/".join(part for part in ("s3:/", self.bucket, self.prefix) if part)
        self.settings = settings
        self.requests = S3Requests(
            None,
            self.bucket,
            access_of(settings),
            limits_of(settings),
            None,
            ServiceCounters(),
            outlives_stop=True,
        )
        self._bucket_seen = False

    def counts(self) -> dict[str, int]:
        """Requests sent so far, by kind; attempts that failed included."""
        return self.requests.counters.by_kind(*_KINDS)

    def where(self, key: str) -> str:
        """The full address of a key, for messages."""
        return f"{self.uri}/{key}" if key else self.uri

    def full(self, key: str) -> str:
        """A key as the bucket has it, with the store's prefix."""
        return f"{self.prefix}/{key}" if self.prefix else key

    # --- reading

    def get(self, key: str) -> ReadObject:
        """Raises `NotFoundError` where there is no such object."""

        def ask() -> ReadObject:
            with self.requests.ask("GET", quote(self.full(key)), transfer=_LARGEST) as response:
                data = self.requests.body(response, _LARGEST)
            written = http_date(response.headers.get("Last-Modified"))
            etag = response.headers.get("ETag", "")
            return ReadObject(data, etag, written or datetime.fromtimestamp(0, UTC))

        return self.trying(ask, key, "read")

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`."""
        headers = {"Range": f"bytes={start}-{start + length - 1}"}

        def ask() -> bytes:
            name = quote(self.full(key))
            with self.requests.ask("GET", name, headers=headers, transfer=length) as response:
                came = content_range(response.headers)
                if response.status != 206 or came is None or came[0] != start:
                    raise BadAnswerError("the object store ignores byte ranges", retryable=False)
                return self.requests.body(response, length)

        return self.trying(ask, key, "read")

    def head(self, key: str) -> ObjectInfo | None:
        """Size and entity tag; None where there is no such object."""

        def ask() -> ObjectInfo:
            with self.requests.ask("HEAD", quote(self.full(key))) as response:
                response.read()  # nothing: the connection is free again
                size = content_length(response.headers)
                if size is None:
                    raise BadAnswerError("the answer is not that of an object store")
                return ObjectInfo(key, size, response.headers.get("ETag", ""))

        try:
            return self.trying(ask, key, "look at")
        except NotFoundError:
            if not self._bucket_seen:  # a HEAD has no body to say that the bucket is missing
                self.trying(lambda: read_page(self.requests, self.prefix, "", None), "", "list")
            return None

    def listing(self, prefix: str) -> list[StoredObject]:
        """Everything below a prefix, sorted by key (SeaweedFS does not sort as S3 does)."""
        return self._listed(prefix, "")[0]

    def folder(self, prefix: str) -> Folder:
        """What lies directly below a prefix, sorted by key."""
        objects, folders = self._listed(prefix, "/")
        return Folder(tuple(objects), tuple(folders))

    def _listed(self, prefix: str, delimiter: str) -> tuple[list[StoredObject], list[str]]:
        folder = self.full(prefix).strip("/")
        full = f"{folder}/" if folder else ""
        cut = len(self.full(""))
        objects: dict[str, StoredObject] = {}
        folders: set[str] = set()
        walk, token = Walk(), None
        while True:

            def ask(token: str | None = token) -> str | None:
                page = read_page(self.requests, full, delimiter, token)
                walk.take(page.names(), page.token)
                for item in page.objects:
                    if not item.key.endswith("/"):  # what some tools leave for an empty folder
                        key = item.key[cut:]
                        objects[key] = StoredObject(key, item.size or 0, item.etag or "")
                folders.update(name[cut:].rstrip("/") for name in page.prefixes)
                return page.token

            token = self.trying(ask, prefix, "list")
            if token is None:
                return sorted(objects.values(), key=lambda item: item.key), sorted(folders)

    # --- what reading and writing share

    def trying(
        self, ask: Callable[[], T], key: str, doing: str, *, attempts: int | None = None
    ) -> T:
        """Ask until it succeeds, as often as the settings say; every failure gets its name."""
        where = self.where(key)

        def named() -> T:
            try:
                response = ask()
            except Refusal as refusal:
                raise store_error(refusal, where, doing) from None
            except TransportError as error:
                raise way_error(error, where, doing) from None
            except MacroscopeError as error:
                raise error.located(location=where) from None
            self._bucket_seen = True
            return response

        return call_with_retry(
            self.requests.limits,
            named,
            what=f"{doing} {where}",
            counters=self.requests.counters,
            tries=attempts,
            outlives_stop=True,
        )
