"""HTTP connections: read within bounds, woken by a stop, without cookies, netrc or retries."""

from __future__ import annotations

import logging
import re
import socket
import ssl
from collections.abc import Callable
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_auth_from_url
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import make_headers

from lib.concurrency.cancel import wake_on_stop
from lib.transport.bounds import metered_file
from lib.transport.environment import tls_context

USER_AGENT = "macroscope/0.1"
_QUERY = re.compile(r"\?[^\s\"')]+")


def _without_queries(record: logging.LogRecord) -> bool:
    """Cut the query strings out of a log line: they may be signatures. Keeps the line."""
    record.msg, record.args = _QUERY.sub("?...", record.getMessage()), ()
    return True


# urllib3 logs each request with its whole address at DEBUG.
logging.getLogger("urllib3.connectionpool").addFilter(_without_queries)


class _Answer(HTTPResponse):
    """An answer that is read within bounds, its status line, header and trailer included."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = metered_file(self.fp)
        self._sock = sock

    def wait_at_most(self, seconds: float) -> None:
        """Another time-out for each further read; the next request sets its own."""
        self._sock.settimeout(seconds)


class _AtOnce(HTTPConnection):
    """Sends the head of a request with the first piece of its body, in one call of the system.

    A writer that is paused between the two has then begun nothing: what it sends when it goes on is
    late from its first byte, and refused by the end of its signature.

    A request that asks for the end of its connection is the last on it, whether or not the server's
    answer says so: another one would meet the end.
    """

    _head, _holding, _last = b"", False, False

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        self._last = False
        super().putrequest(*args, **kwargs)

    def putheader(self, header: Any, *values: Any) -> None:
        if header == "Connection" and "close" in values:
            self._last = True
        super().putheader(header, *values)

    def endheaders(self, message_body: Any = None, *, encode_chunked: bool = False) -> None:
        if self.sock is None:  # urllib3 sets the read time-out of a connection that is there by now
            self.connect()
        self._holding = True
        try:
            super().endheaders(message_body, encode_chunked=encode_chunked)
        finally:
            self._holding = False

    def send(self, data: Any) -> None:
        if self._holding:
            self._head += data
            return
        head, self._head = self._head, b""
        super().send(head + bytes(data) if head else data)

    def getresponse(self) -> Any:
        if self._head:
            self.send(b"")
        response = super().getresponse()
        if self._last and self.sock is not None:  # the response holds what it reads from
            sock, self.sock = self.sock, None
            sock.close()
        return response

    def close(self) -> None:
        self._head = b""
        super().close()


class _Bounded(_AtOnce):
    response_class = _Answer


class _BoundedSecure(_AtOnce, HTTPSConnection):
    response_class = _Answer


class _Connection(_Bounded):
    def connect(self) -> None:
        super().connect()
        if self.sock is not None:
            wake_on_stop(self.sock)


class _SecureConnection(_BoundedSecure):
    def connect(self) -> None:
        super().connect()
        if self.sock is not None:
            wake_on_stop(self.sock)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _LastingPool(HTTPConnectionPool):
    ConnectionCls = _Bounded


class _LastingSecurePool(HTTPSConnectionPool):
    ConnectionCls = _BoundedSecure


_POOLS = {"http": _Pool, "https": _SecurePool}
_LASTING_POOLS = {"http": _LastingPool, "https": _LastingSecurePool}


def new_pool(
    connections: int, proxy: str | None, trusted: ssl.SSLContext | None, *, woken: bool = True
) -> urllib3.PoolManager:
    """Connections without requests' comforts, for many small requests.

    Parameters
    ----------
    proxy
        Its address, with credentials where it wants some; None goes straight.
    trusted
        What certificates are held against; None for plain HTTP.
    woken
        Whether a stop cuts reads short.
    """
    given: dict[str, Any] = {
        "maxsize": max(1, connections),
        "ssl_context": trusted,
        "retries": False,
    }
    manager: urllib3.PoolManager
    if proxy is None:
        manager = urllib3.PoolManager(**given)
    else:
        user, password = get_auth_from_url(proxy)
        headers = make_headers(proxy_basic_auth=f"{user}:{password}") if user else None
        address = proxy if "://" in proxy else f"http://{proxy}"
        manager = urllib3.ProxyManager(address, proxy_headers=headers, **given)
    manager.pool_classes_by_scheme = _POOLS if woken else _LASTING_POOLS
    return manager


def _guarded_pools(check_peer: Callable[[str], None]) -> dict[str, type[HTTPConnectionPool]]:
    """Pools whose connections are told whom they reached, before anything is sent there."""

    def guarded(kind: Any) -> Any:
        class Guarded(kind):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()
                if self.sock is not None and not self.proxy:
                    check_peer(str(self.sock.getpeername()[0]))

        return Guarded

    class Pool(HTTPConnectionPool):
        ConnectionCls = guarded(_Connection)

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = guarded(_SecureConnection)

    return {"http": Pool, "https": SecurePool}


class _Adapter(HTTPAdapter):
    def __init__(self, check_peer: Callable[[str], None] | None, **kwargs: Any) -> None:
        self._pools = _POOLS if check_peer is None else _guarded_pools(check_peer)
        super().__init__(**kwargs)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=tls_context(), **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=tls_context(), **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: else requests reads a redirect's whole body, even when it is not to follow it."""
        return None


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from looking for a login of its own, in netrc for instance."""
    return request


def new_session(
    connections: int, check_peer: Callable[[str], None] | None = None
) -> requests.Session:
    """A session for `connections` requests in flight to one service.

    Parameters
    ----------
    check_peer
        Told the address of each peer that was reached without a proxy; raises where that may not
        be asked. A name may resolve to another address than when it was checked.
    """
    session = _Session()
    session.trust_env = False  # read once below, not once a request
    session.auth = _no_login
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    adapter = _Adapter(
        check_peer, pool_connections=4, pool_maxsize=max(1, connections), max_retries=0
    )
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
