"""Objects in S3: whole, in ranges, and in listings."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from lib.concurrency.bounded_map import free_compute_slot
from lib.errors import BadAnswerError, IncompleteTransferError, MacroscopeError
from lib.transport import bounds, responses
from lib.transport.bounds import ServiceCounters
from lib.transport.http_wire import Answer
from lib.transport.limits import Limiter, Limits
from lib.transport.listing import MOST_KEYS, Listing, ObjectInfo, Walk
from lib.transport.md5 import MD5, by_hashlib
from lib.transport.retry import http_date
from lib.transport.s3.address import S3Access, check_object_key, parse_uri
from lib.transport.s3.errors import Refusal, source_error
from lib.transport.s3.listing import ListingPage, read_page
from lib.transport.s3.requests import Get, S3Requests

__all__ = ["Listing", "ObjectInfo", "ObjectReader"]

T = TypeVar("T")


class ObjectReader:
    """Reads objects below one ``s3://bucket/prefix``. Thread-safe.

    Keys are relative to the prefix. Every method raises `AccessDeniedError` (401, 403),
    `NotFoundError` (no such bucket), `RequestRefusedError`, `TransportError` and its kinds, and
    `StoppedError`.

    Parameters
    ----------
    uri
        ``s3://bucket`` or ``s3://bucket/prefix``.
    access
        Which server, and as whom.
    check_etags
        Which objects' bytes are held against their ETags.
    """

    def __init__(
        self,
        archive: str,
        uri: str,
        access: S3Access,
        limits: Limits,
        limiter: Limiter,
        counters: ServiceCounters,
        *,
        check_etags: EtagPolicy = "always",
    ) -> None:
        bucket, prefix = parse_uri(uri)
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._archive = archive
        self._prefix = f"{prefix}/" if prefix else ""
        self._requests = S3Requests(archive, bucket, access, limits, limiter, counters)
        over_tls = self._requests.server.startswith("https://")
        self._etags = EtagProof(check_etags, over_tls=over_tls)

    def close(self) -> None:
        """Close all connections; later calls open new ones."""
        self._requests.close()

    def get(self, key: str, most: int = bounds.DOCUMENT_BYTES) -> memoryview | None:
        """The bytes of an object, or None where the store says that there is no such key.

        Parameters
        ----------
        most
            Bytes that the object may have.

        Raises
        ------
        IncompleteTransferError
            The bytes do not fit an ETag that is their digest.
        BadAnswerError
            There are more bytes than may be, or a web page came.
        """
        return self.get_several([key], most)[0]

    def get_several(
        self, keys: Sequence[str], most: int = bounds.DOCUMENT_BYTES
    ) -> list[memoryview | None]:
        """The same of several objects, one after another; what fails is tried again by itself."""
        names = [self._quoted(key) for key in keys]
        found: list[memoryview | None] = []
        while len(found) < len(keys):
            answers, failed = self._get_in_turn(names[len(found) :], most)
            # in order: what comes of one tells whether the next one's tag is a digest
            for answer, fault in zip(answers, self._etags.faults(answers), strict=True):
                if fault is None:
                    found.append(answer.body)
                else:
                    at = len(found)
                    found.append(self._get_again(keys[at], names[at], most, fault))
            if failed is not None:
                at = len(found)
                found.append(self._get_again(keys[at], names[at], most, failed))
        return found

    def _get_in_turn(
        self, names: Sequence[str], most: int
    ) -> tuple[list[Answer], Exception | None]:
        """Answers until one fails, and how it did; none is held against its ETag yet."""
        answers: list[Answer] = []
        free_compute_slot()
        try:
            with self._requests.in_turn() as get:
                for name in names:
                    answers.append(self._answer(get, name, most))
        except (MacroscopeError, Refusal) as error:
            return answers, error
        return answers, None

    def _get_again(self, key: str, name: str, most: int, failed: Exception) -> memoryview | None:
        """What comes of an object whose first try has failed."""
        first = [failed]

        def once() -> memoryview:
            if first:
                raise first.pop()
            answers, again = self._get_in_turn([name], most)
            for error in (again, *self._etags.faults(answers)):
                if error is not None:
                    raise error
            return answers[0].body

        return self._unless_absent("GET", key, once)

    @staticmethod
    def _answer(get: Get, name: str, most: int) -> Answer:
        answer = get(name, most)
        if responses.is_html(answer.headers):
            raise BadAnswerError(
                "a web page came instead of the object",
                retryable=not responses.is_stored_page(answer.headers),
            )
        return answer

    def get_range(
        self, key: str, start: int, length: int, etag: str | None = None
    ) -> memoryview | None:
        """`length` bytes of an object from `start` on; None where there is no such key.

        Raises
        ------
        IncompleteTransferError
            The object ends earlier.
        SourceChangedError
            It no longer has the entity tag `etag`.
        """
        name = self._quoted(key)
        span = f"bytes={start}-{start + length - 1}"
        # A weak tag fits nothing that If-Match compares it with (RFC 9110, section 13.1.1).
        asked = {"Range": span}
        if etag is not None and not etag.startswith("W/"):
            asked["If-Match"] = etag

        def once() -> memoryview:
            with self._requests.in_turn() as get:
                answer = get(name, length, asked)
            if answer.status != 206:
                raise BadAnswerError("the object store ignores byte ranges", retryable=False)
            came = responses.content_range(answer.headers)
            if came is None or came[0] != start or came[1] >= start + length:
                raise BadAnswerError(f"{span} were asked for and {came} came")
            data = answer.body
            if data.nbytes != length:
                raise IncompleteTransferError(
                    f"{data.nbytes} bytes came where {length} were asked for", retryable=False
                )
            return data

        return self._unless_absent("GET", key, once)

    def head(self, key: str) -> ObjectInfo | None:
        """Size, entity tag and date of an object; None for 404 (HEAD does not say of what)."""
        name = self._quoted(key)

        def once() -> ObjectInfo | None:
            try:
                with self._requests.ask("HEAD", name) as response:
                    response.read()  # nothing: the connection is free again
                    size = responses.content_length(response.headers)
                    if size is None:
                        raise BadAnswerError("the answer is not that of an object store")
                    written = http_date(response.headers.get("Last-Modified"))
                    date = None if written is None else f"{written:%Y-%m-%dT%H:%M:%SZ}"
                    return ObjectInfo(key, size, response.headers.get("ETag"), date)
            except Refusal as refusal:
                if refusal.status == 404:
                    return None
                raise

        return self._retry("HEAD", key, once)

    def list(self, prefix: str = "", most: int = MOST_KEYS) -> Listing:
        """One level below a prefix (a folder).

        Raises
        ------
        BadAnswerError
            The listing has no end, or more than `most` entries.
        """
        objects: list[ObjectInfo] = []
        prefixes: dict[str, None] = {}
        for page in self._pages(prefix, "/", most):
            objects += page.objects
            prefixes |= dict.fromkeys(name.rstrip("/") for name in page.prefixes)
        unique = {item.key: item for item in objects}
        return Listing(tuple(unique.values()), tuple(prefixes))

    def list_all(
        self, prefix: str = "", most: int = MOST_KEYS
    ) -> Iterator[tuple[str, int, str | None]]:
        """Key, size in bytes and entity tag of every object below a prefix (a folder).

        Raises
        ------
        BadAnswerError
            The listing has no end, or more than `most` keys.
        """
        seen: set[str] = set()
        for page in self._pages(prefix, "", most):
            for item in page.objects:
                if item.key not in seen:
                    assert item.size is not None  # a page without sizes is no listing
                    seen.add(item.key)
                    yield item.key, item.size, item.etag

    def _pages(self, prefix: str, delimiter: str, most: int) -> Iterator[ListingPage]:
        folder = prefix.strip("/")
        full = self._prefix + (f"{folder}/" if folder else "")
        walk = Walk(most)
        token: str | None = None
        while True:

            def once(token: str | None = token) -> ListingPage:
                return read_page(self._requests, full, delimiter, token)

            page = self._retry("LIST", prefix, once)
            try:
                walk.take(page.names(), page.token)
            except MacroscopeError as error:
                raise error.located(
                    archive=self._archive, location=f"{self.uri}/{prefix}"
                ) from None
            yield ListingPage(
                tuple(
                    replace(item, key=item.key.removeprefix(self._prefix))
                    for item in page.objects
                    if not item.key.endswith("/")  # what some tools leave for an empty folder
                ),
                tuple(name.removeprefix(self._prefix) for name in page.prefixes),
                page.token,
            )
            if (token := page.token) is None:
                return

    # --- errors -----------------------------------------------------------------------------

    def _quoted(self, key: str) -> str:
        try:
            return check_object_key(self._prefix + key)
        except MacroscopeError as error:
            raise error.located(archive=self._archive, location=f"{self.uri}/{key}") from None

    def _unless_absent(self, verb: str, key: str, once: Callable[[], T]) -> T | None:
        """None where the store itself says that it has no such key.

        A missing chunk reads as background, so nothing else makes one: a proxy's 404 page or a
        missing bucket is an error.
        """

        def known() -> T | None:
            try:
                return once()
            except Refusal as refusal:
                if refusal.status == 404 and refusal.code == "NoSuchKey":
                    return None
                raise

        return self._retry(verb, key, known)

    def _retry(self, verb: str, key: str, once: Callable[[], T]) -> T:
        where = f"{self.uri}/{key}"

        def named() -> T:
            try:
                return once()
            except Refusal as refusal:
                raise source_error(refusal, where) from None
            except MacroscopeError as error:
                if error.location and error.location != where:  # what broke is the way to a server
                    error.say(f"{error.message} (endpoint {self._requests.server})")
                error.location = where
                raise

        return self._requests.retry(verb, where, named)


EtagPolicy = Literal["always", "plain-http", "sample"]
"""Which objects' bytes are held against their ETags: each, each that came without TLS, or every
sixteenth. TLS authenticates the wire; what an ETag finds beyond it is a store's own rot."""

_ONE_IN = 16
_MD5 = re.compile(r'(?:W/)?"?([0-9a-fA-F]{32})"?')


# Amazon S3, "Checking object integrity": the ETag of an object that was uploaded in one part is the
# MD5 of its bytes, unless it is encrypted with a customer's key or by KMS, which AWS says in a
# header of the response; one of several parts has a tag that ends in a dash and a number.
class EtagProof:
    """Holds whole objects against their ETags, once a bucket's tags are known to be digests.

    They are as soon as one object fits its tag. They are not if the first object does not, and
    arrives the same a second time. Thread-safe.

    Parameters
    ----------
    policy
        Which objects are looked at.
    over_tls
        Whether the bytes come over TLS.
    """

    def __init__(self, policy: EtagPolicy = "always", *, over_tls: bool = False) -> None:
        self._policy = policy
        self._none = policy == "plain-http" and over_tls
        self._lock = threading.Lock()
        self._tags_are_digests: bool | None = None
        self._arrived: dict[str, str] = {}  # tag -> digest of bytes that did not fit it

    def faults(self, answers: Sequence[Answer]) -> Iterator[IncompleteTransferError | None]:
        """What contradicts the tag of each, in order; None for what fits it or has no digest.

        They are hashed together, and judged one by one: whoever asks for the next one may have
        fetched this one again meanwhile. A compute slot may have been taken for it.
        """
        stated = [self._stated(answer) for answer in answers]
        bodies = [one.body for one, tag in zip(answers, stated, strict=True) if tag is not None]
        digests = iter(MD5.digests(bodies))
        for answer, tag in zip(answers, stated, strict=True):
            yield None if tag is None else self._judge(answer.body, tag, next(digests))

    def _stated(self, answer: Answer) -> str | None:
        """The digest that an answer states and that is to be looked at, as its tag has it."""
        if self._none or self._tags_are_digests is False or _is_encrypted(answer.headers):
            return None
        stated = _MD5.fullmatch(answer.headers.get("ETag") or "")
        if stated is None or (self._policy == "sample" and int(stated[1], 16) % _ONE_IN):
            return None  # by the tag, so that an object asked for again is judged as before
        return stated[1]

    def _judge(self, body: memoryview, tag: str, digest: str) -> IncompleteTransferError | None:
        if digest != tag.lower():  # a fault must not be that of a compiled loop
            digest = by_hashlib(body)
        with self._lock:
            if digest == tag.lower():
                self._tags_are_digests = True
                return None
            if self._tags_are_digests is False:
                return None
            if self._tags_are_digests is None and self._arrived.get(tag) == digest:
                self._tags_are_digests = False
                return None
            self._arrived[tag] = digest
        return IncompleteTransferError("the bytes that came are not those of the object's ETag")


def _is_encrypted(headers: Mapping[str, str]) -> bool:
    by = headers.get("x-amz-server-side-encryption", "")
    customer = headers.get("x-amz-server-side-encryption-customer-algorithm")
    return by.startswith("aws:kms") or customer is not None
