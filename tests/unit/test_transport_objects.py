"""Object stores: absent is what the store says is absent, and every other failure has a name."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

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
    TransportError,
)
from lib.transport.limits import Limits
from lib.transport.objects import ObjectReader
from lib.transport.session import Session

BUCKET = "cosem-test"
QUICK = Limits(4, None, 2.0, 1.0, 3, 0.005)
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
def control(served: Served) -> Iterator[Control]:
    served.control.clear()
    yield served.control
    served.control.clear()


@pytest.fixture
def session() -> Iterator[Session]:
    stopping.reset()
    with Session("openorganelle", limits={"s3": QUICK}) as session:
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


def test_anonymous_requests_are_not_signed(reader: ObjectReader, control: Control) -> None:
    with pytest.raises(AccessDeniedError):
        ObjectReader(
            "x",
            f"s3://{BUCKET}",
            QUICK,
            reader._limiter,
            reader._counters,
            endpoint_url=reader._store.config["endpoint"],
            anonymous=False,
            key="wrong",
            secret="wrong",
        ).get("set.zarr/.zgroup")
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
    assert len(reader.list("s0", delimiter=False).objects) == 4


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
    assert control.counters.tally("s3").requests == 4


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
    assert session.counters.snapshot()["s3"]["retries"] == 1


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
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    reader = session.objects("s3", "s3://bucket", endpoint_url=f"http://127.0.0.1:{port}")
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
