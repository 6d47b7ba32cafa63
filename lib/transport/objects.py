"""Objects in S3: whole, in ranges, and in listings.

obstore fetches; what its errors mean, when to try again and how many requests are in flight is
decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from lib.concurrency import interrupt
from lib.concurrency.leaving import leave_on_stop
from lib.errors import BadAnswerError, ConfigError, IncompleteTransferError, MacroscopeError
from lib.safety import redact
from lib.transport.counters import ServiceCounters
from lib.transport.etags import EtagProof
from lib.transport.limits import Limiter, Limits
from lib.transport.listing import Listing, ObjectInfo
from lib.transport.object_errors import named_error, says_no_such_key
from lib.transport.retry import call_with_retry

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig

__all__ = ["Listing", "ObjectInfo", "ObjectReader"]

T = TypeVar("T")

_FAILURES = (BaseError, OSError, ValueError)
_PAGE = 1000  # S3 lists at most this many keys a request


class ObjectReader:
    """Reads objects below one ``s3://bucket/prefix``. Thread-safe.

    Every method raises `AccessDeniedError` (401, 403), `NotFoundError` (no such bucket),
    `RequestRefusedError`, `TransportError` and its kinds, and `StoppedError`.

    Parameters
    ----------
    uri
        ``s3://bucket`` or ``s3://bucket/prefix``.
    endpoint_url
        Of a server other than AWS; it is addressed path style, over plain HTTP if it says so.
    anonymous
        Send unsigned requests; else `key` and `secret`, or what the environment offers.
    """

    def __init__(
        self,
        archive: str,
        uri: str,
        limits: Limits,
        limiter: Limiter,
        counters: ServiceCounters,
        *,
        endpoint_url: str | None = None,
        anonymous: bool = True,
        key: str | None = None,
        secret: str | None = None,
        region: str | None = None,
    ) -> None:
        bucket, prefix = _bucket_and_prefix(uri)
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._archive = archive
        self._limits = limits
        self._limiter = limiter
        self._counters = counters
        self._etags = EtagProof()
        config: dict[str, Any] = {"region": region or "us-east-1"}
        if anonymous:
            config["skip_signature"] = True
        elif key is not None and secret is not None:
            config |= {"access_key_id": key, "secret_access_key": secret}
        if endpoint_url is not None:
            config |= {"endpoint": endpoint_url.rstrip("/"), "virtual_hosted_style_request": False}
        self._store = S3Store(
            bucket,
            prefix=prefix or None,
            client_options=_client_options(limits, endpoint_url),
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
            **config,
        )

    def get(self, key: str, most: int | None = None) -> memoryview | None:
        """The bytes of an object, or None where the store says that there is no such key.

        Raises `IncompleteTransferError` if they do not fit an ETag that is their digest, and
        `BadAnswerError` if they are more than `most`.
        """

        def once() -> memoryview | None:
            received = 0
            with self._limiter.slot():
                self._limiter.pace()
                self._counters.begin()
                try:
                    data, kind, etag = leave_on_stop(partial(_whole, self._store, key, most))
                    received = data.nbytes
                except _FAILURES as error:
                    if says_no_such_key(error):
                        return None
                    self._raise(error, key)
                finally:
                    self._counters.end(received)
            if kind is not None and kind.startswith("text/html"):
                raise BadAnswerError("a web page came instead of the object")
            self._etags.check(data, etag)
            return data

        return self._retry("GET", key, once)

    def get_range(
        self, key: str, start: int, length: int, etag: str | None = None
    ) -> memoryview | None:
        """`length` bytes of an object from `start` on; None where there is no such key.

        Raises `IncompleteTransferError` if the object ends earlier, and `SourceChangedError` if
        it no longer has the entity tag `etag`.
        """

        def once() -> memoryview | None:
            received = 0
            with self._limiter.slot():
                self._limiter.pace()
                self._counters.begin()
                try:
                    span = (start, start + length)
                    data = leave_on_stop(partial(_range, self._store, key, span, etag))
                    received = data.nbytes
                except _FAILURES as error:
                    if says_no_such_key(error):
                        return None
                    self._raise(error, key)
                finally:
                    self._counters.end(received)
            if received != length:
                raise IncompleteTransferError(
                    f"{received} bytes came where {length} were asked for", retryable=False
                )
            return data

        return self._retry("GET", key, once)

    def head(self, key: str) -> ObjectInfo | None:
        """Size, entity tag and date of an object; None for 404 (HEAD does not say of what)."""

        def once() -> ObjectInfo | None:
            with self._limiter.slot():
                self._limiter.pace()
                self._counters.begin()
                try:
                    return _info(leave_on_stop(partial(obstore.head, self._store, key)))
                except FileNotFoundError:
                    return None
                except _FAILURES as error:
                    self._raise(error, key)
                finally:
                    self._counters.end()

        return self._retry("HEAD", key, once)

    def list(self, prefix: str = "", delimiter: bool = True) -> Listing:
        """One level below a prefix (a folder); with ``delimiter=False`` all levels, no prefixes."""
        if not delimiter:
            return Listing(tuple(map(_info, self._walk(prefix))), ())

        def once() -> Listing:
            with self._limiter.slot():
                self._limiter.pace()
                self._counters.begin()
                try:
                    ask = partial(obstore.list_with_delimiter, self._store, prefix or None)
                    found = leave_on_stop(ask)
                except _FAILURES as error:
                    self._raise(error, prefix)
                finally:
                    self._counters.end()
            return Listing(
                tuple(_info(meta) for meta in found["objects"]),
                tuple(name.rstrip("/") for name in found["common_prefixes"]),
            )

        return self._retry("LIST", prefix, once)

    def list_all(self, prefix: str = "") -> Iterator[tuple[str, int, str | None]]:
        """Key, size in bytes and entity tag of every object below a prefix (a folder), by key."""
        for meta in self._walk(prefix):
            yield meta["path"], meta["size"], meta["e_tag"]

    def _walk(self, prefix: str) -> Iterator[ObjectMeta]:
        stream: Iterator[Sequence[ObjectMeta]] | None = None
        seen: set[str] = set()

        def once() -> Sequence[ObjectMeta] | None:
            nonlocal stream
            with self._limiter.slot():
                self._limiter.pace()
                self._counters.begin()
                try:
                    if stream is None:
                        listed = obstore.list(self._store, prefix or None, chunk_size=_PAGE)
                        stream = iter(listed)
                    pages = stream
                    return leave_on_stop(lambda: next(pages, None))
                except _FAILURES as error:
                    stream = None
                    self._raise(error, prefix)
                finally:
                    self._counters.end()

        # A listing that broke begins anew: not every server sorts its keys, so that one cannot go
        # on after the last that came without losing some.
        while (page := self._retry("LIST", prefix, once)) is not None:
            for meta in page:
                if meta["path"] not in seen:
                    seen.add(meta["path"])
                    yield meta

    # --- errors -----------------------------------------------------------------------------

    def _retry(self, verb: str, key: str, once: Callable[[], T]) -> T:
        try:
            return call_with_retry(
                self._limits, once, what=f"{verb} {self.uri}/{key}", counters=self._counters
            )
        except MacroscopeError as error:
            error.located(archive=self._archive, location=f"{self.uri}/{key}")
            raise

    def _raise(self, error: Exception, key: str) -> NoReturn:
        interrupt.check()
        raise named_error(error).located(location=f"{self.uri}/{key}") from None


def _range(store: S3Store, key: str, span: tuple[int, int], etag: str | None) -> memoryview:
    """The bytes of a span, of the version that has the entity tag."""
    options: GetOptions = {"range": span}
    if etag is not None:
        options["if_match"] = etag
    return memoryview(obstore.get(store, key, options=options).bytes())


def _whole(store: S3Store, key: str, most: int | None) -> tuple[memoryview, str | None, str | None]:
    """Bytes, content type and entity tag of an object."""
    answer = obstore.get(store, key)
    size = answer.meta["size"]
    if most is not None and size > most:
        raise BadAnswerError(
            f"the object has {size} bytes, at most {most} make sense here", retryable=False
        )
    data = memoryview(answer.bytes())
    return data, answer.attributes.get("Content-Type"), answer.meta["e_tag"]


def _bucket_and_prefix(uri: str) -> tuple[str, str]:
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if (
        scheme != "s3"
        or not bucket
        or any(part in {"", ".", ".."} for part in prefix.split("/")[1:])
    ):
        raise ConfigError(
            f"{redact(uri)} is not an object store address", advice="Write s3://bucket/prefix"
        )
    return bucket, prefix


def _client_options(limits: Limits, endpoint_url: str | None) -> ClientConfig:
    return {
        "connect_timeout": timedelta(seconds=limits.connect_timeout_s),
        "read_timeout": timedelta(seconds=limits.read_timeout_s),
        # The time for a whole object: none that is read here takes longer unless it stalls.
        "timeout": timedelta(seconds=20 * limits.read_timeout_s),
        "allow_http": bool(endpoint_url) and str(endpoint_url).startswith("http://"),
        "pool_max_idle_per_host": str(limits.connections),
    }


def _info(meta: ObjectMeta) -> ObjectInfo:
    moment: datetime = meta["last_modified"]
    known = moment.timestamp() > 0  # obstore puts 1970 where the server says nothing
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if known else None
    return ObjectInfo(meta["path"], meta["size"], meta["e_tag"], text)
