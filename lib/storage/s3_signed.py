"""Requests that change a bucket: each is signed to expire, and its body goes piece by piece.

Two things keep a write back that was paused on its way. The signature is good only as long as the
writer's lease: the server refuses a request whose head arrives later ("Request has expired", Amazon
S3 User Guide, "Sharing objects with presigned URLs": checked when the request is made). And the
writer looks at its lease before each piece of a body, so that a half-sent one is never completed.
"""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from botocore.auth import SIGV4_TIMESTAMP, S3SigV4QueryAuth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]

from lib.errors import DestinationError, MacroscopeError
from lib.storage.s3_client import access_of
from lib.storage.settings import StoreSettings
from lib.transport.connections import USER_AGENT
from lib.transport.environment import proxy_for, tls_context
from lib.transport.s3.address import DEFAULT_REGION, bucket_url
from lib.transport.s3.credentials import credentials_of
from lib.transport.s3.errors import read_refusal, store_error

PIECE = 256 * 2**10
_UNLEASED_SECONDS = 900  # as long as a signature in a header is good
_LARGEST_ANSWER = 4 * 2**20
_CONNECTIONS = 32

Left = Callable[[], float | None]
"""Seconds for which may be written, None without limit; raises where the time is over."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (any case) and body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def etag(self) -> str:
        return self.headers.get("ETag", "")

    def error(self, location: str, doing: str) -> MacroscopeError:
        """The named error for an answer that is no success."""
        refusal = read_refusal(self.status, self.headers, self.body)
        if "Request has expired" in refusal.message:  # Amazon S3, MinIO, Ceph, SeaweedFS say it so
            return DestinationError(
                f"cannot {doing}: the request came after the lease that it was sent under",
                location=location,
                advice="Run again: finished work is kept",
                retryable=True,
            )
        return store_error(refusal, location, doing)


class SignedRequests:
    """Sends requests to one bucket. Thread-safe.

    Raises
    ------
    ConfigError, AccessDeniedError
        Profile or CA bundle cannot be used; there are no credentials.
    """

    def __init__(self, bucket: str, settings: StoreSettings) -> None:
        access = access_of(settings)
        self._region = access.region or DEFAULT_REGION
        self._url = bucket_url(bucket, access, self._region)
        self._credentials = credentials_of(access)
        self._timeout = urllib3.Timeout(
            connect=min(10.0, settings.timeout_seconds), read=settings.timeout_seconds
        )
        self._pool = _new_pool(proxy_for(self._url), access.ca_bundle)
        self._ahead = 0.0  # seconds by which this machine's clock is ahead of the server's

    def send(
        self,
        method: str,
        key: str,
        left: Left,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        views: list[memoryview] | None = None,
        document: bytes | None = None,
    ) -> Answer:
        """Send one request and read its answer, whatever its status.

        Parameters
        ----------
        key
            Inside the bucket, prefix included; ``""`` is the bucket itself.
        left
            Asked before anything is sent, and before each piece of the body.
        views
            Bytes to store, or some of them. Their SHA-256 goes with them, and the server compares.
        document
            What a POST asks for, in place of `views`.

        Raises
        ------
        urllib3.exceptions.HTTPError, OSError
            The way to the server broke.
        """
        sent = {"User-Agent": USER_AGENT, **(headers or {})}
        body = views or ([memoryview(document)] if document else [])
        size = sum(view.nbytes for view in body)
        if views is not None:
            digest = hashlib.sha256()
            for view in views:
                digest.update(view)
            sent["x-amz-checksum-sha256"] = base64.b64encode(digest.digest()).decode()
        now = (
            self.now()
        )  # first: a pause before the next line ends the signature earlier, not later
        seconds = left()
        path = f"{self._url}/{quote(key)}" if key else f"{self._url}/"
        asked = path + (f"?{urlencode(query, quote_via=quote)}" if query else "")
        signed = self._signed(method, asked, sent, now, seconds)
        if size:
            sent["Content-Length"] = str(size)
        elif method in ("PUT", "POST"):
            sent["Content-Length"] = "0"
        with closing(_pieces(body, left)) as pieces:  # whatever happens, no view is kept
            answer = self._pool.request(
                method,
                signed,
                body=pieces if size else None,
                headers=sent,
                timeout=self._timeout,
                retries=False,
                redirect=False,
                preload_content=False,
            )
        try:
            data = answer.read(_LARGEST_ANSWER)
        finally:
            answer.release_conn()
        self._note_time(answer.headers.get("Date"))
        return Answer(answer.status, answer.headers, data)

    def now(self) -> datetime:
        """The time by the server's clock, to about a second, once it has answered."""
        return datetime.fromtimestamp(time.time() - self._ahead, UTC)

    def _signed(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        now: datetime,
        seconds: float | None,
    ) -> str:
        """The address with a signature that ends when the lease does, or up to two seconds later.

        Later by that much is safe: whoever takes over waits longer, and still has all of its work
        to do. Earlier would refuse the last requests of a short lease.
        """
        if self._credentials is None:
            return url
        expires = _UNLEASED_SECONDS if seconds is None else max(1, math.ceil(seconds) + 1)
        request = AWSRequest(method, url, headers=dict(headers))
        frozen = self._credentials.get_frozen_credentials()
        _UntilThen(frozen, self._region, now, expires).add_auth(request)
        return str(request.url)

    def _note_time(self, date: str | None) -> None:
        if date:
            try:
                self._ahead = time.time() - parsedate_to_datetime(date).timestamp()
            except (ValueError, TypeError):
                return


class _UntilThen(S3SigV4QueryAuth):  # type: ignore[misc]
    """botocore's signature in the query string, dated by the server's clock and not by ours."""

    def __init__(self, credentials: Any, region: str, now: datetime, expires: int) -> None:
        super().__init__(credentials, "s3", region, expires=expires)
        self._now = now

    def add_auth(self, request: AWSRequest) -> None:
        request.context["timestamp"] = self._now.strftime(SIGV4_TIMESTAMP)
        self._modify_request_before_signing(request)
        to_sign = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(request, self.signature(to_sign, request))


def _pieces(views: list[memoryview], left: Left) -> Generator[Any, None, None]:
    for view in views:
        for start in range(0, view.nbytes, PIECE):
            left()
            with view[start : start + PIECE] as piece:
                yield piece


def _new_pool(proxy: str | None, ca_bundle: str | None) -> urllib3.PoolManager:
    """Connections that a stop does not cut: a run that is stopping still writes its record."""
    given: dict[str, Any] = {
        "maxsize": _CONNECTIONS,
        "ssl_context": tls_context(ca_bundle),
        "retries": False,
    }
    return urllib3.ProxyManager(proxy, **given) if proxy else urllib3.PoolManager(**given)
