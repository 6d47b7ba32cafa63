"""Servers on the loopback that send without end, or a byte at a time: every read has a bound."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.archives.registry import recommended_limits
from lib.errors import (
    BadAnswerError,
    IncompleteTransferError,
    MacroscopeError,
    RequestRefusedError,
    TransportError,
)
from lib.transport import bounds
from lib.transport.http import HttpClient, RemoteFile
from lib.transport.limits import Limits, limits_for
from lib.transport.listing import Walk
from lib.transport.session import Session

KIB, MIB = 1024, 1024**2
# What a file on a socket may take beyond what it is asked for: 128 KiB since Python 3.14.
AHEAD = max(64 * KIB, io.DEFAULT_BUFFER_SIZE)
ANSWERS = 6  # a request and the five redirects that are followed
ONCE = Limits(4, None, 60.0, 60.0, 1, 0.001, 64 * KIB)
Serve = Callable[[socket.socket], None]


class Wire:
    """A server of raw bytes: `serve` is called with each connection, in a thread."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}/f"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self.listener.accept()[0]
                threading.Thread(target=self.run, args=(connection,), daemon=True).start()

    def run(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.serve(connection)

    def close(self) -> None:
        self.listener.close()


@pytest.fixture
def wire() -> Iterator[Callable[[Serve], Wire]]:
    servers: list[Wire] = []

    def start(serve: Serve) -> Wire:
        servers.append(Wire(serve))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def session() -> Iterator[Session]:
    with Session("ebi", limits={"bounds": ONCE}) as session:
        yield session


@pytest.fixture
def client(session: Session) -> HttpClient:
    return session.http("bounds")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that were taken from sockets, read by read."""
    counts: list[int] = []
    took = bounds.Meter.took

    def counted(meter: bounds.Meter, count: int, waited_s: float) -> None:
        counts.append(count)
        took(meter, count, waited_s)

    monkeypatch.setattr(bounds.Meter, "took", counted)
    return counts


def endless(connection: socket.socket, piece: bytes) -> None:
    many = piece * max(1, 64 * KIB // len(piece))
    while True:
        connection.sendall(many)


def request(connection: socket.socket) -> bytes:
    """Read one request's header."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = connection.recv(64 * KIB)
        if not block:
            raise ConnectionError
        data += block
    return data


# --- HTTP: more than may come ---------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "piece", "most"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", bounds.HEADER_BYTES),
        (HEAD, b"X-Long: " + b"x" * 50_000 + b"\r\n", bounds.HEADER_BYTES),
        (HEAD, b"x", bounds.HEADER_BYTES),
        (HEAD + b"\r\n", b"[1],", 2 * MIB),
        (CHUNKED, b"1\r\n[\r\n", 16 * MIB),
        (CHUNKED, b"1;x" + b"x" * 50_000 + b"\r\n[\r\n", 16 * MIB),
        (CHUNKED + b"0\r\n", b"X-Trailer: x\r\n", 16 * MIB),
        (b"HTTP/1.1 400 Bad\r\nContent-Type: text/plain\r\n\r\n", b"no ", 64 * KIB),
        (b"HTTP/1.1 302 Found\r\nLocation: /g\r\n\r\n", b"no ", ANSWERS * AHEAD),
    ],
    ids=[
        "100 without end",
        "long header lines",
        "a header line without end",
        "a body",
        "chunks of a byte",
        "chunk extensions",
        "a trailer",
        "an error's text",
        "a redirect's body",
    ],
)
def test_a_document_without_end_is_left(
    client: HttpClient,
    wire: Callable[[Serve], Wire],
    taken: list[int],
    monkeypatch: pytest.MonkeyPatch,
    begin: bytes,
    piece: bytes,
    most: int,
) -> None:
    monkeypatch.setattr(bounds, "DOCUMENT_BYTES", MIB)

    def serve(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(begin)
        endless(connection, piece)

    with pytest.raises((BadAnswerError, RequestRefusedError, TransportError)):
        client.get_json(wire(serve).url, max_bytes=MIB)
    assert sum(taken) <= most + AHEAD


def announce(size: int | None) -> RemoteFile:
    return RemoteFile("", size, '"tag"')


@pytest.mark.parametrize("begin", [HEAD + b"\r\n", CHUNKED], ids=["until closed", "chunked"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_file_longer_than_announced_does_not_fill_the_disk(
    client: HttpClient,
    wire: Callable[[Serve], Wire],
    taken: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    begin: bytes,
    announced: bool,
    each_block: Any,
) -> None:
    monkeypatch.setattr(bounds, "UNANNOUNCED_BYTES", MIB)
    largest = 0
    part = tmp_path / "f.partial"

    def serve(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(begin)
        endless(connection, b"10000\r\n" + b"x" * 65536 + b"\r\n")

    def seen(count: int) -> None:
        nonlocal largest
        largest = max(largest, part.stat().st_size)

    remote = RemoteFile(wire(serve).url, MIB if announced else None, '"tag"')
    each_block(seen)
    with pytest.raises(IncompleteTransferError, match="more than the"):
        client.download(remote, tmp_path / "f")
    assert largest <= MIB
    assert sum(taken) <= 2 * MIB
    assert not (tmp_path / "f").exists()


def test_a_range_takes_no_more_than_its_length(
    client: HttpClient, wire: Callable[[Serve], Wire], taken: list[int]
) -> None:
    def serve(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(
            b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-99999/1000000\r\nConnection: close\r\n\r\n"
        )
        endless(connection, b"x")

    buffer = bytearray(100_000)
    remote = RemoteFile(wire(serve).url, 1_000_000)
    client.read_range_into(remote, 0, memoryview(buffer))
    assert buffer == b"x" * 100_000
    assert sum(taken) <= 100_000 + AHEAD


# --- FTP: more than may come ----------------------------------------------------------------


class Ftp:
    """As much of FTP as a client needs to ask for a listing or a file."""

    def __init__(
        self,
        data: Serve,
        *,
        replies: dict[str, Serve] | None = None,
        size: int = 1000,
    ) -> None:
        self.data, self.replies, self.size = data, replies or {}, size

    def __call__(self, connection: socket.socket) -> None:
        if "greeting" in self.replies:
            self.replies["greeting"](connection)
            return
        connection.sendall(b"220 here\r\n")
        with connection.makefile("rb") as file, socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            for line in file:
                word = line.split()[0].decode().upper()
                if word in self.replies:
                    self.replies[word](connection)
                elif word in {"RETR", "LIST", "MLSD"}:
                    connection.sendall(b"150 now\r\n")
                    with listener.accept()[0] as sock:
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        with contextlib.suppress(OSError):
                            self.data(sock)
                    connection.sendall(b"226 done\r\n")
                else:
                    connection.sendall(
                        {
                            "USER": b"230 in\r\n",
                            "FEAT": b"500 none\r\n",
                            "SIZE": f"213 {self.size}\r\n".encode(),
                            "MDTM": b"213 20200101000000\r\n",
                            "PASV": f"227 (127,0,0,1,{port >> 8},{port & 255})\r\n".encode(),
                        }.get(word, b"200 well\r\n")
                    )


def more(connection: socket.socket) -> None:
    connection.sendall(b"220-hello\r\n")
    endless(connection, b" and more\r\n")


def nothing(sock: socket.socket) -> None:
    pass


@pytest.mark.parametrize("where", ["greeting", "FEAT", "SIZE"])
def test_a_reply_without_end_is_left(
    session: Session, wire: Callable[[Serve], Wire], taken: list[int], where: str
) -> None:
    server = wire(Ftp(nothing, replies={where: more}))
    client = session.ftp("bounds", server.address)
    with pytest.raises(BadAnswerError, match="more than"):
        client.size("/f") if where == "SIZE" else client.entries("/")
    assert sum(taken) <= bounds.HEADER_BYTES + AHEAD


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b"-rw-r--r-- 1 a b 1 Jan 1 2020 f\r\n", "more than"),
        (b"x\r\n", "goes on after"),
    ],
    ids=["bytes", "entries"],
)
def test_a_listing_without_end_is_left(
    session: Session,
    wire: Callable[[Serve], Wire],
    taken: list[int],
    monkeypatch: pytest.MonkeyPatch,
    line: bytes,
    match: str,
) -> None:
    monkeypatch.setattr(bounds, "LISTING_BYTES", MIB)
    monkeypatch.setattr(bounds, "LISTING_ENTRIES", 100_000)
    server = wire(Ftp(lambda sock: endless(sock, line)))
    with pytest.raises(BadAnswerError, match=match):
        session.ftp("bounds", server.address).entries("/")
    assert sum(taken) <= MIB + 2 * AHEAD


def test_an_ftp_file_longer_than_its_size_does_not_fill_the_disk(
    session: Session, wire: Callable[[Serve], Wire], taken: list[int], tmp_path: Path
) -> None:
    server = wire(Ftp(lambda sock: endless(sock, b"x"), size=MIB))
    with pytest.raises(IncompleteTransferError, match="more than the announced"):
        session.ftp("bounds", server.address).download("/f", tmp_path / "f")
    assert sum(taken) <= 2 * MIB
    assert not (tmp_path / "f").exists()


# --- drips ----------------------------------------------------------------------------------


class Ticks:
    """A clock that goes on by half a second whenever it is read; a byte comes with each tick."""

    def __init__(self) -> None:
        self.times = itertools.count(0.0, 0.5)
        self.ticks = threading.Semaphore(0)

    def __call__(self) -> float:
        self.ticks.release()
        return next(self.times)

    def drip(self, sock: socket.socket, data: bytes) -> None:
        for byte in data:
            self.ticks.acquire()
            sock.sendall(bytes([byte]))


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    ticks = Ticks()
    monkeypatch.setattr(bounds, "clock", ticks)
    return ticks


def header(size: int) -> bytes:
    return HEAD + f"Content-Length: {size}\r\n\r\n".encode()


@pytest.mark.parametrize("where", ["header", "body"])
def test_a_document_that_drips_has_a_total_time(
    client: HttpClient, wire: Callable[[Serve], Wire], ticks: Ticks, where: str
) -> None:
    body = b"[" + b" " * 20_000 + b"]"

    def serve(connection: socket.socket) -> None:
        request(connection)
        if where == "body":
            connection.sendall(header(len(body)))
            ticks.drip(connection, body)
        else:
            ticks.drip(connection, HEAD + b"X-Drip: " + b"x" * 20_000 + b"\r\n\r\n")

    with pytest.raises(TransportError, match="not there within 600 s") as caught:
        client.get_json(wire(serve).url)
    assert caught.value.retryable


@pytest.mark.parametrize("way", ["download", "range", "whole"])
def test_a_transfer_that_drips_is_broken_off(
    client: HttpClient, wire: Callable[[Serve], Wire], ticks: Ticks, way: str, tmp_path: Path
) -> None:
    size = 20_000

    def serve(connection: socket.socket) -> None:
        request(connection)
        begin = header(size)
        if way == "range":
            span = f"Content-Range: bytes 0-{size - 1}/{size}\r\n\r\n"
            begin = b"HTTP/1.1 206 OK\r\n" + span.encode()
        connection.sendall(begin)
        ticks.drip(connection, b"x" * size)

    remote = RemoteFile(wire(serve).url, size)
    calls: dict[str, Callable[[], object]] = {
        "download": lambda: client.download(remote, tmp_path / "f"),
        "range": lambda: client.read_range_into(remote, 0, memoryview(bytearray(size))),
        "whole": lambda: client.read_exact_into(remote.url, memoryview(bytearray(size))),
    }
    with pytest.raises(TransportError, match="less than 16384 bytes a minute") as caught:
        calls[way]()
    assert caught.value.retryable
    assert next(ticks.times) < 1000


@pytest.mark.parametrize("where", ["greeting", "FEAT", "LIST", "RETR"])
def test_ftp_that_drips_is_broken_off(
    session: Session, wire: Callable[[Serve], Wire], ticks: Ticks, where: str, tmp_path: Path
) -> None:
    def reply(connection: socket.socket) -> None:
        ticks.drip(connection, b"220-" + b"x" * 7000 + b"\r\n" + b" x\r\n" * 3000 + b"220 y\r\n")

    def data(sock: socket.socket) -> None:
        ticks.drip(sock, b"-rw-r--r-- 1 a b 1 Jan 1 2020 f\r\n" * 300)

    server = wire(Ftp(data, replies={where: reply} if where in {"greeting", "FEAT"} else {}))
    client = session.ftp("bounds", server.address)
    floor = where == "RETR"
    expected = "less than 16384 bytes a minute" if floor else "not there within 600 s"
    with pytest.raises(MacroscopeError, match=expected):
        client.download("/f", tmp_path / "f") if floor else client.entries("/")


def test_pauses_that_the_time_out_allows_are_no_drip() -> None:
    meter = bounds.Meter(recommended_limits()["dvid"], 10 * MIB, document=False)
    for _ in range(9):
        meter.took(64 * KIB, 100.0)
    meter.took(1460, 100.0)
    meter.took(1460, 100.0)
    with pytest.raises(TransportError, match="bytes a minute"):
        meter.took(1460, 100.0)


def test_a_longer_time_out_gives_documents_longer_too() -> None:
    assert limits_for("dvid", {}, None).document_s == 600
    assert limits_for("dvid", {}, 10).document_s == 600
    assert limits_for("dvid", {}, 1000).document_s == 2000


# --- listings of every kind -----------------------------------------------------------------


def test_a_listing_says_when_it_cannot_be_true() -> None:
    for pages, said in (
        ([(["a"], "t"), (["b"], "t")], "where it was before"),
        ([(["a"], "t"), (["a"], "u")], "same keys again"),
        ([([], str(n)) for n in range(200)], "pages in a row are empty"),
        ([([str(n)], str(n)) for n in range(200)], "more than 150 keys"),
    ):
        walk = Walk(most=150)
        with pytest.raises(BadAnswerError, match=said):  # noqa: PT012
            for names, token in pages:
                walk.take(names, token)
    walk = Walk()
    for number in range(50):  # deleted objects leave pages empty
        walk.take([] if number % 2 else [str(number)], str(number))
    walk.take([], None)


def test_a_gcs_listing_without_end_is_left(session: Session, wire: Callable[[Serve], Wire]) -> None:
    numbers = itertools.count()

    def serve(connection: socket.socket) -> None:
        while True:
            request(connection)
            token = next(numbers)
            body = json.dumps({"items": [], "prefixes": ["a/"], "nextPageToken": str(token)})
            header = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(header.encode() + body.encode())

    reader = session.gcs("bounds", "bucket", endpoint_url=f"http://{wire(serve).address}")
    with pytest.raises(BadAnswerError, match="same keys again"):
        list(reader.list_all("x"))
