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
import ssl
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPResponse, IncompleteRead, RemoteDisconnected
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from urllib3.util.wait import wait_for_read

from lib.concurrency.cancel import wake_on_stop
from lib.transport import bounds

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

REFUSAL_BYTES = 64 * bounds.KIB
"""Read of an answer that is no success; what more it says matters to nobody, and may never end."""
_PIECE = 256 * bounds.KIB
_HEAD = 32 * bounds.KIB
_RECORDS = 128 * bounds.KIB
_PORTS = {"http": 80, "https": 443}


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
    """Where a thread receives heads (with what comes along of their bodies), and TLS records."""

    def __init__(self) -> None:
        self.bytes = bytearray(_HEAD)
        self.view = memoryview(self.bytes)
        self.records = memoryview(bytearray(_RECORDS))


_scratch = _Scratch()


class _Tls:
    """TLS over a socket, of which many records are received at once.

    An `ssl.SSLSocket` asks the system twice for each record of 16 KiB, and Python once: that takes
    three times as long.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._sock, self._in, self._out = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=host)
        while True:
            try:
                self._tls.do_handshake()
                self._flush()
                return
            except ssl.SSLWantReadError:
                self._flush()
                if not self._fill():
                    raise ConnectionResetError("the server ended the handshake") from None

    @property
    def pending(self) -> bool:
        """Whether something has come that nobody asked for yet."""
        return bool(self._in.pending or self._tls.pending())

    def sendall(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def recv_into(self, buffer: WriteableBuffer) -> int:
        """As many bytes as have come, at least one; 0 at the end."""
        view, count = memoryview(buffer), 0
        while count < len(view):
            try:
                got: int = self._tls.read(len(view) - count, view[count:])  # type: ignore[assignment]
            except ssl.SSLWantReadError:
                if count or not self._fill():
                    return count
                continue
            except ssl.SSLZeroReturnError:
                return count
            if not got:
                return count
            count += got
        return count

    def _fill(self) -> int:
        records = _scratch.records
        count = self._sock.recv_into(records)
        self._in.write(records[:count])
        return count

    def _flush(self) -> None:
        if self._out.pending:
            self._sock.sendall(self._out.read())


class Line:
    """One connection, or the place for one; for one thread at a time."""

    __slots__ = ("_sock", "wire")

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        self.wire: socket.socket | _Tls | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection on which nothing has come since: no end, no rest."""
        if self._sock is None or (isinstance(self.wire, _Tls) and self.wire.pending):
            return False
        return not wait_for_read(self._sock, timeout=0.0)

    def open(
        self, host: str, port: int, context: ssl.SSLContext | None, connect_s: float, read_s: float
    ) -> None:
        self.close()
        self._sock = sock = socket.create_connection((host, port), connect_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wake_on_stop(sock)
        self.wire = sock if context is None else _Tls(sock, context, host)
        sock.settimeout(read_s)

    def close(self) -> None:
        sock, self._sock, self.wire = self._sock, None, None
        if sock is not None:
            sock.close()


class Wire:
    """GETs from one server, over connections that are kept. Thread-safe.

    Parameters
    ----------
    server
        ``scheme://host[:port]``.
    context
        What its certificate is held against; None for plain HTTP.
    connect_s, read_s
        Seconds to wait for a connection, and for the next byte.
    most
        Connections that are kept while nobody uses them.
    """

    def __init__(
        self,
        server: str,
        context: ssl.SSLContext | None,
        connect_s: float,
        read_s: float,
        most: int,
    ) -> None:
        parts = urlsplit(server)
        default = _PORTS[parts.scheme]
        self._named = parts.netloc.lower().removesuffix(f":{default}")
        self._address = (parts.hostname or "", parts.port or default)
        if parts.scheme == "https" and context is None:
            raise ValueError("a certificate is to be held against nothing")
        self._context = context if parts.scheme == "https" else None
        self._connect_s, self._read_s = connect_s, read_s
        self._idle: deque[Line] = deque()
        self._most = most

    def close(self) -> None:
        """Close the connections that nobody uses; later requests open new ones."""
        while self._idle:
            self._idle.pop().close()

    def take(self) -> Line:
        """A connection, for one thread, until it is put back."""
        try:
            return self._idle.pop()
        except IndexError:
            return Line()

    def put_back(self, line: Line) -> None:
        """Leave a connection to others."""
        if len(self._idle) < self._most:
            self._idle.append(line)
        else:
            line.close()

    def get(
        self, line: Line, target: str, headers: Mapping[str, str], meter: bounds.Meter, most: int
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
        lines = [f"GET {target} HTTP/1.1", f"Host: {self._named}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            if not line.is_open:
                line.open(*self._address, self._context, self._connect_s, self._read_s)
            assert line.wire is not None
            line.wire.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            answer = _receive(line.wire, meter, most)
        except BaseException:
            line.close()
            raise
        if not answer.lasting:
            line.close()
        return answer


def _receive(sock: socket.socket | _Tls, meter: bounds.Meter, most: int) -> Answer:
    scratch, size, end = _scratch.view, 0, -1
    meter.expect(bounds.HEADER_BYTES, document=True)
    while end < 0 and size < _HEAD:
        count = meter.receive_into(sock, scratch[size:])
        if not count and size:  # http.client would take the end for the head's own
            raise IncompleteRead(b"")
        if not count:
            raise RemoteDisconnected("the server ended the connection without an answer")
        size += count
        end = _scratch.bytes.find(b"\r\n\r\n", max(0, size - count - 3), size)
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

    def __init__(self, sock: socket.socket | _Tls, meter: bounds.Meter, came: bytes) -> None:
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


def _by_http_client(
    sock: socket.socket | _Tls, meter: bounds.Meter, came: bytes, most: int
) -> Answer:
    file = io.BufferedReader(_Rest(sock, meter, came))
    # closed here: what it cannot close in its order, the collector tells stderr from Python 3.14 on
    with HTTPResponse(SimpleNamespace(makefile=lambda mode: file), method="GET") as response:  # type: ignore[arg-type]
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
