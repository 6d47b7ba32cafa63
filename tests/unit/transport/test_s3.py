"""Object stores: absent is what the store says is absent, and every other failure has a name."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import itertools
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import obstore
import pytest

from emulators.control import Control
from emulators.http_side import HttpSide
from emulators.s3 import S3Server
from emulators.s3_proxy import S3Proxy
from lib.concurrency import cancel as stopping
from lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    ConfigError,
    IncompleteTransferError,
    MacroscopeError,
    NotFoundError,
    RequestRefusedError,
    StoppedError,
    TransportError,
)
from lib.transport import bounds, http_wire
from lib.transport.limits import Limits
from lib.transport.md5 import Md5
from lib.transport.s3.reader import ObjectReader
from lib.transport.session import Session
from tests.kit.tls import TlsFront

BUCKET = "cosem-test"
QUICK = Limits(4, None, 20.0, 30.0, 3, 0.005)
# For what waits until it ends; a busy machine may let it end once more, and is tried again.
STALLED = replace(QUICK, read_timeout_s=1.0, tries=10)
PATIENT = Limits(4, None, 60.0, 60.0, 3, 0.005)
CHUNK = bytes(range(256)) * 1024
KEYS = {
    "set.zarr/.zgroup": b"{}",
    "set.zarr/s0/.zarray": b"{} ",
    "set.zarr/s0/0/0/0": CHUNK,
    "set.zarr/s0/0/0/1": CHUNK[::-1],
    "set.zarr/s0/1/0/0": b"x",
    "set.zarr/s0-other/0": b"y",
}


class Served:
    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.control = Control()
        self.side = HttpSide(self.control)
        self.side.start()
        proxy = S3Proxy(server.endpoint_url, server.buckets)
        port = self.side.add("s3", proxy)
        self.side.at_end(proxy.close)
        self.url = f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with S3Server(BUCKET) as server:
        store = server.store()
        for key, data in KEYS.items():
            obstore.put(store, key, data)
        served = Served(server)
        yield served
        served.side.stop()


@pytest.fixture
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    limits = STALLED if "stall" in request.node.name else QUICK
    with Session("openorganelle", limits={"s3": limits, "lying": PATIENT}) as session:
        yield session


@pytest.fixture
def reader(session: Session, served: Served, control: Control) -> ObjectReader:
    return session.objects("s3", f"s3://{BUCKET}/set.zarr", endpoint_url=served.url)


def gets(control: Control) -> int:
    return sum(line.method == "GET" for line in control.counters.log("s3"))


def test_an_object_is_read_whole(reader: ObjectReader, session: Session) -> None:
    data = reader.get("s0/0/0/1")
    assert data is not None
    assert bytes(data) == CHUNK[::-1]
    counts = session.counters.snapshot()["s3"]
    assert (counts["requests"], counts["bytes_received"]) == (1, len(CHUNK))
    assert counts["in_flight"] == 0


def test_anonymous_requests_are_not_signed(
    reader: ObjectReader, session: Session, served: Served
) -> None:
    signed = session.objects(
        "s3",
        f"s3://{BUCKET}",
        endpoint_url=served.url,
        anonymous=False,
        key="wrong",
        secret="wrong",
    )
    with pytest.raises(AccessDeniedError):
        signed.get("set.zarr/.zgroup")
    assert reader.get(".zgroup") is not None


def test_an_absent_key_is_none_after_one_request(reader: ObjectReader, control: Control) -> None:
    assert reader.get("s0/9/9/9") is None
    assert reader.get_range("s0/9/9/9", 0, 1) is None
    assert reader.head("s0/9/9/9") is None
    assert control.counters.tally("s3").requests == 3


def test_an_absent_bucket_is_an_error_and_not_an_absent_key(
    session: Session, served: Served, control: Control
) -> None:
    reader = session.objects("s3", "s3://no-such-bucket", endpoint_url=served.url)
    with pytest.raises(NotFoundError, match="no such bucket"):
        reader.get("x")
    with pytest.raises(NotFoundError, match="no such bucket"):
        list(reader.list_all())
    with pytest.raises(NotFoundError, match="no such bucket"):
        reader.list()


def test_a_range_is_exact(reader: ObjectReader) -> None:
    data = reader.get_range("s0/0/0/0", 1000, 500)
    assert data is not None
    assert bytes(data) == CHUNK[1000:1500]
    with pytest.raises(IncompleteTransferError):
        reader.get_range("s0/0/0/0", len(CHUNK) - 10, 20)


def test_head_tells_size_tag_and_date(reader: ObjectReader) -> None:
    info = reader.head("s0/0/0/0")
    assert info is not None
    assert (info.key, info.size) == ("s0/0/0/0", len(CHUNK))
    assert info.etag
    assert info.last_modified is not None
    assert info.last_modified.endswith("Z")


def test_a_level_lists_objects_and_prefixes(reader: ObjectReader) -> None:
    top = reader.list()
    assert [info.key for info in top.objects] == [".zgroup"]
    assert sorted(top.prefixes) == ["s0", "s0-other"]
    below = reader.list("s0")
    assert [(info.key, info.size) for info in below.objects] == [("s0/.zarray", 3)]
    assert sorted(below.prefixes) == ["s0/0", "s0/1"]
    assert len([*reader.list_all("s0")]) == 4


def test_everything_below_a_folder_is_listed(reader: ObjectReader) -> None:
    found = {key: size for key, size, _ in reader.list_all("s0")}
    expected = {k.removeprefix("set.zarr/"): len(v) for k, v in KEYS.items() if "/s0/" in k}
    assert found == expected
    assert list(reader.list_all("absent")) == []


def test_a_listing_of_many_pages_survives_faults(
    session: Session, served: Served, control: Control
) -> None:
    store = served.server.store()
    keys = [f"many/{number:05d}" for number in range(1100)]
    for key in keys:
        obstore.put(store, key, b"1")
    reader = session.objects("s3", f"s3://{BUCKET}", endpoint_url=served.url)
    control.add("status_503", "s3", skip=1, first_n=1)  # the second page fails once
    assert sorted(key for key, _, _ in reader.list_all("many")) == keys
    assert control.counters.tally("s3").requests == 3  # only the page that failed comes again


@pytest.mark.parametrize(
    "kind", ["status_503", "status_500", "reset", "short_body", "stall", "html_200"]
)
def test_a_passing_fault_is_overcome(
    reader: ObjectReader, control: Control, session: Session, kind: str
) -> None:
    control.add(kind, "s3", first_n=1, seconds=10)
    data = reader.get("s0/0/0/0")
    assert data is not None
    assert bytes(data) == CHUNK
    retries = session.counters.snapshot()["s3"]["retries"]
    assert retries == 1 or (kind == "stall" and retries > 1)


@pytest.mark.parametrize(
    ("kind", "error", "tries"),
    [
        ("status_503", TransportError, 3),
        ("status_500", TransportError, 3),
        ("short_body", IncompleteTransferError, 3),
        ("reset", TransportError, 3),
        ("html_200", BadAnswerError, 3),
        ("status_403", AccessDeniedError, 1),
    ],
)
def test_a_lasting_fault_is_never_background(
    reader: ObjectReader, control: Control, kind: str, error: type[MacroscopeError], tries: int
) -> None:
    control.add(kind, "s3")
    with pytest.raises(error) as caught:
        reader.get("s0/0/0/0")
    assert gets(control) == tries
    assert caught.value.archive == "openorganelle"
    assert caught.value.location == f"s3://{BUCKET}/set.zarr/s0/0/0/0"
    assert "Debug source" not in str(caught.value)


# What a bucket or an account in such a state answers: Amazon S3 API Reference, "Error responses".
STATES = {
    "clock": (403, "RequestTimeTooSkewed", AccessDeniedError, "this machine's clock is wrong"),
    "expired": (400, "ExpiredToken", AccessDeniedError, "the credentials have expired"),
    "glacier": (403, "InvalidObjectState", RequestRefusedError, "archive tier"),
    "payer": (400, "UserProjectMissing", AccessDeniedError, "requesters pay"),
    "key": (400, "KMS.DisabledException", AccessDeniedError, "the key that encrypts"),
    "region": (301, "PermanentRedirect", RequestRefusedError, "another region, eu-west-1"),
    "bare region": (301, "", RequestRefusedError, "another region, eu-west-1"),
    "old region": (400, "AuthorizationHeaderMalformed", RequestRefusedError, "another region"),
    "unknown": (400, "SomethingNew", RequestRefusedError, "SomethingNew"),
    "blocked": (403, "AllAccessDisabled", AccessDeniedError, "the account is blocked"),
}


@pytest.mark.parametrize("state", STATES)
def test_what_another_try_cannot_help_is_told_by_the_stores_own_code_after_one_request(
    reader: ObjectReader, control: Control, state: str
) -> None:
    status, code, error, said = STATES[state]
    control.add("s3_error", "s3", status=status, code=code, message="So it is.", region="eu-west-1")
    with pytest.raises(MacroscopeError):
        reader.head("x")  # which has no body that could say why
    with pytest.raises(error):
        reader.list("s0")
    with pytest.raises(error) as caught:
        reader.get("s0/0/0/0")
    assert control.counters.tally("s3").requests == 3
    assert not caught.value.retryable
    assert said in str(caught.value)
    assert f"status {status}" in str(caught.value)
    assert code in str(caught.value)
    if code:
        assert "So it is" in str(caught.value)


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (400, "RequestTimeout")])
def test_a_code_that_passes_is_tried_again_whatever_its_status(
    reader: ObjectReader, control: Control, status: int, code: str
) -> None:
    control.add("s3_error", "s3", status=status, code=code, first_n=2)
    assert reader.get(".zgroup") is not None
    assert control.counters.tally("s3").requests == 3


def test_retry_after_is_honoured(
    reader: ObjectReader, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("lib.concurrency.cancel.sleep", waits.append)
    control.add("status_503", "s3", first_n=1, retry_after=7)
    assert reader.get(".zgroup") is not None
    # the try itself, then the service's next turn, which the clock has not brought nearer
    assert waits[0] == 7.0
    assert all(0.0 < wait <= 7.0 for wait in waits)


def test_a_404_page_of_a_proxy_is_not_an_absent_key(session: Session) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(NotFoundError, match="as an object store would"):
            session.objects("s3", "s3://bucket", endpoint_url=url).get("x")
        server.shutdown()


def test_no_server_and_no_name_have_their_own_advice(session: Session) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # so that nobody else listens there
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        reader = session.objects("s3", "s3://bucket", endpoint_url=url)
        with pytest.raises(TransportError, match="refuses the connection"):
            reader.get("x")
    reader = session.objects("s3", "s3://bucket", endpoint_url="http://no-such-host.invalid")
    with pytest.raises(TransportError, match="does not resolve"):
        reader.get("x")


@pytest.mark.parametrize("key", ["a//b", "a/../b", "../b"])
def test_a_key_that_climbs_is_refused(reader: ObjectReader, key: str) -> None:
    with pytest.raises(RequestRefusedError):
        reader.get(key)


@pytest.mark.parametrize("uri", ["s3://", "http://host/x", "bucket/x", "s3://b/a/../c"])
def test_a_wrong_address_is_a_wrong_setting(session: Session, uri: str) -> None:
    with pytest.raises(ConfigError):
        session.objects("s3", uri)


def test_requests_in_flight_stay_under_the_limit(
    reader: ObjectReader, session: Session, control: Control
) -> None:
    control.set_latency("s3", first_byte_s=0.01)
    jobs = [lambda: reader.get("s0/1/0/0") for _ in range(24)]
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= control.counters.tally("s3").peak <= 4
    assert 1 <= session.counters.snapshot()["s3"]["peak_in_flight"] <= 4


# --- bounds ---------------------------------------------------------------------------------

Reply = Callable[[socket.socket, str], None]


@pytest.fixture
def lying(session: Session) -> Iterator[Callable[[Reply], ObjectReader]]:
    """A server of raw bytes that gets each request's first line."""
    listeners: list[socket.socket] = []

    def start(reply: Reply) -> ObjectReader:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with connection.makefile("rb") as file:
                    while line := file.readline():
                        while file.readline().strip():
                            pass
                        reply(connection, line.decode())

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted = listener.accept()[0]
                    threading.Thread(target=serve, args=(accepted,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        return session.objects("lying", "s3://bucket", endpoint_url=url)

    yield start
    for listener in listeners:
        listener.close()


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


def endless(connection: socket.socket, begin: bytes, piece: bytes = b"x" * 65536) -> None:
    connection.sendall(begin)
    while True:
        connection.sendall(piece)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
PIECE = b"10000\r\n" + b"x" * 65536 + b"\r\n"


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (OK + b"Content-Length: 3000000000\r\n\r\n", b"x" * 65536),
        (OK + b"\r\n", b"x" * 65536),
        (CHUNKED, PIECE),
        (b"HTTP/1.1 404 No\r\nContent-Type: application/xml\r\n\r\n", b"<Error>" * 9000),
        (b"HTTP/1.1 403 No\r\nContent-Length: 3000000000\r\n\r\n", b"<Error>" * 9000),
        (b"HTTP/1.1 301 No\r\nContent-Length: 3000000000\r\n\r\n", b"x" * 65536),
    ],
    ids=["announced", "until closed", "chunked", "404", "403", "301"],
)
def test_an_object_longer_than_may_be_is_left(
    lying: Callable[[Reply], ObjectReader], taken: list[int], begin: bytes, piece: bytes
) -> None:
    reader = lying(lambda connection, line: endless(connection, begin, piece))
    with pytest.raises(MacroscopeError):
        reader.get("key", 2**20)
    assert sum(taken) <= 2 * 2**20


def test_a_range_that_goes_on_is_left(
    lying: Callable[[Reply], ObjectReader], taken: list[int]
) -> None:
    begin = b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-9/100\r\n\r\n"
    reader = lying(lambda connection, line: endless(connection, begin))
    with pytest.raises(BadAnswerError, match="longer than 10 bytes"):
        reader.get_range("key", 0, 10)
    assert sum(taken) <= 2**20


SENT = b"Content-Length: 5\r\n"
LINES = [b"X-%d: %01000d\r\n" % (n, n) for n in range(60)]
SHAPES: dict[str, tuple[list[bytes], bool]] = {
    "as usual": ([OK + SENT + b"\r\nvoxel"], True),
    "in pieces": ([b"HTTP/1", b".1 200 OK\r\nContent-Length: 5\r", b"\n\r", b"\nv", b"oxe"], True),
    "chunked": ([CHUNKED + b"2\r\nvo\r\n", b"3\r\nxel\r\n0\r\n\r\n"], True),
    "a line that is folded": ([OK + b"X-Note: a\r\n b\r\n" + SENT + b"\r\nvoxel"], True),
    "a line twice": ([OK + b"X: 1\r\nX: 2\r\n" + SENT + b"\r\nvoxel"], True),
    "no reason": ([b"HTTP/1.1 200\r\n" + SENT + b"\r\nvoxel"], True),
    "100 first": ([b"HTTP/1.1 100 Continue\r\n\r\n", OK + SENT + b"\r\nvoxel"], True),
    "many lines": ([OK, *LINES, SENT + b"\r\nvoxel"], True),
    "said to be the last": ([OK + b"Connection: close\r\n" + SENT + b"\r\nvoxel"], False),
    "more than announced": ([OK + SENT + b"\r\nvoxelHTTP/1.1 200 OK"], False),
    "of HTTP/1.0": ([b"HTTP/1.0 200 OK\r\n" + SENT + b"\r\nvoxel"], False),
}  # fmt: skip


@pytest.fixture
def secure(
    lying: Callable[[Reply], ObjectReader],
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Reply], ObjectReader]]:
    """The same server behind TLS, with an authority that is trusted."""
    fronts: list[TlsFront] = []

    def start(reply: Reply) -> ObjectReader:
        address = urlsplit(lying(reply)._requests.server)
        fronts.append(TlsFront((str(address.hostname), int(address.port or 0)), tmp_path))
        monkeypatch.setenv("SSL_CERT_FILE", str(fronts[0].authority))
        return session.objects("lying", "s3://bucket", endpoint_url=fronts[0].url)

    yield start
    for front in fronts:
        front.close()


def test_over_tls_objects_of_any_size_come_whole(
    secure: Callable[[Reply], ObjectReader],
) -> None:
    sizes = [0, 1, 16_384, 16_385, 300_000, 2_000_000]

    def reply(connection: socket.socket, line: str) -> None:
        body = random.Random(line.split()[1]).randbytes(int(line.split()[1].rpartition("/")[2]))
        connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    reader = secure(reply)
    expected = [random.Random(f"/bucket/{size}").randbytes(size) for size in sizes]
    assert reader.get_several([str(size) for size in sizes]) == expected
    assert [reader.get(str(size)) for size in sizes] == expected
    threads = [
        threading.Thread(target=lambda: reader.get_several([str(n) for n in sizes]))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reader.get("300000") == expected[4]


def test_objects_of_a_server_that_nobody_vouches_for_are_not_read(
    secure: Callable[[Reply], ObjectReader],
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    server = secure(lambda connection, line: asked.append(line))._requests.server
    for name in ("localhost", "127.0.0.1"):  # not the certificate's name; then no authority
        if name == "127.0.0.1":
            monkeypatch.setenv("SSL_CERT_FILE", "")
        url = server.replace("127.0.0.1", name)
        with pytest.raises(TransportError, match="no secure connection"):
            session.objects("lying", "s3://other", endpoint_url=url).get("key")
    assert asked == []


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_of_any_shape_is_read_whole_and_its_connection_kept_where_it_can_be(
    lying: Callable[[Reply], ObjectReader],
    secure: Callable[[Reply], ObjectReader],
    shape: str,
    tls: bool,
) -> None:
    pieces, lasting = SHAPES[shape]
    connections: list[socket.socket] = []

    def reply(connection: socket.socket, line: str) -> None:
        if connection not in connections:
            connections.append(connection)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.01 if len(pieces) < 9 else 0)
        if shape == "in pieces":
            connection.sendall(b"l")

    reader = (secure if tls else lying)(reply)
    assert [reader.get(key) for key in "ab"] == [b"voxel"] * 2
    assert reader.get_several(["c", "d"]) == [b"voxel"] * 2
    assert len(connections) == (1 if lasting else 4)


@pytest.mark.parametrize(
    "answer",
    [
        OK + SENT + b"\r\nvox",
        OK + b"Content-Length: 5, 5\r\nConnection: close\r\n\r\n",
        CHUNKED + b"5\r\nvox",
        OK,
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
    ids=["cut", "no length", "cut in a chunk", "cut in the head", "nothing", "another protocol"],
)
def test_an_answer_that_breaks_off_is_no_object(
    lying: Callable[[Reply], ObjectReader], answer: bytes
) -> None:
    def reply(connection: socket.socket, line: str) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_RDWR)

    reader = lying(reply)
    if answer.startswith(OK + b"Content-Length: 5,"):
        assert reader.get("key") == b""  # its end is the connection's, as for http.client
    else:
        with pytest.raises(TransportError):
            reader.get("key")


@pytest.mark.parametrize("begin", [OK + b"\r\n", CHUNKED], ids=["until closed", "chunked"])
def test_an_answer_that_is_left_unread_is_closed(
    lying: Callable[[Reply], ObjectReader], monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    """Else Python 3.14 writes a traceback to stderr when it collects the answer."""
    answers: list[http.client.HTTPResponse] = []

    class Kept(http.client.HTTPResponse):
        def begin(self) -> None:
            answers.append(self)
            super().begin()

    monkeypatch.setattr(http_wire, "HTTPResponse", Kept)
    reader = lying(lambda connection, line: endless(connection, begin, PIECE))
    with pytest.raises(MacroscopeError):
        reader.get("key", 2**20)
    assert answers
    assert all(answer.closed for answer in answers)


def test_several_objects_take_one_connection_and_each_its_own_tries(
    lying: Callable[[Reply], ObjectReader], session: Session
) -> None:
    asked: list[str] = []
    connections: list[socket.socket] = []

    def reply(connection: socket.socket, line: str) -> None:
        key = line.split()[1].rpartition("/")[2]
        asked.append(key)
        if connection not in connections:
            connections.append(connection)
        if key == "absent":
            body = b"<Error><Code>NoSuchKey</Code></Error>"
            status = b"HTTP/1.1 404 Not Found\r\n"
            connection.sendall(status + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        elif key == "weak" and asked.count("weak") < 3:
            connection.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n")
        else:
            connection.sendall(OK + SENT + b"\r\nvoxel")

    reader = lying(reply)
    keys = ["a", "absent", "b", "weak", "c"]
    assert reader.get_several(keys) == [b"voxel", None, b"voxel", b"voxel", b"voxel"]
    assert asked == ["a", "absent", "b", "weak", "weak", "weak", "c"]
    assert len(connections) == 1
    counts = session.counters.snapshot()["lying"]
    assert (counts["requests"], counts["retries"], counts["peak_in_flight"]) == (7, 2, 1)
    assert counts["in_flight"] == 0


def test_an_object_that_stays_away_ends_its_group_under_its_own_name(
    lying: Callable[[Reply], ObjectReader],
) -> None:
    def reply(connection: socket.socket, line: str) -> None:
        if "/bad" in line:
            connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        else:
            connection.sendall(OK + SENT + b"\r\nvoxel")

    with pytest.raises(TransportError, match="3 tries") as caught:
        lying(reply).get_several(["good", "bad", "other"])
    assert caught.value.location == "s3://bucket/bad"


@pytest.mark.parametrize("bad", range(8))
def test_of_a_group_only_the_object_whose_bytes_are_wrong_is_asked_for_again(
    lying: Callable[[Reply], ObjectReader], monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    bodies = {f"{n}": random.Random(n).randbytes(40_000 + n) for n in range(8)}
    asked: list[str] = []

    def reply(connection: socket.socket, line: str) -> None:
        key = line.split()[1].rpartition("/")[2]
        asked.append(key)
        body = bodies[key]
        tag = hashlib.md5(body).hexdigest().encode()
        if key == f"{bad}" and asked.count(key) < 3:
            body = body[:-1] + bytes([asked.count(key)])  # not the same twice: it proves nothing
        head = b'Content-Length: %d\r\nETag: "%s"\r\n\r\n' % (len(body), tag)
        connection.sendall(OK + head + body)

    hashing = Md5(compiled_after=1)
    hashing.digests([bytes(40_000)])
    monkeypatch.setattr("lib.transport.s3.reader.MD5", hashing)
    assert lying(reply).get_several([*bodies]) == [*bodies.values()]
    assert asked == [*bodies, f"{bad}", f"{bad}"]


def page(keys: list[str], token: str | None) -> bytes:
    items = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    truncated = "false" if token is None else "true"
    body = (
        f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{items}</ListBucketResult>"
    ).encode()
    return OK + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


LISTINGS: dict[str, tuple[Callable[[int], bytes], str]] = {
    "the same page": (lambda n: page(["a", "b"], "t"), "same keys again"),
    "the same keys, other tokens": (lambda n: page(["a", "b"], f"t{n}"), "same keys again"),
    "the same token": (lambda n: page([f"k{n}"], "t"), "where it was before"),
    "empty pages": (lambda n: page([], f"t{n}"), "pages in a row are empty"),
    "ever new keys": (lambda n: page([f"k{n}-{i}" for i in range(500)], f"t{n}"), "more than 5000"),
    "no token": (lambda n: page(["a"], ""), "does not say where"),
    "a page without end": (lambda n: b"", "longer than"),
    "entities": (
        lambda n: (
            OK
            + b"Content-Length: 45\r\n\r\n"
            + b'<!DOCTYPE a [<!ENTITY b "c">]>'
            + b"<a>&b;&b;</a>  "
        ),
        "not the listing",
    ),
}


@pytest.mark.parametrize("way", ["one level", "all levels"])
@pytest.mark.parametrize("kind", LISTINGS)
def test_a_listing_without_end_is_left(
    lying: Callable[[Reply], ObjectReader], taken: list[int], kind: str, way: str
) -> None:
    answer, said = LISTINGS[kind]
    count = itertools.count()

    def reply(connection: socket.socket, line: str) -> None:
        if kind == "a page without end":
            endless(connection, OK + b"\r\n", b"<Contents></Contents>" * 3000)
        else:
            connection.sendall(answer(next(count)))

    reader = lying(reply)
    with pytest.raises(BadAnswerError, match=said) as caught:
        reader.list(most=5000) if way == "one level" else list(reader.list_all(most=5000))
    assert sum(taken) <= 3 * 17 * 2**20  # a page without end is asked for three times
    assert caught.value.archive == "openorganelle"


def test_an_object_that_drips_is_broken_off(
    lying: Callable[[Reply], ObjectReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = threading.Semaphore(0)
    times = itertools.count(0.0, 0.5)

    def clock() -> float:
        ticks.release()
        return next(times)

    def reply(connection: socket.socket, line: str) -> None:
        connection.sendall(OK + b"Content-Length: 20000\r\n\r\n")
        for _ in range(20_000):
            ticks.acquire()
            connection.sendall(b"x")

    monkeypatch.setattr(bounds, "clock", clock)
    with pytest.raises(TransportError, match="bytes a minute"):
        lying(reply).get("key")


def test_keys_that_xml_cannot_hold_are_listed(
    lying: Callable[[Reply], ObjectReader],
) -> None:
    body = (
        b"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
        b"<Contents><Key>a%01%2Bb+c%E2%82%AC</Key><Size>7</Size>"
        b"<LastModified>2024-05-06T07:08:09.123Z</LastModified></Contents></ListBucketResult>"
    )
    header = OK + f"Content-Length: {len(body)}\r\n\r\n".encode()
    reader = lying(lambda connection, line: connection.sendall(header + body))
    (found,) = reader.list().objects
    assert (found.key, found.size) == ("a\x01+b c€", 7)
    assert found.last_modified == "2024-05-06T07:08:09Z"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_stop_wakes_a_read_that_waits(
    lying: Callable[[Reply], ObjectReader], secure: Callable[[Reply], ObjectReader], tls: bool
) -> None:
    gone = threading.Event()

    def reply(connection: socket.socket, line: str) -> None:
        connection.sendall(OK + b"Content-Length: 20000\r\n\r\nx")
        stopping.request_stop()
        gone.wait(60)

    try:
        with pytest.raises(StoppedError):
            (secure if tls else lying)(reply).get("key")
    finally:
        gone.set()
        stopping.reset()
