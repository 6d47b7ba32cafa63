"""One file in many descriptions: nodes of a mirror are borne with, another file is found out."""

from __future__ import annotations

import hashlib
import http.server
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emulators.control import Control
from emulators.http_side import HttpSide
from emulators.mirror import mirror_app
from lib.errors import IncompleteTransferError, SourceChangedError
from lib.transport.http import HttpClient, RemoteFile
from lib.transport.limits import Limits
from lib.transport.listing import FileIdentity, Likeness, compare, plain_tag
from lib.transport.session import Session

ONE = Limits(1, None, 60.0, 60.0, 3, 0.001, 64 * 1024)  # a second look must not wait for itself
DATA = bytes(range(256)) * 4096
OTHER = DATA[:300_000] + b"!" + DATA[300_001:]
MONDAY, A_SECOND_LATER, TUESDAY = (
    "Mon, 01 Jan 2024 10:00:00 GMT",
    "Mon, 01 Jan 2024 10:00:01 GMT",
    "Tue, 02 Jan 2024 10:00:00 GMT",
)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("a", MONDAY), ("a", MONDAY), Likeness.SAME),
        (('"a"', MONDAY), ('W/"a"', MONDAY), Likeness.SAME),
        (('"a"', None), ('"a-gzip"', None), Likeness.SAME),
        (('W/"a;gzip"', MONDAY), ('"a"', A_SECOND_LATER), Likeness.SAME),
        (("a", MONDAY), (None, None), Likeness.SAME),
        (("a", None), (None, MONDAY), Likeness.SAME),
        ((None, MONDAY), (None, "2024-01-01T11:00:00Z"), Likeness.SAME),
        ((None, MONDAY), (None, A_SECOND_LATER), Likeness.ALIKE),
        (("a", MONDAY), ("b", A_SECOND_LATER), Likeness.ALIKE),
        (("a", MONDAY), ("a", TUESDAY), Likeness.ALIKE),
        (("a", MONDAY), ("b", TUESDAY), Likeness.OTHER),
        (("a", None), ("b", None), Likeness.OTHER),
        ((None, MONDAY), (None, TUESDAY), Likeness.OTHER),
        ((None, MONDAY), (None, "yesterday"), Likeness.OTHER),
        (
            (None, "2024-01-01T10:00:00Z"),
            (None, "2024-01-01T10:00:01Z"),
            Likeness.OTHER,
        ),
    ],
)
def test_weak_facts_are_weighed_together(
    one: tuple[str | None, str | None], other: tuple[str | None, str | None], expected: Likeness
) -> None:
    assert compare(FileIdentity(7, *one), FileIdentity(7, *other)) is expected
    assert compare(FileIdentity(7, *other), FileIdentity(None, *one)) is expected


@pytest.mark.parametrize(
    ("tag", "plain"),
    [
        ('"a-1f"', '"a-1f"'),
        ("bare", "bare"),
        ('W/"a-1f"', '"a-1f"'),
        ('"a-1f-gzip"', '"a-1f"'),
        ('W/"a-1f;br"', '"a-1f"'),
        ("", None),
        (None, None),
    ],
)
def test_a_plan_notes_a_tag_without_a_proxys_marks(tag: str | None, plain: str | None) -> None:
    assert plain_tag(tag) == plain


def test_strong_facts_decide() -> None:
    assert compare(FileIdentity(7, "a", MONDAY), FileIdentity(8, "a", MONDAY)) is Likeness.CHANGED
    one, other = FileIdentity(7, "a", MONDAY, "md5:1"), FileIdentity(7, "b", TUESDAY, "md5:1")
    assert compare(one, other) is Likeness.SAME
    assert compare(one, FileIdentity(7, "a", MONDAY, "md5:2")) is Likeness.CHANGED
    assert compare(one, FileIdentity(7, "a", MONDAY, "sha1:2")) is Likeness.SAME


# --- mirrors --------------------------------------------------------------------------------


class Served:
    def __init__(self, root: Path) -> None:
        self.control = Control()
        self.side = HttpSide(self.control)
        self.side.start()
        self.url = f"http://127.0.0.1:{self.side.add('mirror', mirror_app(root))}/volume.bin"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    (root / "volume.bin").write_bytes(DATA)
    served = Served(root)
    yield served
    served.side.stop()


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with Session("ebi", limits={"identity": ONE}) as session:
        yield session.http("identity")


def read(client: HttpClient, remote: RemoteFile, start: int, length: int) -> bytes:
    buffer = bytearray(length)
    client.read_range_into(remote, start, memoryview(buffer))
    return bytes(buffer)


def test_a_proxys_marks_on_a_tag_cost_no_request(
    client: HttpClient, served: Served, control: Control, tmp_path: Path
) -> None:
    remote = client.head(served.url)
    control.add("weak_etag", "mirror", every=2)
    control.counters.clear()
    for start in range(0, len(DATA), 2**18):
        assert read(client, remote, start, 1000) == DATA[start : start + 1000]
    client.check_same(remote)
    client.check_same(remote)
    assert client.download(remote, tmp_path / "v").sha256 == hashlib.sha256(DATA).hexdigest()
    assert control.counters.tally("mirror").requests == 4 + 2 + 1


@pytest.mark.parametrize("kind", ["other_node", "changed_etag"])
def test_nodes_that_alternate_are_looked_at_once_and_then_borne_with(
    client: HttpClient, served: Served, control: Control, tmp_path: Path, kind: str
) -> None:
    remote = client.head(served.url)
    control.add(kind, "mirror", every=2, skip=0)
    for start in (0, 2**19):
        assert read(client, remote, start, 70_000) == DATA[start : start + 70_000]
    control.counters.clear()
    for number in range(10):
        start = number * 90_000
        assert read(client, remote, start, 70_000) == DATA[start : start + 70_000]
    client.check_same(remote)
    client.check_same(remote)
    assert control.counters.tally("mirror").requests == 12
    assert client.download(remote, tmp_path / "v").sha256 == hashlib.sha256(DATA).hexdigest()


def test_a_cut_download_goes_on_at_another_node(
    client: HttpClient, served: Served, control: Control, tmp_path: Path, each_block: Any
) -> None:
    remote = client.head(served.url)
    control.add("short_body", "mirror", first_n=1, after_bytes=400_000, methods=["GET"])
    control.add("other_node", "mirror", skip=1)
    received: list[int] = []
    each_block(received.append)
    fetched = client.download(remote, tmp_path / "v")
    assert fetched.sha256 == hashlib.sha256(DATA).hexdigest()
    assert sum(received) == len(DATA)  # nothing came twice


def leave_part(served: Served, path: Path) -> None:
    served.control.add("short_body", "mirror", after_bytes=400_000, methods=["GET"])
    with (
        Session("ebi", limits={"once": Limits(1, tries=1)}) as session,
        pytest.raises(IncompleteTransferError),
    ):
        session.http("once").download(served.url, path)
    served.control.clear()


@pytest.mark.parametrize("spoilt", [False, True])
def test_a_part_of_another_node_is_continued_if_its_bytes_are_the_same(
    client: HttpClient,
    served: Served,
    control: Control,
    tmp_path: Path,
    spoilt: bool,
    each_block: Any,
) -> None:
    leave_part(served, tmp_path / "v")
    if spoilt:
        part = tmp_path / "v.partial"
        part.write_bytes(b"!" + part.read_bytes()[1:])
    control.add("other_node", "mirror")
    received: list[int] = []
    each_block(received.append)
    fetched = client.download(served.url, tmp_path / "v")
    assert fetched.sha256 == hashlib.sha256(DATA).hexdigest()
    assert (sum(received) == len(DATA)) == spoilt


def test_a_replaced_file_is_found_at_the_end(
    client: HttpClient, served: Served, control: Control
) -> None:
    remote = client.head(served.url)
    read(client, remote, 0, 1000)
    control.add("changed_file", "mirror", skip=0)
    with pytest.raises(SourceChangedError, match="Last-Modified"):
        client.check_same(remote)


# --- another file of the same size ----------------------------------------------------------

Version = tuple[bytes, str, str]  # content, tag, time


@pytest.fixture
def versions() -> Iterator[Callable[[Callable[[], Version]], str]]:
    """A server of one file, in the version that a test chooses for each request."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(choose: Callable[[], Version]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                data, etag, date = choose()
                span = self.headers.get("Range")
                first, last = 0, len(data) - 1
                if span:
                    a, _, b = span.removeprefix("bytes=").partition("-")
                    first, last = int(a), int(b or last)
                self.send_response(206 if span else 200)
                if span:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
                self.send_header("Content-Length", str(last + 1 - first))
                self.send_header("ETag", f'"{etag}"')
                self.send_header("Last-Modified", date)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data[first : last + 1])

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/f"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_other_bytes_under_another_tag_are_found_though_size_and_time_fit(
    client: HttpClient, versions: Callable[[Callable[[], Version]], str], tmp_path: Path
) -> None:
    now: list[Version] = [(DATA, "a", MONDAY)]
    remote = client.head(versions(lambda: now[0]))
    assert read(client, remote, 299_000, 2000) == DATA[299_000:301_000]
    kept = client.download(remote, tmp_path / "v").path
    now[0] = (OTHER, "b", MONDAY)
    with pytest.raises(SourceChangedError, match="bytes from 299000 on"):
        read(client, remote, 500_000, 10)
    with pytest.raises(SourceChangedError, match="bytes from 299000 on"):
        client.check_same(remote)
    now[0] = (OTHER[::-1], "c", MONDAY)
    with pytest.raises(SourceChangedError, match="bytes from 0 on"):
        client.check_same(remote, held=kept)


def test_nodes_that_hold_different_files_are_no_mirror(
    client: HttpClient, versions: Callable[[Callable[[], Version]], str]
) -> None:
    nodes = itertools.cycle([(DATA, "a", MONDAY), (DATA[::-1], "b", TUESDAY)])
    remote = client.head(versions(lambda: next(nodes)))

    def read_thrice() -> None:
        for _ in range(3):  # one of them at the least meets the other node
            read(client, remote, 0, 1000)

    with pytest.raises(SourceChangedError, match="bytes from 0 on"):
        read_thrice()


def test_nodes_whose_times_are_days_apart_are_a_mirror_if_their_bytes_are_the_same(
    client: HttpClient, versions: Callable[[Callable[[], Version]], str], tmp_path: Path
) -> None:
    nodes = itertools.cycle([(DATA, "a", MONDAY), (DATA, "b", TUESDAY), (DATA, "c", TUESDAY)])
    remote = client.head(versions(lambda: next(nodes)))
    for start in range(0, 900_000, 100_000):
        assert read(client, remote, start, 1000) == DATA[start : start + 1000]
    assert client.download(remote, tmp_path / "v").size == len(DATA)
    client.check_same(remote)


def test_ever_new_descriptions_come_to_an_end(
    client: HttpClient, versions: Callable[[Callable[[], Version]], str]
) -> None:
    numbers = itertools.count()
    remote = client.head(versions(lambda: (DATA, f"t{next(numbers)}", MONDAY)))
    with pytest.raises(SourceChangedError, match="ever new ways"):
        read(client, remote, 0, 1000)
