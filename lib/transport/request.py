"""One HTTP request, politely: limits, redirects, status codes and network failures."""

from __future__ import annotations

import http.client
import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar
from urllib.parse import urljoin

import requests
import urllib3.exceptions

from lib.concurrency import cancel as stopping
from lib.errors import MacroscopeError, RequestRefusedError, TransportError
from lib.safety import check_public_redirect, redact
from lib.transport import bounds, responses
from lib.transport.bounds import Meter, ServiceCounters
from lib.transport.connections import new_session
from lib.transport.environment import ReachPolicy, proxies_for
from lib.transport.limits import Limiter, Limits
from lib.transport.retry import call_with_retry

T = TypeVar("T")
Params = Mapping[str, str | int | float]

_MAX_REDIRECTS = 5
_tries_before: ContextVar[int] = ContextVar("tries_before", default=0)
_NETWORK_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)


class Exchanges:
    """What requests to one service have in common, whatever sends them."""

    def __init__(
        self,
        archive: str | None,
        limits: Limits,
        limiter: Limiter | None,
        counters: ServiceCounters,
        *,
        outlives_stop: bool = False,
    ) -> None:
        self._archive = archive
        self._limits = limits
        self._limiter = limiter
        self._counters = counters
        self._outlives_stop = outlives_stop

    @property
    def limits(self) -> Limits:
        """How patient these requests are."""
        return self._limits

    @property
    def counters(self) -> ServiceCounters:
        """What was asked so far."""
        return self._counters

    def retry(self, method: str, url: str, once: Callable[[], T]) -> T:
        """Call `once` as often as the limits allow, more patient each time; errors say where."""
        tries = itertools.count()

        def one_try() -> T:
            before = _tries_before.set(next(tries))
            try:
                return once()
            finally:
                _tries_before.reset(before)

        try:
            return call_with_retry(
                self._limits, one_try, what=f"{method} {redact(url)}", counters=self._counters
            )
        except MacroscopeError as error:
            error.located(archive=self._archive, location=redact(url))
            raise

    @contextmanager
    def exchange(self, url: str) -> Iterator[Meter]:
        """One request and its answer: a slot, a meter, counts, and names for what goes wrong."""
        meter = Meter(self._limits, bounds.HEADER_BYTES, document=True)
        slot = nullcontext() if self._limiter is None else self._limiter.slot()
        with slot, bounds.metered(meter):
            self._counters.begin(requests=0)
            try:
                yield meter
            except TransportError:
                self.check()  # a stop cuts answers short
                raise
            except MacroscopeError:
                raise
            except _NETWORK_ERRORS as error:
                self.check()
                raise responses.network_error(error, url) from None
            finally:
                self._counters.end()

    def send_one(self, kind: str = "") -> None:
        """Wait for the request's turn and count it."""
        if self._limiter is not None:
            self._limiter.pace()
        self.check()
        self._counters.sent(kind)

    def check(self) -> None:
        """Raise `StoppedError` where a stop, or the end of a result's use, ends requests."""
        if not self._outlives_stop:
            stopping.check()


class Requester(Exchanges):
    """Sends requests to one service; `HttpClient` makes sense of the answers."""

    def __init__(
        self,
        archive: str,
        limits: Limits,
        limiter: Limiter,
        counters: ServiceCounters,
        *,
        allowed_hosts: Collection[str] = (),
        reach: ReachPolicy | None = None,
    ) -> None:
        super().__init__(archive, limits, limiter, counters)
        self._allowed_hosts = frozenset(allowed_hosts)
        self._reach = reach
        self._session = new_session(limits.connections, reach.check_peer if reach else None)

    def close(self) -> None:
        """Close all connections; later calls open new ones."""
        self._session.close()

    @contextmanager
    def ask(
        self,
        method: str,
        url: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        allow: tuple[int, ...] = (),
        transfer: int | None = None,
    ) -> Iterator[requests.Response]:
        """One answer of status 200 or 206, or one in `allow`; its body is read inside the block.

        Parameters
        ----------
        transfer
            Bytes of the file or range that is to come, at whatever pace above the floor; None for
            a document, which must come within a time.
        """
        with self.exchange(url) as meter:
            response = self._follow(method, url, params, headers, data, meter)
            try:
                most = bounds.DOCUMENT_BYTES if transfer is None else transfer
                meter.expect(bounds.framed(most), document=transfer is None)
                if transfer is not None and self._limits.stall_s is not None:
                    answer: Any = getattr(response.raw, "_original_response", None)
                    if answer is not None:  # it has not ended yet
                        answer.wait_at_most(self._patience_s(self._limits.flow_s))
                if response.status_code not in {200, 206, *allow}:
                    body = _excerpt(response)
                    raise responses.status_error(response.status_code, response.headers, url, body)
                yield response
            finally:
                response.close()

    def _follow(
        self,
        method: str,
        url: str,
        params: Params | None,
        headers: Mapping[str, str] | None,
        data: bytes | None,
        meter: Meter,
    ) -> requests.Response:
        target = url
        for _ in range(_MAX_REDIRECTS + 1):
            meter.expect(bounds.HEADER_BYTES, document=True)
            self.send_one()
            began = time.monotonic()
            response = self._session.request(
                method,
                target,
                params=params,
                headers=headers,
                data=data,
                stream=True,
                allow_redirects=False,
                timeout=(
                    self._limits.connect_timeout_s,
                    self._patience_s(self._limits.patience_s),
                ),
                proxies=proxies_for(target),
            )
            if self._limiter is not None:
                self._limiter.answered_after(time.monotonic() - began)
            step = response.headers.get("Location")
            if response.status_code not in {301, 302, 303, 307, 308} or not step:
                return response
            response.close()
            if data is not None and response.status_code not in {307, 308}:
                break
            params, target = None, urljoin(target, step)
            if self._reach is None:
                check_public_redirect(url, target, self._allowed_hosts)
            else:
                self._reach.check_redirect(url, target)
        raise RequestRefusedError("the server redirects without end", location=redact(url))

    def _patience_s(self, most: Callable[[int], float]) -> float:
        """Seconds to wait for the next byte: in a first try, as long as answers usually take."""
        tries_before = _tries_before.get()
        patience = most(tries_before)
        if self._limits.stall_s is None or tries_before or self._limiter is None:
            return patience
        return min(patience, self._limiter.soon_s)


def _excerpt(response: requests.Response) -> str:
    """The start of a body that is meant to be read by people, such as DVID's error texts."""
    kind = response.headers.get("Content-Type", "text/plain").lower()
    if not kind.startswith(("text/plain", "application/json")):
        return ""
    try:
        block: bytes = response.raw.read(4 * responses.EXCERPT_CHARS)
    except _NETWORK_ERRORS:
        return ""
    return block.decode("utf-8", "replace")
