"""What HTTP answers mean: status codes, headers, network failures and index pages."""

from __future__ import annotations

import base64
import binascii
import errno
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import IncompleteRead
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import requests
import urllib3.exceptions

from lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    IncompleteTransferError,
    MacroscopeError,
    NotFoundError,
    ProxyError,
    RequestRefusedError,
    SourceChangedError,
    TransportError,
)
from lib.safety import redact, redact_text
from lib.transport.environment import proxy_for, proxy_in_words
from lib.transport.listing import FileIdentity, plain_tag
from lib.transport.retry import ask_to_wait, parse_retry_after

EXCERPT_CHARS = 200
_TRANSIENT = {408, 421, 425, 429}
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What HEAD says about a file.

    `size` is bytes, or None where the server does not say. `publisher_checksum` (``md5:...``)
    comes from ``Content-MD5``, which few servers send.
    """

    url: str
    size: int | None
    etag: str | None = None
    last_modified: str | None = None
    publisher_checksum: str | None = None

    def facts(self) -> FileIdentity:
        """What tells this file from another one at the same address."""
        return FileIdentity(self.size, self.etag, self.last_modified, self.publisher_checksum)

    def identity(self) -> dict[str, str | int | None]:
        """What must not change between two halves of a transfer."""
        return {
            "url": redact(self.url),
            "size": self.size,
            "etag": self.etag,
            "last_modified": self.last_modified,
        }


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One entry of a directory listing page; `name` without slashes.

    Attributes
    ----------
    modified
        ``index 2024-01-15 12:00``: as the page shows it, in the server's own time zone; None where
        it shows none.
    """

    name: str
    is_dir: bool
    modified: str | None = None


# --- headers --------------------------------------------------------------------------------


def content_length(headers: Mapping[str, str]) -> int | None:
    """``Content-Length`` in bytes, or None where absent or unreadable."""
    text = headers.get("Content-Length", "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None] | None:
    """First byte, last byte and total size of a 206 answer, or None where unreadable."""
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None:
        return None
    total = None if match[3] == "*" else int(match[3])
    return int(match[1]), int(match[2]), total


def is_html(headers: Mapping[str, str]) -> bool:
    """Whether the answer calls itself a web page."""
    kind = headers.get("Content-Type", "").lower()
    return kind.startswith(("text/html", "application/xhtml"))


def is_stored_page(headers: Mapping[str, str]) -> bool:
    """Whether a web page is a file of the server's own: what a proxy makes up has neither."""
    return is_html(headers) and bool(headers.get("ETag") or headers.get("Last-Modified"))


def remote_file(url: str, headers: Mapping[str, str], size: int | None) -> RemoteFile:
    """The description of a file from the headers of an answer about it."""
    checksum = None
    try:
        digest = base64.b64decode(headers.get("Content-MD5", ""), validate=True)
        checksum = f"md5:{digest.hex()}" if len(digest) == 16 else None
    except (binascii.Error, ValueError):
        pass
    return RemoteFile(
        url=url,
        size=size,
        etag=plain_tag(headers.get("ETag")),
        last_modified=headers.get("Last-Modified"),
        publisher_checksum=checksum,
    )


# --- bodies ---------------------------------------------------------------------------------


def read_into(response: requests.Response, view: memoryview) -> int:
    """Bytes of a body, straight from its socket into `view`; 0 at its end.

    urllib3's own `readinto` reads into bytes of its own and copies them. It is still told what
    came, because it takes a body that ended early for an error, and its connection back.
    """
    raw = response.raw
    body: Any = raw._fp
    count: int = body.readinto(view)
    if raw.length_remaining is not None:
        raw.length_remaining -= count
    if body.isclosed():
        raw.read(1)
    return count


# --- failures -------------------------------------------------------------------------------


def status_error(status: int, headers: Mapping[str, str], url: str, body: str) -> MacroscopeError:
    """The error that a status outside 2xx stands for; `body` is the start of a plain answer."""
    where = redact(url)
    said = " ".join(redact_text(body).split())[:EXCERPT_CHARS]
    detail = f": {said}" if said else ""
    if status == 407:
        return ProxyError(
            f"{proxy_in_words(url)} wants a login (status 407)", location=where, retryable=False
        )
    if status in {401, 403}:
        return AccessDeniedError(f"the server refuses access (status {status})", location=where)
    if status in {404, 410}:
        return NotFoundError(
            f"the server has no such file or entry (status {status})", location=where
        )
    if status == 412:
        return SourceChangedError("the file changed on the server (status 412)", location=where)
    if status in _TRANSIENT or status >= 500:
        way = f", asked through {proxy_in_words(url)}" if proxy_for(url) else ""
        error = TransportError(f"the server failed for now (status {status}){way}", location=where)
        error.__dict__["status"] = status
        return ask_to_wait(error, parse_retry_after(headers.get("Retry-After")))
    if status < 400:
        return BadAnswerError(f"the server gave an unexpected status {status}", location=where)
    return RequestRefusedError(
        f"the server calls the request wrong (status {status}){detail}", location=where
    )


def network_error(error: BaseException, url: str) -> MacroscopeError:
    """The named form of what requests, urllib3, ssl or the socket raised."""
    where = redact(url)
    chain = list(_chain(error))

    def found(*kinds: type[BaseException]) -> BaseException | None:
        return next((link for link in chain if isinstance(link, kinds)), None)

    if found(
        requests.exceptions.InvalidURL,
        requests.exceptions.MissingSchema,
        requests.exceptions.InvalidSchema,
        urllib3.exceptions.LocationParseError,
    ):
        return RequestRefusedError("this is not an HTTP address", location=where)
    if found(requests.exceptions.ProxyError, urllib3.exceptions.ProxyError):
        return _proxy_error(chain, url)
    if found(urllib3.exceptions.NameResolutionError, socket.gaierror):
        return TransportError(
            "the host name does not resolve",
            location=where,
            advice="Check the host name and the network's DNS, then run again",
        )
    tls = found(ssl.SSLError)
    if tls is not None and not isinstance(tls, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        reason = getattr(tls, "verify_message", "") or getattr(tls, "reason", "") or "no reason"
        return TransportError(
            f"no secure connection: {reason}",
            location=where,
            retryable=False,
            advice="Check the server's certificate and the clock, or name its authority's PEM file "
            "in SSL_CERT_FILE",
        )
    if found(IncompleteRead, urllib3.exceptions.IncompleteRead):
        return IncompleteTransferError("the answer ended early", location=where)
    for link in chain:
        if isinstance(link, OSError) and link.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH}:
            return TransportError(
                "there is no route to the host",
                location=where,
                advice="Check the network, the proxy and the firewall, then run again",
            )
        if isinstance(link, ConnectionRefusedError):
            return TransportError(
                "the host refuses the connection",
                location=where,
                advice="Check address and port, and that the server runs; then run again",
            )
    # After the others: urllib3 counts every failed connection as a time-out.
    if found(TimeoutError, urllib3.exceptions.TimeoutError, requests.exceptions.Timeout):
        late = TransportError("the server did not answer in time", location=where)
        late.__dict__["timed_out"] = True
        return late
    return TransportError(f"the connection broke ({type(chain[-1]).__name__})", location=where)


def _proxy_error(chain: list[BaseException], url: str) -> ProxyError:
    """The error for a proxy that cannot be used: what it said, or what the way to it said."""
    refused = next((m for m in (_TUNNEL.search(str(link)) for link in chain) if m), None)
    if refused is not None:
        why = f"refuses the way to the host (status {refused[1]})"
    elif any(isinstance(link, socket.gaierror) for link in chain) or any(
        isinstance(link, urllib3.exceptions.NameResolutionError) for link in chain
    ):
        why = "has a name that does not resolve"
    elif any(isinstance(link, ConnectionRefusedError) for link in chain):
        why = "refuses the connection"
    elif any(isinstance(link, TimeoutError) for link in chain):
        why = "does not answer in time"
    else:
        why = f"broke the connection ({type(chain[-1]).__name__})"
    retryable = refused is None or refused[1].startswith("5")
    return ProxyError(f"{proxy_in_words(url)} {why}", location=redact(url), retryable=retryable)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        link = waiting.pop(0)
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [*link.args, getattr(link, "reason", None), link.__cause__, link.__context__]


# --- index pages ----------------------------------------------------------------------------


_PAGE_TIME = re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b")


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.targets: list[tuple[str, str | None]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._inside = True
            self.targets += [(value, None) for name, value in attrs if name == "href" and value]

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._inside = False

    def handle_data(self, data: str) -> None:
        """The first time behind a link belongs to it."""
        if self.targets and self.targets[-1][1] is None and not self._inside:
            found = _PAGE_TIME.search(data)
            if found is not None:
                self.targets[-1] = (self.targets[-1][0], f"index {found[0]}")


def parse_index(page: str, folder: str) -> list[IndexEntry]:
    """The entries of a directory page, in its order.

    Servers link an entry relatively (Apache, nginx, Caddy) or from the root of the host (IIS,
    Express, Jetty), directories with a slash at the end. What leads elsewhere, as to the parent or
    to the page in another order (``?C=N;O=D``), is dropped.

    Parameters
    ----------
    folder
        Address of the page, with a slash at the end.
    """
    parser = _Anchors()
    parser.feed(page)
    parser.close()
    here = urlsplit(folder)
    inside = unquote(here.path).rpartition("/")[0] + "/"
    entries: dict[str, IndexEntry] = {}
    for target, modified in parser.targets:
        if "?" in target or "#" in target:
            continue
        try:
            link = urlsplit(urljoin(folder, target.strip()))
        except ValueError:
            continue
        path = unquote(link.path)
        if link.netloc != here.netloc or not path.startswith(inside):
            continue
        name = path.removeprefix(inside).removesuffix("/")
        if link.scheme in ("http", "https") and _is_name(name):
            entries.setdefault(name, IndexEntry(name, path.endswith("/"), modified))
    return list(entries.values())


def _is_name(name: str) -> bool:
    return name not in {"", ".", ".."} and "/" not in name and "\0" not in name
