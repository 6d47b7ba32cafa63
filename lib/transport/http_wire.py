"""GET after GET on kept connections, straight on their sockets.

http.client and urllib3 make an object of every header and copy each body: for an object of 170 KB
that takes longer than everything that is done with it. Here a request is one send, and an answer
is its head, of which few lines are looked at, and a body received into its own buffer. An answer
that is not as an object's usually is (no length, a transfer coding, an interim status, a folded or
a doubled line) is read by http.client, from its first byte.

RFC 9112 (HTTP/1.1), sections 4 to 6 and 9.
"""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPResponse, IncompleteRead, RemoteDisconnected
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lib.transport import bounds

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

REFUSAL_BYTES = 64 * bounds.KIB
"""Read of an answer that is no success; what more it says matters to nobody, and may never end."""
_PIECE = 256 * bounds.KIB
_HEAD = 32 * bounds.KIB
_PORTS = {"http": ":80", "https": ":443"}


class Headers(dict[str, str]):
    """Header fields, kept by their names in lower case; asked for in any."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


@dataclass(slots=True)
class Answer:
    """An answer that was read whole, or as far as it matters (`REFUSAL_BYTES`)."""

    status: int
    headers: Mapping[str, str]
    body: memoryview
    lasting: bool  # whether the connection can be used again


class _Scratch(threading.local):
    """Where a thread receives heads, with what comes along of their bodies."""

    def __init__(self) -> None:
        self.bytes = bytearray(_HEAD)
        self.view = memoryview(self.bytes)


class Wire:
    """GETs from one server, over connections of a urllib3 pool. Thread-safe.

    Parameters
    ----------
    pool
        Of that server alone, without a proxy.
    server
        ``scheme://host[:port]``.
    connect_s, read_s
        Seconds to wait for a connection, and for the next byte.
    """

    def __init__(self, pool: Any, server: str, connect_s: float, read_s: float) -> None:
        parts = urlsplit(server)
        self._host = parts.netloc.lower().removesuffix(_PORTS[parts.scheme])
        self.pool, self._connect_s, self._read_s = pool, connect_s, read_s
        self._scratch = _Scratch()

    def take(self) -> Any:
        """A connection, for one thread, until it is put back."""
        return self.pool._get_conn()

    def put_back(self, connection: Any) -> None:
        """Leave a connection to others."""
        self.pool._put_conn(connection)

    def get(
        self,
        connection: Any,
        target: str,
        headers: Mapping[str, str],
        meter: bounds.Meter,
        most: int,
    ) -> Answer:
        """One GET and its answer; where that fails, the connection is closed.

        Parameters
        ----------
        target
            Path and query, quoted.
        headers
            Without ``Host``.

        Raises
        ------
        BadAnswerError
            The body is longer than `most` bytes.
        TransportError, OSError, HTTPException
        """
        lines = [f"GET {target} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            if not connection.is_connected:  # never was, or the server has ended it meanwhile
                connection.close()
                connection.timeout = self._connect_s
                connection.connect()
                connection.sock.settimeout(self._read_s)
            connection.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            answer = self._receive(connection.sock, meter, most)
        except BaseException:
            connection.close()
            raise
        if not answer.lasting:
            connection.close()
        return answer

    def _receive(self, sock: socket.socket, meter: bounds.Meter, most: int) -> Answer:
        scratch, size, end = self._scratch.view, 0, -1
        meter.expect(bounds.HEADER_BYTES, document=True)
        while end < 0 and size < _HEAD:
            count = meter.receive_into(sock, scratch[size:])
            if not count and size:  # http.client would take the end for the head's own
                raise IncompleteRead(b"")
            if not count:
                raise RemoteDisconnected("the server ended the connection without an answer")
            size += count
            end = self._scratch.bytes.find(b"\r\n\r\n", max(0, size - count - 3), size)
        came = bytes(scratch[: end if end >= 0 else size])
        plain = None if end < 0 else _plain_head(came)
        if plain is None:
            return _by_http_client(sock, meter, bytes(scratch[:size]), most)
        status, headers, length = plain
        success = 200 <= status < 300
        if length > (most if success else REFUSAL_BYTES):
            if success:
                raise bounds.too_long(most)
            return _by_http_client(sock, meter, bytes(scratch[:size]), most)
        meter.expect(bounds.framed(length), document=not success)
        body = memoryview(bytearray(length))
        at = size - end - 4
        lasting = at <= length  # else nothing that follows on this connection can be believed
        at = min(at, length)
        body[:at] = scratch[end + 4 : end + 4 + at]
        while at < length:
            count = meter.receive_into(sock, body[at:])
            if not count:
                raise IncompleteRead(b"", length - at)
            at += count
        return Answer(status, headers, body.toreadonly(), lasting)


def _plain_head(head: bytes) -> tuple[int, Headers, int] | None:
    """Status, headers and length of the usual answer; None for any other."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    if (
        version != "HTTP/1.1"
        or not (code.isascii() and code.isdigit())
        or rest[3:4] not in ("", " ")
    ):
        return None
    status = int(code)
    headers = Headers()
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name in headers or name != name.strip():
            return None
        headers[name] = value.strip()
    length = headers.get("content-length", "")
    if (
        not (length.isascii() and length.isdigit())
        or status < 200
        or status in (204, 304)
        or "transfer-encoding" in headers
        or ("connection" in headers and headers["connection"].lower() != "keep-alive")
    ):
        return None
    return status, headers, int(length)


class _Rest(io.RawIOBase):
    """What has come of an answer, then what comes."""

    def __init__(self, sock: socket.socket, meter: bounds.Meter, came: bytes) -> None:
        self._sock, self._meter, self._came = sock, meter, memoryview(came)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if not self._came:
            return self._meter.receive_into(self._sock, buffer)
        view = memoryview(buffer)
        count = min(len(self._came), len(view))
        view[:count], self._came = self._came[:count], self._came[count:]
        return count


def _by_http_client(sock: socket.socket, meter: bounds.Meter, came: bytes, most: int) -> Answer:
    file = io.BufferedReader(_Rest(sock, meter, came))
    response = HTTPResponse(SimpleNamespace(makefile=lambda mode: file), method="GET")  # type: ignore[arg-type]
    response.begin()
    success = 200 <= response.status < 300
    meter.expect(bounds.framed(most if success else REFUSAL_BYTES), document=not success)
    if not success:
        body = response.read(REFUSAL_BYTES)
    else:
        if (response.length or 0) > most:
            raise bounds.too_long(most)
        pieces = bytearray()
        while piece := response.read(min(_PIECE, most + 1 - len(pieces))):
            pieces += piece
            if len(pieces) > most:
                raise bounds.too_long(most)
        if response.length:  # bytes that a server announced and did not send
            raise IncompleteRead(b"", response.length)
        body = bytes(pieces)
    whole = response.isclosed() and not response.will_close
    headers: Any = response.headers
    return Answer(response.status, headers, memoryview(body), lasting=whole)
