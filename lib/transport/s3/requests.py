"""One request to an S3 server: signed, bounded, counted, and refused by the server's own code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from lib.concurrency import interrupt
from lib.errors import AccessDeniedError
from lib.transport import answers, bounds
from lib.transport.asking import Exchanges
from lib.transport.connections import USER_AGENT, new_pool
from lib.transport.counters import ServiceCounters
from lib.transport.environment import proxy_for
from lib.transport.limits import Limiter, Limits
from lib.transport.s3.address import S3Access, bucket_url
from lib.transport.s3.credentials import credentials_of, region_of
from lib.transport.s3.errors import read_refusal

_REFUSAL_BYTES = 64 * bounds.KIB
_NO_RETRIES = urllib3.Retry(False, redirect=False)
_BLOCK = 256 * bounds.KIB


class S3Requests(Exchanges):
    """Requests to one bucket. Thread-safe.

    Redirects are not followed: one from S3 says that the bucket lies in another region, and what
    is signed for one host is not valid at another.

    Raises
    ------
    ConfigError, AccessDeniedError
        Profile or CA bundle cannot be used; there are no credentials.
    """

    def __init__(
        self,
        archive: str,
        bucket: str,
        access: S3Access,
        limits: Limits,
        limiter: Limiter,
        counters: ServiceCounters,
    ) -> None:
        super().__init__(archive, limits, limiter, counters)
        self._credentials = credentials_of(access)
        self._region = region_of(access)
        self._url = bucket_url(bucket, access, self._region)
        proxy = proxy_for(self._url)
        self._pool = new_pool(limits.connections, proxy, access.ca_bundle)
        # A pool of one host saves a tenth of a small request's time; proxies want to see the host.
        self._origin = self.server if proxy is None else ""
        self._host = self._pool.connection_from_url(self._origin) if self._origin else None
        self._timeout = urllib3.Timeout(
            connect=limits.connect_timeout_s, read=limits.read_timeout_s
        )

    @property
    def server(self) -> str:
        """Scheme, host and port that requests go to."""
        return urlsplit(self._url)._replace(path="").geturl()

    def close(self) -> None:
        """Close all connections; later requests open new ones."""
        self._pool.clear()
        if self._origin:
            self._host = self._pool.connection_from_url(self._origin)

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
        """One answer of status 200 or 206, read inside the block.

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
        with self.exchange(url) as meter:
            self.send_one()
            answer = (self._host or self._pool).urlopen(
                method,
                asked.removeprefix(self._origin),
                headers=self._signed(method, asked, headers or {}),
                timeout=self._timeout,
                retries=_NO_RETRIES,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                meter.expect(
                    bounds.framed(bounds.DOCUMENT_BYTES if transfer is None else transfer),
                    document=transfer is None,
                )
                if answer.status not in {200, 206}:
                    # its end matters to nobody, and may never come
                    meter.expect(2 * _REFUSAL_BYTES, document=True)
                    body = b"" if method == "HEAD" else answer.read(_REFUSAL_BYTES)
                    if answer.status == 407:  # not the store, but a proxy on the way
                        raise answers.status_error(407, answer.headers, url, "")
                    raise read_refusal(answer.status, answer.headers, body)
                yield answer
            finally:
                answer.close()
                answer.release_conn()

    def body(self, answer: urllib3.BaseHTTPResponse, most: int) -> bytes:
        """The whole body of an answer.

        Raises
        ------
        BadAnswerError
            It is longer than `most` bytes.
        """
        length = answer.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit():
            if int(length) > most:
                raise bounds.too_long(most)
            data = answer.read()
            self._counters.received(len(data))
            return data
        pieces = bytearray()
        while piece := answer.read(min(_BLOCK, most + 1 - len(pieces))):
            interrupt.check()
            self._counters.received(len(piece))
            pieces += piece
            if len(pieces) > most:
                raise bounds.too_long(most)
        return bytes(pieces)

    def _signed(self, method: str, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        if self._credentials is None:
            return sent
        from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
        from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

        try:
            frozen = self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise AccessDeniedError(
                "the credentials could not be renewed",
                advice="Log in again, or check the role of this machine or pod",
            ) from error
        request = AWSRequest(method, url, headers=sent)
        S3SigV4Auth(frozen, "s3", self._region).add_auth(request)
        return dict(request.headers.items())
