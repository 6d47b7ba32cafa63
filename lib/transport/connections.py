"""requests, set up for archives: no cookies, no netrc, no retries, sockets that wake on a stop."""

from __future__ import annotations

import logging
import os
import re
import socket
from functools import lru_cache
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from lib.concurrency.interrupt import wake_on_stop
from lib.transport.bounds import metered_file

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


class _Connection(HTTPConnection):
    response_class = _Answer

    def connect(self) -> None:
        super().connect()
        if self.sock is not None:
            wake_on_stop(self.sock)


class _SecureConnection(HTTPSConnection):
    response_class = _Answer

    def connect(self) -> None:
        super().connect()
        if self.sock is not None:
            wake_on_stop(self.sock)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: else requests reads a redirect's whole body, even when it is not to follow it."""
        return None


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from looking for a login of its own, in netrc for instance."""
    return request


def new_session(connections: int) -> requests.Session:
    """A session for `connections` requests in flight to one service."""
    session = _Session()
    session.trust_env = False  # read once below, not once a request
    session.verify = (
        os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    )
    session.auth = _no_login
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    adapter = _Adapter(pool_connections=4, pool_maxsize=max(1, connections), max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def proxies_for(url: str) -> dict[str, str]:
    """The proxies that the environment names for a URL's host."""
    parts = urlsplit(url)
    return dict(_proxies(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"))


@lru_cache(maxsize=64)
def _proxies(root: str) -> dict[str, str]:
    return dict(get_environ_proxies(root))
