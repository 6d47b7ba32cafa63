"""One request to an S3 server: signed, bounded, counted, and refused by the server's own code.

Archives read and stores are read and written through this one client. A body goes piece by piece,
and the writer's lease is looked at before each: a half-sent one is never completed after its end.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from lib.transport import bounds, responses
from lib.transport.bounds import ServiceCounters
from lib.transport.connections import USER_AGENT, new_pool
from lib.transport.environment import proxy_for, tls_context
from lib.transport.http_wire import REFUSAL_BYTES, Answer, Wire
from lib.transport.limits import Limiter, Limits
from lib.transport.request import Exchanges
from lib.transport.s3.address import (
    UNLEASED_SECONDS,
    S3Access,
    Signer,
    bucket_url,
    credentials_of,
    region_of,
)
from lib.transport.s3.errors import read_refusal

PIECE = 256 * bounds.KIB
_ANSWER_BYTES = 4 * bounds.MIB
_NO_RETRIES = urllib3.Retry(False, redirect=False)

Left = Callable[[], float | None]
"""Seconds for which may be written, None without limit; raises where the time is over."""


class Get(Protocol):
    """A GET of a quoted key, refused with `Refusal` where its answer is no success."""

    def __call__(self, key: str, most: int, headers: Mapping[str, str] | None = None) -> Answer: ...


@dataclass(frozen=True, slots=True)
class S3Response:
    """Status, headers (any case) and body of an answer that was read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def etag(self) -> str:
        return self.headers.get("ETag", "")


class S3Requests(Exchanges):
    """Requests to one bucket. Thread-safe.

    Redirects are not followed: one from S3 says that the bucket lies in another region, and what
    is signed for one host is not valid at another.

    Parameters
    ----------
    limiter
        None where nothing but the connections bounds the requests in flight.
    outlives_stop
        A stop neither wakes nor refuses requests: a run that is stopping still writes its record.

    Raises
    ------
    ConfigError, AccessDeniedError
        Profile or CA bundle cannot be used; there are no credentials.
    """

    def __init__(
        self,
        archive: str | None,
        bucket: str,
        access: S3Access,
        limits: Limits,
        limiter: Limiter | None,
        counters: ServiceCounters,
        *,
        outlives_stop: bool = False,
    ) -> None:
        super().__init__(archive, limits, limiter, counters, outlives_stop=outlives_stop)
        region = region_of(access)
        self._signer = Signer(credentials_of(access), region)
        self._url = bucket_url(bucket, access, region)
        proxy = proxy_for(self._url)
        # authorities take 15 to 30 ms to read, and plain HTTP asks none of them
        plain = proxy is None and urlsplit(self._url).scheme == "http"
        trusted = None if plain else tls_context(access.ca_bundle)
        self._pool = new_pool(limits.connections, proxy, trusted, woken=not outlives_stop)
        # A pool of one host saves a tenth of a small request's time; proxies want to see the host.
        self._origin = self.server if proxy is None else ""
        self._host = self._pool.connection_from_url(self._origin) if self._origin else None
        connect_s, read_s = limits.connect_timeout_s, limits.read_timeout_s
        self._timeout = urllib3.Timeout(connect=connect_s, read=read_s)
        self._wire: Wire | None = None
        if self._origin:
            self._wire = Wire(self._origin, trusted, connect_s, read_s, limits.connections)

    @property
    def server(self) -> str:
        """Scheme, host and port that requests go to."""
        return urlsplit(self._url)._replace(path="").geturl()

    def now(self) -> datetime:
        """The time by the server's clock, to about a second, once it has answered."""
        return self._signer.now()

    def close(self) -> None:
        """Close all connections; later requests open new ones."""
        self._pool.clear()
        if self._origin:
            self._host = self._pool.connection_from_url(self._origin)
        if self._wire is not None:
            self._wire.close()

    @contextmanager
    def in_turn(self) -> Iterator[Get]:
        """Objects one after another, on one connection and within one slot.

        Each is a request of its own: it waits for its turn, is counted, and looks for a stop.
        """
        with self.exchange(self._url) as meter:
            line = self._wire.take() if self._wire is not None else None

            def get(key: str, most: int, headers: Mapping[str, str] | None = None) -> Answer:
                url = f"{self._url}/{key}"
                sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
                self.send_one("GET")
                signed = self._signer.in_header("GET", url, sent)
                if self._wire is None or line is None:
                    answer = self._through_proxy(url, signed, meter, most)
                else:
                    target = url.removeprefix(self._origin)
                    answer = self._wire.get(line, target, signed, meter, most)
                    self._counters.received(len(answer.body))
                self._signer.note_time(answer.headers.get("Date"))
                if not 200 <= answer.status < 300:
                    raise read_refusal(answer.status, answer.headers, bytes(answer.body))
                return answer

            try:
                yield get
            finally:
                if self._wire is not None and line is not None:
                    self._wire.put_back(line)

    def _through_proxy(
        self, url: str, headers: dict[str, str], meter: bounds.Meter, most: int
    ) -> Answer:
        meter.expect(bounds.HEADER_BYTES, document=True)
        response = self._send("GET", url, headers, None)
        try:
            meter.expect(bounds.framed(most), document=False)
            self._require_success(response, url, meter, "GET")
            body = self.body(response, most)
            return Answer(response.status, response.headers, memoryview(body), lasting=True)
        finally:
            response.close()
            response.release_conn()

    @contextmanager
    def ask(
        self,
        method: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        transfer: int | None = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """One answer of a success to a request that reads; its body is read inside the block.

        Parameters
        ----------
        key
            Inside the bucket, quoted; ``""`` is the bucket itself.
        transfer
            Most bytes of an object; None for a document, which must come within a time.

        Raises
        ------
        Refusal
            The server answers with another status.
        """
        url = f"{self._url}/{key}"
        asked = f"{url}?{urlencode(query, quote_via=quote)}" if query else url
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
        with self.exchange(url) as meter:
            self.send_one(_kind(method, key, query))
            signed = self._signer.in_header(method, asked, sent)
            response = self._send(method, asked, signed, None)
            try:
                meter.expect(
                    bounds.framed(bounds.DOCUMENT_BYTES if transfer is None else transfer),
                    document=transfer is None,
                )
                self._require_success(response, url, meter, method)
                yield response
            finally:
                response.close()
                response.release_conn()

    def write(
        self,
        method: str,
        key: str,
        left: Left,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        views: Sequence[memoryview] | None = None,
        document: bytes | None = None,
        signed_at: datetime | None = None,
    ) -> S3Response:
        """Send a request that changes the bucket, and read the answer to its end.

        Parameters
        ----------
        left
            Asked before anything is sent, and before each piece of the body.
        views
            Bytes to store, or some of them. Their SHA-256 goes with them, and the server compares.
        document
            What a POST asks for, in place of `views`.
        signed_at
            Another time than now, to see whether the server looks at a signature's end.

        Raises
        ------
        Refusal
            The server answers with another status than that of a success.
        """
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
        if views is not None:
            sent["x-amz-checksum-sha256"] = _sha256(views)
        body = views or ([memoryview(document)] if document else [])
        size = sum(view.nbytes for view in body)
        url = f"{self._url}/{key}"
        asked = f"{url}?{urlencode(query, quote_via=quote)}" if query else url
        with self.exchange(url) as meter:
            self.send_one(_kind(method, key, query))
            # first: a pause before the next line ends the signature earlier, not later
            moment = signed_at or self.now()
            seconds = left()
            signed = self._signer.in_address(
                method, asked, sent, moment, UNLEASED_SECONDS if seconds is None else seconds
            )
            if size or method in ("PUT", "POST"):
                sent["Content-Length"] = str(size)
            with closing(_pieces(body, left)) as pieces:  # whatever happens, no view is kept
                response = self._send(method, signed, sent, pieces if size else None)
            try:
                meter.expect(bounds.framed(_ANSWER_BYTES), document=True)
                self._require_success(response, url, meter, method)
                return S3Response(
                    response.status, response.headers, self.body(response, _ANSWER_BYTES)
                )
            finally:
                response.close()
                response.release_conn()

    def body(self, response: urllib3.BaseHTTPResponse, most: int) -> bytes:
        """The whole body of an answer. Raises `BadAnswerError`: it is longer than `most` bytes."""
        length = response.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit():
            if int(length) > most:
                raise bounds.too_long(most)
            data = response.read()
            self._counters.received(len(data))
            return data
        pieces = bytearray()
        while piece := response.read(min(PIECE, most + 1 - len(pieces))):
            self.check()
            self._counters.received(len(piece))
            pieces += piece
            if len(pieces) > most:
                raise bounds.too_long(most)
        return bytes(pieces)

    # --- inside

    def _send(
        self, method: str, url: str, headers: dict[str, str], body: Any
    ) -> urllib3.BaseHTTPResponse:
        response = (self._host or self._pool).urlopen(
            method,
            url.removeprefix(self._origin),
            body=body,
            headers=headers,
            timeout=self._timeout,
            retries=_NO_RETRIES,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        self._signer.note_time(response.headers.get("Date"))
        return response

    def _require_success(
        self, response: urllib3.BaseHTTPResponse, url: str, meter: bounds.Meter, method: str
    ) -> None:
        if 200 <= response.status < 300:
            return
        # its end matters to nobody, and may never come
        meter.expect(2 * REFUSAL_BYTES, document=True)
        body = b"" if method == "HEAD" else response.read(REFUSAL_BYTES)
        if response.status == 407:  # not the store, but a proxy on the way
            raise responses.status_error(407, response.headers, url, "")
        raise read_refusal(response.status, response.headers, body)


def _kind(method: str, key: str, query: Mapping[str, str] | None) -> str:
    """What a request is counted, and paid for, as: PUT (and POST), GET, HEAD, LIST, DELETE."""
    if method == "GET" and not key:
        return "LIST"
    if method == "POST":
        return "DELETE" if "delete" in (query or {}) else "PUT"
    return method


def _sha256(views: Sequence[memoryview]) -> str:
    digest = hashlib.sha256()
    for view in views:
        digest.update(view)
    return base64.b64encode(digest.digest()).decode()


def _pieces(views: Sequence[memoryview], left: Left) -> Generator[Any, None, None]:
    for view in views:
        for start in range(0, view.nbytes, PIECE):
            left()
            with view[start : start + PIECE] as piece:
                yield piece
