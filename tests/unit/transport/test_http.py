"""HTTP: every byte is accounted for, every failure has a name, and manners are kept."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emulators.control import Control
from emulators.http_side import HttpSide
from emulators.mirror import mirror_app
from lib.concurrency import cancel as stopping
from lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    IncompleteTransferError,
    NotFoundError,
    RequestRefusedError,
    SourceChangedError,
    StoppedError,
    TransportError,
)
from lib.transport.connections import _Answer
from lib.transport.http import HttpClient, IndexEntry, RangesIgnoredError
from lib.transport.limits import Limits
from lib.transport.responses import parse_index
from lib.transport.session import Session

QUICK = Limits(4, None, 20.0, 30.0, 3, 0.005, 64 * 1024)
# For what waits until it ends; a busy machine may let it end once more, and is tried again.
STALLED = replace(QUICK, read_timeout_s=1.0, tries=10)
DATA = bytes(range(256)) * 4096  # 1 MiB
SPACED = "/%20EM_Volume/volume.bin"


class Served:
    """The stand-ins' HTTP side over a folder of this test's own."""

    def __init__(self, root: Path) -> None:
        self.control = Control()
        self.side = HttpSide(self.control)
        self.side.start()
        self.ports = {
            name: self.side.add(name, mirror_app(root / name)) for name in ("mirror", "epfl")
        }

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    (root / "mirror" / "sub").mkdir(parents=True)
    (root / "mirror" / "volume.bin").write_bytes(DATA)
    (root / "mirror" / "empty.bin").write_bytes(b"")
    (root / "mirror" / "a b&c.json").write_text('{"k": 1}')
    (root / "epfl" / " EM_Volume").mkdir(parents=True)
    (root / "epfl" / " EM_Volume" / "volume.bin").write_bytes(DATA)
    served = Served(root)
    yield served
    served.side.stop()


@pytest.fixture
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    limits = STALLED if "stall" in request.node.name else QUICK
    with Session("ebi", limits={"ebi-https": limits, "epfl": limits}) as session:
        yield session


@pytest.fixture
def client(session: Session) -> HttpClient:
    return session.http("ebi-https")


@pytest.fixture
def url(served: Served, control: Control) -> str:
    return served.url("mirror") + "/volume.bin"


def read(client: HttpClient, url: str, start: int, length: int) -> bytes:
    buffer = bytearray(length)
    client.read_range_into(client.head(url), start, memoryview(buffer))
    return bytes(buffer)


Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class _Scripted:
    """A server whose answers a test writes by hand."""

    def __init__(self, answer: Answer, host: str = "127.0.0.1") -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler) -> None:
                length = int(handler.headers.get("Content-Length") or 0)
                body = handler.rfile.read(length)
                headers = dict(handler.headers)
                self.seen.append((handler.command, handler.path, headers, body))
                answer(handler)

            do_HEAD = do_POST = do_GET

            def log_message(handler, *_: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(server, *_: Any) -> None:
                pass  # clients that go away are part of the tests

        self.server = Server((host, 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://{host}:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., _Scripted]]:
    servers: list[_Scripted] = []

    def start(answer: Answer, host: str = "127.0.0.1") -> _Scripted:
        servers.append(_Scripted(answer, host))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def reply(
    handler: http.server.BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    length: int | None = None,
    **headers: str,
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
    if length is not None and length != len(body):
        handler.close_connection = True


# --- ranges ---------------------------------------------------------------------------------


def test_head_tells_size_tag_and_ranges(client: HttpClient, url: str) -> None:
    remote = client.head(url)
    assert remote.size == len(DATA)
    assert remote.etag
    assert remote.last_modified


@pytest.mark.parametrize(("start", "length"), [(0, 1), (0, len(DATA)), (12345, 300_000), (5, 0)])
def test_a_range_fills_exactly_the_buffer(
    client: HttpClient, url: str, start: int, length: int
) -> None:
    assert read(client, url, start, length) == DATA[start : start + length]


def test_a_range_outside_the_file_is_refused_before_asking(
    client: HttpClient, url: str, control: Control
) -> None:
    with pytest.raises(RequestRefusedError, match="not inside"):
        read(client, url, len(DATA) - 10, 11)


@pytest.mark.parametrize("kind", ["status_503", "status_500", "status_429", "reset", "short_body"])
def test_a_passing_fault_is_repeated_until_the_range_is_right(
    client: HttpClient, url: str, control: Control, session: Session, kind: str
) -> None:
    control.add(kind, "mirror", first_n=2, methods=["GET"])
    assert read(client, url, 1000, 200_000) == DATA[1000:201_000]
    assert session.counters.snapshot()["ebi-https"]["retries"] == 2


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("status_503", TransportError),
        ("reset", TransportError),
        ("short_body", IncompleteTransferError),
        ("html_200", BadAnswerError),
    ],
)
def test_a_lasting_fault_ends_in_a_named_error_after_the_allowed_tries(
    client: HttpClient, url: str, control: Control, kind: str, error: type[TransportError]
) -> None:
    control.add(kind, "mirror", methods=["GET"])
    with pytest.raises(error, match=r"3 tries") as caught:
        read(client, url, 0, 1000)
    assert control.counters.snapshot()["services"]["mirror"]["methods"]["GET"] == 3
    assert caught.value.archive == "ebi"
    assert caught.value.location == url


def test_a_range_that_hangs_is_asked_for_again_long_before_the_read_time_out(
    url: str, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a service that is known to hang: the stall would end by itself, and is not waited for."""
    patience, wait_at_most = [], _Answer.wait_at_most

    def noted(answer: _Answer, seconds: float) -> None:
        patience.append(seconds)
        wait_at_most(answer, 1.0 if len(patience) == 1 else seconds)  # that one hangs

    monkeypatch.setattr(_Answer, "wait_at_most", noted)
    control.add("stall", "mirror", first_n=1, seconds=3600, methods=["GET"])
    hanging = Limits(1, read_timeout_s=60.0, first_backoff_s=0.01, stall_s=20.0)
    with Session("ebi", limits={"hang-https": hanging}) as session:
        assert read(session.http("hang-https"), url, 0, len(DATA)) == DATA
        counts = session.counters.snapshot()["hang-https"]
    assert patience == [10.0, 20.0], "less than for the first byte, and more for another try"
    assert counts["retries"] == 1
    assert counts["bytes_received"] == len(DATA), "what came before it hung is not asked for again"


def test_a_service_that_answers_soon_is_asked_again_sooner(
    url: str, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once enough answers have come; a second try waits as long as it always does."""
    patience: list[float] = []
    monkeypatch.setattr(_Answer, "wait_at_most", lambda _, seconds: patience.append(seconds))
    monkeypatch.setattr("lib.transport.request.time", SimpleNamespace(monotonic=lambda: 0.0))
    hanging = Limits(1, read_timeout_s=60.0, first_backoff_s=0.01, stall_s=6.0)
    with Session("ebi", limits={"soon-https": hanging}) as session:
        client = session.http("soon-https")
        for _ in range(8):
            read(client, url, 0, 10)
        control.add("reset", "mirror", first_n=1, methods=["GET"])
        assert read(client, url, 0, len(DATA)) == DATA
    assert patience[0] == 3.0 and patience[-2:] == [1.5, 6.0]


def test_a_stall_is_cut_short_by_the_read_time_out(
    client: HttpClient, url: str, control: Control
) -> None:
    control.add("stall", "mirror", first_n=1, seconds=20, methods=["GET"])
    assert read(client, url, 0, 100_000) == DATA[:100_000]


def test_the_first_answer_of_a_connection_has_the_read_time_out_not_that_of_connecting(
    served: Served, control: Control, url: str
) -> None:
    control.set_latency("mirror", first_byte_s=1.0)
    patient = replace(QUICK, connect_timeout_s=0.4, read_timeout_s=60.0, tries=1)
    with Session("ebi", limits={"ebi-https": patient}) as session:
        assert session.http("ebi-https").get_bytes(url, len(DATA)) == DATA


@pytest.mark.parametrize(
    ("kind", "error"), [("status_403", AccessDeniedError), ("status_404", NotFoundError)]
)
def test_a_permanent_refusal_is_not_repeated(
    client: HttpClient, url: str, control: Control, kind: str, error: type[Exception]
) -> None:
    remote = client.head(url)
    control.add(kind, "mirror")
    with pytest.raises(error):
        client.read_range_into(remote, 0, memoryview(bytearray(10)))
    assert control.counters.snapshot()["services"]["mirror"]["methods"]["GET"] == 1


def test_a_replaced_file_between_two_ranges_is_noticed(
    client: HttpClient, url: str, control: Control
) -> None:
    remote = client.head(url)
    control.add("changed_file", "mirror", skip=0)
    with pytest.raises(SourceChangedError, match=r"ETag was .* Last-Modified was"):
        client.read_range_into(remote, 0, memoryview(bytearray(10)))


def test_a_server_that_ignores_ranges_is_read_through_to_the_range(
    client: HttpClient, url: str, control: Control
) -> None:
    control.add("ignore_range", "mirror")
    assert read(client, url, 0, 500) == DATA[:500]
    assert read(client, url, 700_001, 500) == DATA[700_001:700_501]


def test_ignored_ranges_deep_in_a_large_file_are_named(
    client: HttpClient, url: str, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.transport.http._MAX_SKIP", 1000)
    control.add("ignore_range", "mirror")
    with pytest.raises(RangesIgnoredError, match=f"bytes 2000 to 2010 of {len(DATA)} are needed"):
        read(client, url, 2000, 10)
    assert len(client.ranges_ignored) == 1
    assert read(client, url, 10, 10) == DATA[10:20]  # the header of a file of any size


@pytest.mark.parametrize(
    "claimed", ["bytes 0-9/100", "bytes 10-18/100", "nonsense", "bytes 10-19/99"]
)
def test_a_206_for_another_range_never_reaches_the_buffer(
    client: HttpClient, scripted: Callable[..., _Scripted], claimed: str
) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.command == "HEAD":
            reply(handler, 200, b"x" * 100)
        else:
            reply(handler, 206, b"y" * 10, Content_Range=claimed)

    server = scripted(answer)
    buffer = bytearray(10)
    with pytest.raises((BadAnswerError, SourceChangedError)):
        client.read_range_into(client.head(server.url + "/f"), 10, memoryview(buffer))
    assert buffer == bytes(10)


def test_an_encoded_body_is_not_taken_for_data(
    client: HttpClient, scripted: Callable[..., _Scripted]
) -> None:
    server = scripted(lambda handler: reply(handler, 200, b"x" * 10, Content_Encoding="gzip"))
    with pytest.raises(BadAnswerError, match="gzip"):
        client.read_exact_into(server.url + "/data", memoryview(bytearray(10)))
    client.read_exact_into(server.url + "/data.gz", memoryview(bytearray(10)))
    assert server.seen[0][2]["Accept-Encoding"] == "identity"


# --- whole answers --------------------------------------------------------------------------


def test_an_exact_answer_fills_the_buffer(client: HttpClient, url: str) -> None:
    buffer = bytearray(len(DATA))
    client.read_exact_into(url, memoryview(buffer))
    assert buffer == DATA


@pytest.mark.parametrize("length", [len(DATA) - 1, len(DATA) + 1])
def test_an_answer_of_another_length_is_an_error(client: HttpClient, url: str, length: int) -> None:
    with pytest.raises(IncompleteTransferError):
        client.read_exact_into(url, memoryview(bytearray(length)))


@pytest.mark.parametrize("length", [9, 11])
def test_a_chunked_answer_of_another_length_is_an_error(
    client: HttpClient, scripted: Callable[..., _Scripted], length: int
) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"a\r\n0123456789\r\n0\r\n\r\n")

    server = scripted(answer)
    with pytest.raises(IncompleteTransferError):
        client.read_exact_into(server.url, memoryview(bytearray(length)))
    buffer = bytearray(10)
    client.read_exact_into(server.url, memoryview(buffer))
    assert buffer == b"0123456789"


def test_json_is_read_and_a_page_in_its_place_is_named(
    client: HttpClient, served: Served, control: Control
) -> None:
    document = served.url("mirror") + "/a%20b%26c.json"
    assert client.get_json(document) == {"k": 1}
    control.add("html_200", "mirror", first_n=1)
    assert client.get_json(document) == {"k": 1}
    with pytest.raises(BadAnswerError, match="not JSON"):
        client.get_json(served.url("mirror") + "/volume.bin")


def test_an_answer_beyond_the_bound_is_refused_at_once(
    client: HttpClient, url: str, control: Control
) -> None:
    with pytest.raises(BadAnswerError, match="longer than 1000"):
        client.get_json(url, max_bytes=1000)
    assert control.counters.snapshot()["services"]["mirror"]["methods"]["GET"] == 1


def test_a_400_carries_what_the_server_said_without_queries(
    client: HttpClient, scripted: Callable[..., _Scripted]
) -> None:
    said = b"voxels outside http://u:p@h/x?sig=1 \x1b[31m" + b"z" * 500
    server = scripted(lambda handler: reply(handler, 400, said, Content_Type="text/plain"))
    with pytest.raises(RequestRefusedError, match="voxels outside http://h/x ") as caught:
        client.get_json(server.url + "/raw?token=secret")
    text = str(caught.value)
    assert "sig" not in text
    assert "secret" not in text
    assert "\x1b" not in text
    assert len(text) < 400
    assert len(server.seen) == 1


# --- manners --------------------------------------------------------------------------------


def test_retry_after_is_waited_for(client: HttpClient, url: str, control: Control) -> None:
    control.add("status_503", "mirror", first_n=1, retry_after=1, methods=["GET"])
    begun = time.monotonic()
    read(client, url, 0, 10)
    assert time.monotonic() - begun >= 1.0


def test_a_server_that_asks_for_an_hour_is_left_alone(
    client: HttpClient, url: str, control: Control
) -> None:
    remote = client.head(url)
    control.add("status_503", "mirror", retry_after=3600)
    with pytest.raises(TransportError):
        client.read_range_into(remote, 0, memoryview(bytearray(1)))
    assert control.counters.snapshot()["services"]["mirror"]["methods"]["GET"] == 1


def test_a_connection_whose_end_was_asked_for_is_not_used_again(
    scripted: Callable[..., _Scripted],
) -> None:
    """The answer does not say that it is the last, and the end comes a little later."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        reply(handler, 200, b"{}")
        handler.wfile.flush()
        time.sleep(0.2)

    server = scripted(answer)
    once = replace(QUICK, tries=1)
    with Session("ebi", limits={"ebi-https": once}) as session:
        client = session.http("ebi-https")
        for _ in range(3):
            with client.ask("GET", server.url, headers={"Connection": "close"}) as response:
                assert response.content == b"{}"


def test_requests_in_flight_stay_under_the_limit(scripted: Callable[..., _Scripted]) -> None:
    """Each answer waits until two requests are there: with fewer at once none would come."""
    together = threading.Barrier(2)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        together.wait(60)
        reply(handler, 200, b"x")

    url = scripted(answer).url + "/x"
    strict = Session("other", limits={"flight-test": Limits(1)})
    strict.limiter("flight-test")
    with Session("ebi", limits={"flight-test": Limits(2, None, tries=1)}) as session:
        client = session.http("flight-test")
        strict.close()  # its limit must not outlive it
        threads = [threading.Thread(target=client.head, args=(url,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = session.counters.snapshot()["flight-test"]
    assert not together.broken
    assert counts["requests"] == 12
    assert counts["peak_in_flight"] == 2
    assert counts["in_flight"] == 0


def test_a_path_that_begins_with_a_space_is_sent_as_it_is_written(
    session: Session, served: Served, control: Control, tmp_path: Path
) -> None:
    fetched = session.http("epfl").download(served.url("epfl") + SPACED, tmp_path / "v.bin")
    assert fetched.size == len(DATA)


# --- redirects and addresses ----------------------------------------------------------------


def test_redirects_to_the_same_host_are_followed(
    client: HttpClient, url: str, control: Control, served: Served
) -> None:
    control.add("redirect", "mirror", match="^/old", location="/volume.bin")
    assert client.head(served.url("mirror") + "/old").size == len(DATA)


def test_redirects_to_other_hosts_are_refused(
    client: HttpClient, control: Control, served: Served
) -> None:
    control.add("redirect", "mirror", location="http://169.254.169.254/latest?token=1")
    with pytest.raises(RequestRefusedError, match="allowed") as caught:
        client.get_json(served.url("mirror") + "/x")
    assert "token" not in str(caught.value)


def test_redirects_to_allowed_hosts_are_followed(
    control: Control, served: Served, url: str
) -> None:
    other = url.replace("127.0.0.1", "localhost")
    control.add("redirect", "mirror", match="^/old", location=other)
    limits = {"ebi-https": QUICK}
    with Session("ebi", limits=limits, allowed_hosts=["localhost"]) as session:
        assert session.http("ebi-https").head(served.url("mirror") + "/old").size == len(DATA)


def test_a_redirect_loop_ends(client: HttpClient, control: Control, served: Served) -> None:
    control.add("redirect", "mirror", location="/again")
    with pytest.raises(RequestRefusedError, match="without end"):
        client.get_json(served.url("mirror") + "/x")
    assert control.counters.snapshot()["services"]["mirror"]["requests"] == 6


def test_a_closed_port_and_an_unknown_name_have_their_own_advice(client: HttpClient) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # so that nobody else listens there
        with pytest.raises(TransportError, match="refuses the connection"):
            client.head(f"http://127.0.0.1:{unused.getsockname()[1]}/x")
    with pytest.raises(TransportError, match="does not resolve"):
        client.head("http://no-such-host.invalid/x")
    with pytest.raises(RequestRefusedError, match="not an HTTP address"):
        client.head("gopher://host/x")


def test_a_tls_failure_is_not_repeated(
    client: HttpClient, scripted: Callable[..., _Scripted], session: Session
) -> None:
    plain = scripted(lambda handler: reply(handler, 200))
    with pytest.raises(TransportError, match="no secure connection") as caught:
        client.head(plain.url.replace("http:", "https:"))
    assert not caught.value.retryable
    assert session.counters.snapshot()["ebi-https"]["requests"] == 1


# --- downloads ------------------------------------------------------------------------------


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_download_is_whole_hashed_and_leaves_nothing_behind(
    client: HttpClient, url: str, tmp_path: Path, each_block: Any
) -> None:
    counted: list[int] = []
    each_block(counted.append)
    fetched = client.download(url, tmp_path / "new" / "v.bin")
    assert fetched.path.read_bytes() == DATA
    assert (fetched.size, fetched.sha256) == (len(DATA), sha(DATA))
    assert fetched.etag
    assert fetched.last_modified
    assert sum(counted) == len(DATA)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["v.bin"]


def test_an_empty_file_is_downloaded(client: HttpClient, served: Served, tmp_path: Path) -> None:
    fetched = client.download(served.url("mirror") + "/empty.bin", tmp_path / "e")
    assert (fetched.size, fetched.sha256) == (0, sha(b""))


@pytest.mark.parametrize("kind", ["reset", "short_body", "stall"])
def test_a_cut_download_goes_on_where_it_was(
    client: HttpClient, url: str, control: Control, tmp_path: Path, kind: str
) -> None:
    control.add(kind, "mirror", first_n=2, after_bytes=300_000, methods=["GET"])
    fetched = client.download(url, tmp_path / "v.bin")
    assert fetched.sha256 == sha(DATA) == sha((tmp_path / "v.bin").read_bytes())
    ranges = [line.range for line in control.counters.log() if line.method == "GET"]
    assert ranges[0] is None
    assert len(ranges) == 3 or (kind == "stall" and len(ranges) > 3)
    if kind == "short_body":  # a reset may throw away what was under way
        assert None not in ranges[1:]
    if kind == "stall":
        assert ranges.count(None) < len(ranges)


def leave_part(client: HttpClient, url: str, control: Control, path: Path) -> None:
    control.add("short_body", "mirror", after_bytes=400_000, methods=["GET"])
    control.add("status_404", "mirror", match="gone")
    with (
        Session("ebi", limits={"ebi-https": Limits(1, tries=1)}) as once,
        pytest.raises(IncompleteTransferError),
    ):
        once.http("ebi-https").download(url, path)
    control.clear()
    assert not path.exists()


def test_a_later_run_goes_on_and_hashes_what_was_there(
    client: HttpClient, url: str, control: Control, tmp_path: Path
) -> None:
    path = tmp_path / "v.bin"
    leave_part(client, url, control, path)
    size = (tmp_path / "v.bin.partial").stat().st_size
    assert size >= 400_000
    assert client.download(url, path).sha256 == sha(DATA)
    assert [line.range for line in control.counters.log() if line.method == "GET"] == [
        f"bytes={size}-"
    ]


def test_a_part_of_another_version_is_thrown_away(
    client: HttpClient, url: str, control: Control, tmp_path: Path
) -> None:
    path = tmp_path / "v.bin"
    leave_part(client, url, control, path)
    note = tmp_path / "v.bin.partial.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "etag": '"old"'}))
    (tmp_path / "v.bin.partial").write_bytes(b"\xff" * 1000)
    assert client.download(url, path).sha256 == sha(DATA)
    assert path.read_bytes() == DATA


def test_a_file_that_changes_under_the_download_is_not_mixed(
    client: HttpClient, url: str, control: Control, tmp_path: Path
) -> None:
    path = tmp_path / "v.bin"
    leave_part(client, url, control, path)
    control.add("changed_file", "mirror")  # from the second request on: the one after HEAD
    with pytest.raises(SourceChangedError):
        client.download(url, path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_ignores_ranges_starts_a_download_over(
    client: HttpClient, url: str, control: Control, tmp_path: Path
) -> None:
    path = tmp_path / "v.bin"
    leave_part(client, url, control, path)
    control.add("ignore_range", "mirror")
    assert client.download(url, path).sha256 == sha(DATA)


def test_content_md5_is_checked(
    client: HttpClient, scripted: Callable[..., _Scripted], tmp_path: Path
) -> None:
    right = "CY9rzUYh03PK3k6DJie09g=="  # of b"test"
    server = scripted(
        lambda handler: reply(
            handler, 200, b"test" if "good" in handler.path else b"tost", Content_MD5=right
        )
    )
    fetched = client.download(server.url + "/good", tmp_path / "good")
    assert fetched.publisher_checksum == "md5:098f6bcd4621d373cade4e832627b4f6"
    with pytest.raises(IncompleteTransferError, match="Content-MD5"):
        client.download(server.url + "/bad", tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_an_existing_file_is_replaced_only_by_a_whole_one(
    client: HttpClient, url: str, control: Control, tmp_path: Path
) -> None:
    path = tmp_path / "v.bin"
    path.write_bytes(b"before")
    leave = control.add
    leave("short_body", "mirror", methods=["GET"])
    with (
        Session("ebi", limits={"ebi-https": Limits(1, tries=1)}) as once,
        pytest.raises(IncompleteTransferError),
    ):
        once.http("ebi-https").download(url, path)
    assert path.read_bytes() == b"before"


# --- listings -------------------------------------------------------------------------------


def test_an_index_lists_files_and_folders_only(
    client: HttpClient, served: Served, control: Control
) -> None:
    found = {(e.name, e.is_dir) for e in client.list_index(served.url("mirror") + "/")}
    assert found == {
        ("volume.bin", False),
        ("empty.bin", False),
        ("a b&c.json", False),
        ("sub", True),
    }


def test_hostile_links_are_not_entries(
    client: HttpClient, scripted: Callable[..., _Scripted]
) -> None:
    page = (
        '<a href="?C=N;O=D">Name</a><a href="/up/">Parent</a><a href="../x">x</a>'
        '<a href="http://evil/x">x</a><a href="%2e%2e/">x</a><a href="..%2fetc">x</a>'
        '<a href="javascript:x">x</a><a href="ok%20&amp;.dm3">x</a><a href="./d/">x</a>'
    )
    server = scripted(lambda handler: reply(handler, 200, page.encode(), Content_Type="text/html"))
    found = client.list_index(f"{server.url}/below/")
    assert found == [IndexEntry("ok &.dm3", False), IndexEntry("d", True)]


# --- stopping -------------------------------------------------------------------------------


def test_a_stop_wakes_a_read_that_waits(served: Served, control: Control, url: str) -> None:
    control.add("stall", "mirror", seconds=3600, methods=["GET"])
    patient = Limits(1, None, 20.0, 3600.0, 3)
    threading.Timer(0.2, stopping.request_stop).start()
    try:
        with Session("ebi", limits={"ebi-https": patient}) as session, pytest.raises(StoppedError):
            read(session.http("ebi-https"), url, 0, len(DATA))
    finally:
        stopping.reset()


def test_a_folder_of_a_server_that_refuses_head_is_no_file(
    client: HttpClient, scripted: Callable[..., _Scripted]
) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.command == "HEAD":
            reply(handler, 405)
        elif handler.path.endswith("/folder"):
            reply(handler, 200, b"<html>Index of</html>", Content_Type="text/html")
        else:
            reply(handler, 206, b"a", Content_Range="bytes 0-0/10")

    server = scripted(answer)
    assert client.look(f"{server.url}/folder") is None
    found = client.look(f"{server.url}/file")
    assert found is not None and found.size == 10
    with pytest.raises(BadAnswerError, match="web page"):
        client.head(f"{server.url}/folder")


@pytest.mark.parametrize(
    ("headers", "before", "asked"),
    [
        ({"ETag": '"a1"'}, True, 1),
        ({"Last-Modified": "Mon, 02 Jan 2023 10:00:00 GMT"}, False, 1),
        ({}, False, 2),
        ({}, True, QUICK.tries),
    ],
)
def test_a_page_that_is_what_the_server_has_is_not_asked_for_five_times(
    client: HttpClient,
    scripted: Callable[..., _Scripted],
    headers: dict[str, str],
    before: bool,
    asked: int,
) -> None:
    """A page that passes, from somebody on the way, is still tried again."""
    pages: list[str] = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path == "/data":
            return reply(handler, 200, b"1", Content_Type="application/octet-stream")
        pages.append(handler.path)
        more = {name.replace("-", "_"): value for name, value in headers.items()}
        return reply(handler, 200, b"<html>", Content_Type="text/html; charset=utf-8", **more)

    server = scripted(answer)
    if before:
        assert client.get_bytes(f"{server.url}/data") == b"1"
    with pytest.raises(BadAnswerError, match="web page") as caught:
        client.get_bytes(f"{server.url}/x.zarr/.zarray")
    assert len(pages) == asked
    assert caught.value.retryable == (asked == QUICK.tries)


def test_links_from_the_root_of_a_host_are_entries_and_links_elsewhere_are_none() -> None:
    """As IIS, Express and Jetty write them: such a folder seemed to be empty."""
    folder = "http://host:8080/pub/a%20b/"
    page = (
        '<A HREF="/pub/">[To Parent Directory]</A> <a href="?C=N;O=D">Name</a>'
        '<A HREF="/pub/a%20b/s%201.tif">s 1.tif</A><a href="/pub/a b/s0/">s0</a>'
        '<a href="http://host:8080/pub/a%20b/c.tif">c</a><a href="./d%3A1.tif">d</a>'
        '<a href="http://elsewhere/pub/a%20b/e.tif">e</a><a href="/pub/a%20bc/f.tif">f</a>'
        '<a href="javascript:x">g</a><a href="/pub/a%20b/s0/0">h</a><a href="http://[">i</a>'
    )
    names = [(entry.name, entry.is_dir) for entry in parse_index(page, folder)]
    assert names == [("s 1.tif", False), ("s0", True), ("c.tif", False), ("d:1.tif", False)]
