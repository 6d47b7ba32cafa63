"""The way out: failing proxies are named, loopback needs none, one CA bundle serves all."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lib.archives.openorganelle.archive import SERVICE
from lib.config.loader_base import EtagPolicy
from lib.config.loaders import OpenOrganelleConfig
from lib.errors import BadAnswerError, ConfigError, ProxyError, TransportError
from lib.ingest.context import open_session
from lib.transport import environment
from lib.transport.environment import CA_VARIABLES, exempt_loopback, is_loopback, tls_context
from lib.transport.http_wire import Wire
from lib.transport.limits import Limits
from lib.transport.session import Session
from tests.kit.tls import TlsFront

ONCE = Limits(4, None, 60.0, 60.0, 1, 0.001)
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
SECRET = "hidden"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (*VARIABLES, *map(str.upper, VARIABLES), *CA_VARIABLES):
        monkeypatch.setenv(name, "")  # so that it is restored, whoever changes it
        monkeypatch.delenv(name)
    environment._proxies.cache_clear()
    yield
    environment._proxies.cache_clear()


@pytest.fixture
def session() -> Iterator[Session]:
    with Session("ebi", limits={"way": ONCE}) as session:
        yield session


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # so that nobody else listens there
        yield int(unused.getsockname()[1])


@pytest.fixture
def plain() -> Iterator[int]:
    """A server on the loopback that answers everything with ``{}``."""

    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            if self.path.endswith("/tagged"):
                self.send_header("ETag", f'"{"0" * 32}"')  # of other bytes
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_port
        server.shutdown()


Reply = Callable[[socket.socket, str], None]


@pytest.fixture
def proxy() -> Iterator[Callable[[Reply], int]]:
    """A proxy of which a test writes the answers; it gets each request's first line."""
    listeners: list[socket.socket] = []

    def start(reply: Reply) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = listener.accept()[0]
                    with connection, contextlib.suppress(OSError):
                        with connection.makefile("rb") as file:
                            line = file.readline().decode()
                            while file.readline().strip():
                                pass
                        reply(connection, line)

        threading.Thread(target=serve, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.close()


# --- loopback -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.9.8.7", "[::1]"])
def test_loopback_has_many_names(host: str) -> None:
    assert is_loopback(host)
    assert not is_loopback(f"{host.strip('[]')}.example.org")


def test_loopback_is_never_reached_through_a_proxy(
    session: Session, plain: int, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    for host in ("127.0.0.1", "localhost"):
        assert session.http("way").get_json(f"http://{host}:{plain}/x") == {}
        found = session.objects("way", "s3://bucket", endpoint_url=f"http://{host}:{plain}")
        assert found.get("x") == b"{}"


def test_what_the_user_exempts_stays_exempt() -> None:
    environ = {"HTTP_PROXY": "http://p", "NO_PROXY": "a.org, 10.0.0.0/8"}
    exempt_loopback(environ)
    assert environ["NO_PROXY"] == environ["no_proxy"] == "a.org,10.0.0.0/8,localhost,127.0.0.1,::1"
    before = dict(environ)
    exempt_loopback(environ)
    assert environ == before
    for environ in ({}, {"HTTP_PROXY": "http://p", "no_proxy": "*"}):
        before = dict(environ)
        exempt_loopback(environ)
        assert environ == before


CLIENTS = """
import sys
import flows
import httpx, obstore, requests, urllib.request
from obstore.store import HTTPStore
url = sys.argv[1]
assert requests.get(url, timeout=20).ok
assert httpx.get(url, timeout=20).is_success
assert urllib.request.urlopen(url, timeout=20).status == 200
store = HTTPStore.from_url(url, client_options={"allow_http": True})
assert bytes(obstore.get(store, "k").bytes()) == b"{}"
"""


def test_clients_that_read_proxies_themselves_spare_loopback_too(
    plain: int, closed_port: int
) -> None:
    """requests, httpx (Prefect's), urllib, obstore (of stand-ins), in a process of the flows."""
    dead = f"http://127.0.0.1:{closed_port}"
    environ = {**os.environ, "HTTP_PROXY": dead, "http_proxy": dead, "ALL_PROXY": dead}
    subprocess.run(
        [sys.executable, "-c", CLIENTS, f"http://127.0.0.1:{plain}"],
        env=environ,
        check=True,
        timeout=300,
    )


# --- failing proxies ------------------------------------------------------------------------


def ask(session: Session, way: str, scheme: str) -> None:
    if way == "http":
        session.http("way").get_json(f"{scheme}://archive.invalid/x")
    else:
        endpoint = f"{scheme}://archive.invalid"
        session.objects("way", "s3://bucket", endpoint_url=endpoint).get("x")


@pytest.mark.parametrize("way", ["http", "s3"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_dead_proxy_is_named_without_its_password(
    session: Session, closed_port: int, monkeypatch: pytest.MonkeyPatch, way: str, scheme: str
) -> None:
    address = f"http://user:{SECRET}@127.0.0.1:{closed_port}"
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", address)
    with pytest.raises(ProxyError, match="refuses the connection") as caught:
        ask(session, way, scheme)
    text = str(caught.value)
    assert f"http://127.0.0.1:{closed_port} ({scheme.upper()}_PROXY)" in text
    assert "NO_PROXY" in text
    assert SECRET not in text
    assert caught.value.retryable


@pytest.mark.parametrize("way", ["http", "s3"])
def test_a_proxy_without_a_name_is_named(
    session: Session, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("all_proxy", "http://no-such-proxy.invalid:3128")
    with pytest.raises(ProxyError, match=r"no-such-proxy.invalid:3128 \(all_proxy\) has a name"):
        ask(session, way, "https")


@pytest.mark.parametrize("way", ["http", "s3"])
@pytest.mark.parametrize(("status", "retryable"), [(403, False), (407, False), (502, True)])
def test_a_proxy_that_refuses_the_way_is_named(
    session: Session,
    proxy: Callable[[Reply], int],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    status: int,
    retryable: bool,
) -> None:
    port = proxy(
        lambda connection, line: connection.sendall(f"HTTP/1.1 {status} No\r\n\r\n".encode())
    )
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{port}")
    with pytest.raises(ProxyError, match=f"refuses the way to the host .status {status}") as caught:
        ask(session, way, "https")
    assert caught.value.retryable == retryable


@pytest.mark.parametrize("way", ["http", "s3"])
def test_a_plain_proxy_that_wants_a_login_is_named(
    session: Session, proxy: Callable[[Reply], int], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    port = proxy(
        lambda connection, line: connection.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
    )
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    with pytest.raises(ProxyError, match="wants a login"):
        ask(session, way, "http")


@pytest.mark.parametrize("way", ["http", "s3"])
def test_answers_through_a_proxy_are_bounded_too(
    session: Session, proxy: Callable[[Reply], int], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    lines: list[str] = []

    def reply(connection: socket.socket, line: str) -> None:
        lines.append(line)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X-Long: " + b"x" * 60_000 + b"\r\n")

    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy(reply)}")
    with pytest.raises(BadAnswerError, match="more than the 262144 bytes"):
        ask(session, way, "http")
    assert lines[0].split()[1].startswith("http://archive.invalid/")


# --- certificates ---------------------------------------------------------------------------


@pytest.fixture
def front(plain: int, tmp_path: Path) -> Iterator[TlsFront]:
    one = TlsFront(("127.0.0.1", plain), tmp_path)
    yield one
    one.close()


def over_tls(front: TlsFront) -> None:
    with Session("ebi", limits={"way": ONCE}) as session:
        assert session.http("way").get_json(f"{front.url}/x") == {}
        assert session.objects("way", "s3://bucket", endpoint_url=front.url).get("x") == b"{}"


@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_any_one_variable_gives_all_clients_an_authority_of_ones_own(
    front: TlsFront, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with pytest.raises(TransportError, match=r"no secure connection.*SSL_CERT_FILE"):
        over_tls(front)
    monkeypatch.setenv(variable, str(front.authority))
    over_tls(front)


def test_a_bundle_that_every_variable_and_a_setting_name_is_read_once(
    front: TlsFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = str(front.authority)
    monkeypatch.setenv(CA_VARIABLES[0], bundle)
    once = tls_context()
    for name in CA_VARIABLES:
        monkeypatch.setenv(name, bundle)
    assert tls_context(bundle) is once


def test_an_object_store_of_plain_http_reads_no_authorities(
    plain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(further: str | None = None) -> None:
        raise AssertionError("authorities were read")

    monkeypatch.setattr("lib.transport.s3.requests.tls_context", refuse)
    with Session("ebi", limits={"way": ONCE}) as session:
        for url in (f"http://127.0.0.1:{plain}", f"HTTP://127.0.0.1:{plain}"):
            assert session.objects("way", "s3://bucket", endpoint_url=url).get("x") == b"{}"
        with pytest.raises(AssertionError, match="authorities were read"):
            session.objects("way", "s3://other", endpoint_url="HTTPS://127.0.0.1:1")
    with pytest.raises(ValueError, match="against nothing"):
        Wire("https://127.0.0.1", None, 1.0, 1.0, 1)


def test_etags_are_looked_at_over_tls_where_a_setting_asks_for_it(
    front: TlsFront, plain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(front.authority))
    cases: tuple[tuple[EtagPolicy, str, int], ...] = (
        ("plain-http", front.url, 1),
        ("plain-http", f"http://127.0.0.1:{plain}", 2),  # asked again: is the tag a digest?
        ("always", front.url, 2),
    )
    for policy, url, requests in cases:
        config = OpenOrganelleConfig(check_etags=policy)
        with open_session(config, "openorganelle", scratch_dir=None) as session:
            session.objects(SERVICE, "s3://bucket", endpoint_url=url).get("tagged")
            assert session.counters.service(SERVICE).requests == requests


@pytest.mark.parametrize("kind", ["absent", "no certificate"])
def test_a_bundle_that_is_none_is_named(
    front: TlsFront, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "bundle.pem"
    if kind == "no certificate":
        path.write_text("nothing")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    with pytest.raises(ConfigError, match="REQUESTS_CA_BUNDLE") as caught:
        over_tls(front)
    assert str(path) in str(caught.value)


def test_prefects_client_gets_the_same_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("")
    script = "import os, flows; print(os.environ['SSL_CERT_FILE'])"
    for mine, expected in (({}, str(bundle)), ({"SSL_CERT_FILE": "/mine"}, "/mine")):
        environ = {**os.environ, "REQUESTS_CA_BUNDLE": str(bundle), **mine}
        said = subprocess.run(
            [sys.executable, "-c", script], env=environ, check=True, capture_output=True, text=True
        )
        assert said.stdout.strip() == expected


ASK_FOR_ONE = """
import sys
from lib.transport import environment
environment._PORTS = [int(sys.argv[1])]
environment.free_ports("127.0.0.1", 1)
"""


def test_free_ports_are_given_to_nobody_else() -> None:
    """Neither to this process again nor to another, and whoever got them may listen."""
    mine = environment.free_ports("127.0.0.1", 3)
    assert len({*mine, *environment.free_ports("127.0.0.1", 3)}) == 6
    command = [sys.executable, "-c", ASK_FOR_ONE, str(mine[0])]
    told = subprocess.run(command, capture_output=True, text=True)
    assert "no 1 ports are free on 127.0.0.1" in told.stderr
    socket.create_server(("127.0.0.1", mine[0])).close()


def test_free_ports_are_found_where_no_names_can_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "AF_UNIX", 4711)  # no such family
    assert len(set(environment.free_ports("127.0.0.1", 2))) == 2
