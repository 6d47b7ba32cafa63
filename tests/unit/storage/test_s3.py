"""What a bucket promises beyond the contract: against SeaweedFS, and its faults through a proxy."""

from __future__ import annotations

import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lib.concurrency import cancel as stopping
from lib.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConfigError,
    DestinationBusyError,
    DestinationError,
    DestinationFullError,
    MacroscopeError,
    StoppedError,
)
from lib.storage import s3_lease, s3_writes
from lib.storage.base import StoreSettings
from lib.storage.s3 import S3Store
from lib.storage.s3_objects import access_of, endpoint_of
from lib.transport.s3.address import aws_session, parse_uri, server_url

if TYPE_CHECKING:
    Destination = Any

AWS_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_CA_BUNDLE",
)


@pytest.fixture(autouse=True)
def _no_aws_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in AWS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"s3://volumes/{tmp_path.name}-{time.monotonic_ns()}"


@pytest.fixture
def store(destination: Destination, uri: str) -> S3Store:
    return S3Store(uri, destination.settings())


@pytest.fixture
def faulty(destination: Destination, uri: str) -> S3Store:
    """The same objects, through the proxy that lets clients down."""
    return S3Store(uri, destination.settings(faulty=True))


# --- who may do what -------------------------------------------------------------------------


def test_a_wrong_key_a_wrong_secret_and_a_denied_write_are_told_apart(
    destination: Destination, uri: str
) -> None:
    wrong_key = S3Store(uri, destination.settings(key="nobody"))
    wrong_secret = S3Store(uri, destination.settings(secret="wrong-secret"))
    nobody = S3Store(uri, destination.settings(key=None, secret=None, anonymous=True))
    with pytest.raises(AccessDeniedError, match="does not know the access key") as first:
        wrong_key.put("k", b"1")
    with pytest.raises(AccessDeniedError, match="the secret key is wrong") as second:
        wrong_secret.put("k", b"1")
    with pytest.raises(AccessDeniedError, match="refuses access"):
        nobody.put("k", b"1")
    assert first.value.location == f"{uri}/k"
    assert "wrong-secret" not in str(second.value) + repr(second.value.__cause__)
    assert wrong_key.counts()["PUT"] == 1  # what cannot help is not tried again


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.get("k"),
        lambda store: store.size("k"),
        lambda store: list(store.list()),
        lambda store: store.list_folder(),
        lambda store: store.get_range("k", 0, 1),
    ],
)
def test_a_missing_bucket_is_not_an_empty_one(destination: Destination, call: Any) -> None:
    with pytest.raises(DestinationError, match="bucket does not exist"):
        call(S3Store("s3://absent-bucket/x", destination.settings()))


class Refusing:
    """An S3 server with one answer, for what SeaweedFS does not say on demand."""

    def __init__(self) -> None:
        self.status, self.code = 500, ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        body = f"<?xml version='1.0'?><Error><Code>{self.code}</Code></Error>"
        await Response(body, self.status, media_type="application/xml")(scope, receive, send)


@pytest.fixture(scope="session")
def refusing_server(destination_server: Destination) -> tuple[Refusing, int]:
    app = Refusing()
    return app, destination_server.side.add("destination", app)


@pytest.mark.parametrize(
    ("status", "code", "kind", "word", "tries"),
    [
        (400, "ExpiredToken", AccessDeniedError, "credentials have expired", 1),
        (403, "RequestTimeTooSkewed", AccessDeniedError, "clock is wrong", 1),
        (403, "AccessDenied", AccessDeniedError, "refuses access", 1),
        (507, "InsufficientStorage", DestinationFullError, "full", 1),
        (403, "QuotaExceeded", DestinationFullError, "full", 1),
        (404, "NoSuchBucket", DestinationError, "bucket does not exist", 1),
        (400, "AuthorizationHeaderMalformed", DestinationError, "another region", 1),
        (501, "NotImplemented", DestinationError, "501 NotImplemented", 1),
        (503, "SlowDown", DestinationError, "503 SlowDown", 2),
        (400, "BadDigest", DestinationError, "BadDigest", 2),
        (409, "ConditionalRequestConflict", DestinationError, "409", 2),
        (500, "InternalError", DestinationError, "500", 2),
    ],
)
def test_every_refusal_has_its_name_and_only_passing_ones_are_tried_again(
    refusing_server: tuple[Refusing, int],
    status: int,
    code: str,
    kind: type[MacroscopeError],
    word: str,
    tries: int,
) -> None:
    app, port = refusing_server
    app.status, app.code = status, code
    settings = StoreSettings(
        endpoint_url=f"127.0.0.1:{port}", key="k", secret="top-secret", attempts=2
    )
    for create in (False, True):
        store = S3Store("s3://bucket", settings)
        with pytest.raises(kind, match=word) as caught:
            store.put("k", b"1", create=create)
        assert caught.value.retryable is (tries > 1)
        assert caught.value.advice
        assert store.counts()["PUT"] == tries
        assert "top-secret" not in str(caught.value) + repr(caught.value.__cause__)


def test_a_server_that_is_not_there_or_speaks_no_tls_is_named(destination: Destination) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        dead = StoreSettings(endpoint_url=f"127.0.0.1:{port}", anonymous=True, attempts=1)
        with pytest.raises(DestinationError, match="refuses the connection"):
            S3Store("s3://bucket", dead).get("k")
    unknown = StoreSettings(endpoint_url="http://no.invalid", anonymous=True, attempts=1)
    with pytest.raises(DestinationError, match="does not resolve"):
        S3Store("s3://bucket", unknown).get("k")


# --- uploads ---------------------------------------------------------------------------------


def test_the_server_verifies_the_bytes_before_it_stores_them(
    destination: Destination, store: S3Store
) -> None:
    """Something between us and the server inverts a byte of the upload."""
    from emulators.s3_proxy import S3Proxy

    left = 1

    async def inverting(scope: Scope, receive: Receive, send: Send) -> None:
        async def changed() -> Any:
            nonlocal left
            message = await receive()
            body = message.get("body", b"")
            if scope["method"] == "PUT" and body and left:
                left -= 1
                message["body"] = bytes([body[0] ^ 255]) + body[1:]
            return message

        await proxy(scope, changed, send)

    proxy = S3Proxy(destination.server.endpoint_url)
    destination.side.at_end(proxy.close)
    port = destination.side.add("destination", inverting)
    spoilt = S3Store(store.uri, destination.settings(endpoint_url=f"127.0.0.1:{port}", attempts=1))
    with pytest.raises(DestinationError, match="BadDigest"):
        spoilt.put("k", b"abcdef")
    assert store.size("k") is None
    left = 1
    patient = S3Store(store.uri, spoilt.settings.model_copy(update={"attempts": 3}))
    patient.put("k", b"abcdef")
    assert store.get("k") == b"abcdef"
    assert patient.counts()["PUT"] == 2


def test_passing_faults_are_survived(
    destination: Destination, faulty: S3Store, store: S3Store
) -> None:
    destination.control.add("status_503", "destination", first_n=1)
    faulty.put("a/k", b"1")
    destination.control.add("reset", "destination", first_n=1, before=True)
    assert faulty.get("a/k") == b"1"
    destination.control.add("short_body", "destination", first_n=1, methods=["GET"])
    faulty.put("a/long", b"x" * 100_000)
    assert faulty.get("a/long") == b"x" * 100_000
    destination.control.add("status_500", "destination", first_n=1)
    assert [found.key for found in faulty.list()] == ["a/k", "a/long"]
    destination.control.add("status_503", "destination", first_n=1)
    faulty.delete_tree("a")
    assert list(store.list()) == []


@pytest.mark.parametrize("create", [False, True])
def test_a_lost_reply_to_a_write_that_went_through_is_a_success(
    destination: Destination, faulty: S3Store, store: S3Store, create: bool
) -> None:
    destination.control.add("lost_reply", "destination", first_n=2)
    faulty.put("k", b"ours", create=create)
    assert store.get("k") == b"ours"
    assert faulty.counts()["PUT"] >= 2


def test_after_a_lost_reply_another_runs_object_is_not_taken_for_ours(
    destination: Destination, faulty: S3Store, store: S3Store
) -> None:
    store.put("k", b"theirs")
    destination.control.add("lost_reply", "destination", first_n=1)
    with pytest.raises(AlreadyExistsError):
        faulty.put("k", b"ours", create=True)
    assert store.get("k") == b"theirs"


def test_a_large_object_goes_up_in_parts(
    destination: Destination, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_writes, "_PART", 5 * 2**20)
    store = S3Store(uri, destination.settings(multipart_above=5 * 2**20))
    part = bytes(range(256)) * 4096
    store.put("big", [part] * 8)
    assert store.size("big") == 8 * 2**20
    assert store.get_range("big", 5 * 2**20 - 5, 10) == part[-5:] + part[:5]
    assert store.counts()["PUT"] == 4  # begin, two parts, end


def test_an_upload_that_a_killed_run_left_is_swept(
    destination: Destination, store: S3Store, uri: str
) -> None:
    client = aws_session(access_of(store.settings)).client(
        "s3", endpoint_url=endpoint_of(store.settings)
    )
    prefix = uri.removeprefix("s3://volumes/")
    for key in (f"{prefix}/ebi/x.npy", f"{prefix}/idr/y.npy"):
        begun = client.create_multipart_upload(Bucket="volumes", Key=key)
        client.upload_part(
            Bucket="volumes", Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"half"
        )
    client.close()
    assert list(store.list()) == []
    assert store.sweep_temporaries("ebi") == 1
    assert store.sweep_temporaries() == 1
    assert store.sweep_temporaries() == 0


@pytest.mark.parametrize(
    ("method", "match"), [("PUT", "partNumber=2"), ("POST", "uploadId=")], ids=["part", "end"]
)
def test_an_upload_in_parts_that_fails_leaves_none(
    destination: Destination,
    store: S3Store,
    uri: str,
    method: str,
    match: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_writes, "_PART", 5 * 2**20)
    settings = destination.settings(faulty=True, multipart_above=5 * 2**20, attempts=1)
    destination.control.add("status_503", "destination", match=match, methods=[method])
    with pytest.raises(DestinationError, match="503"):
        S3Store(uri, settings).put("big", [bytes(2**20)] * 8)
    assert store.size("big") is None
    assert store.sweep_temporaries() == 0


# --- listing and counting --------------------------------------------------------------------


def test_requests_are_counted_by_kind_and_lists_by_the_thousand(
    destination: Destination, faulty: S3Store
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: faulty.put(f"v/c/{number}", b""), range(1001)))
    asked = destination.control.counters.tally("destination").methods
    destination.control.counters.clear()
    before = faulty.counts()
    assert before["PUT"] == asked["PUT"] >= 1001  # more only where the server let one down
    assert len(list(faulty.list("v"))) == 1001
    faulty.size("v/c/0")
    faulty.get("v/c/0")
    faulty.delete_tree("v")
    counted = {kind: count - before[kind] for kind, count in faulty.counts().items()}
    assert counted == {"PUT": 0, "GET": 1, "HEAD": 1, "LIST": 4, "DELETE": 2}
    assert len(destination.control.counters.log("destination")) == sum(counted.values())


def test_a_half_deleted_tree_has_lost_its_root_first(
    destination: Destination, faulty: S3Store, store: S3Store
) -> None:
    for name in ("zarr.json", "c/0/0", "c/0/1"):
        store.put(f"x.zarr/{name}", b"1")
    destination.control.add(
        "status_403", "destination", match=r"\?delete", methods=["POST"], skip=1
    )
    with pytest.raises(AccessDeniedError):
        faulty.delete_tree("x.zarr")
    assert [found.key for found in store.list()] == ["x.zarr/c/0/0", "x.zarr/c/0/1"]


# --- stopping --------------------------------------------------------------------------------


def test_a_stop_ends_the_waiting_but_still_lets_the_last_record_be_written(
    destination: Destination, faulty: S3Store, store: S3Store
) -> None:
    destination.control.add("status_503", "destination", methods=["PUT"])
    patient = S3Store(store.uri, destination.settings(faulty=True, attempts=1000))
    threading.Timer(0.2, stopping.request_stop).start()
    with pytest.raises(StoppedError):
        patient.put("k", b"1")
    destination.control.clear()
    destination.control.add("status_503", "destination", methods=["PUT"], first_n=1)
    assert stopping.stop_requested()
    faulty.put("record", b"cancelled")
    assert store.get("record") == b"cancelled"


# --- leases ----------------------------------------------------------------------------------


def on_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the holder's process untraceable, as that of another machine is."""
    monkeypatch.setattr(s3_lease, "process_identity", lambda pid: None)


def test_a_holder_that_stopped_renewing_is_replaced_after_its_term_only(
    destination: Destination, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_another_host(monkeypatch)
    settings = destination.settings(lease_seconds=1.5)
    dead = S3Store(uri, settings)
    started = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(s3_lease.Lease, "_beat", lambda self: None)
        dead.lock("v", "killed").__enter__()
    with S3Store(uri, settings).lock("v", "next"):
        assert time.monotonic() - started > 1.4
    assert dead._objects.listing("") == []


@pytest.mark.parametrize("stated", ["", ', "seconds": 3600.0', ', "seconds": "x"'])
def test_the_term_of_a_lease_is_its_holder_s_own(
    destination: Destination, uri: str, monkeypatch: pytest.MonkeyPatch, stated: str
) -> None:
    """A run with a shorter `dest_lease_seconds` does not take over from one that renews less often.

    A lease of 0.1.0 states none, and one that states nonsense has the term of who looks.
    """
    on_another_host(monkeypatch)
    holder = f'{{"run": "slow", "host": "h", "pid": 1, "since": "now"{stated}}}'.encode()
    quick = S3Store(uri, destination.settings(lease_seconds=1.0))
    quick._writes.put("ebi/.locks/x.lease", [memoryview(holder)], "")
    lease = quick.lock("ebi/x", "quick")
    monkeypatch.setattr(lease, "_server_time", lambda: datetime.now(UTC) + timedelta(seconds=600))
    found = lease._read()  # type: ignore[attr-defined]
    assert lease._abandoned(found) == (stated != ', "seconds": 3600.0')  # type: ignore[attr-defined]


def test_a_lease_states_its_term(destination: Destination, uri: str) -> None:
    store = S3Store(uri, destination.settings(lease_seconds=77.0))
    with store.lock("ebi/x", "run"):
        assert json.loads(store._objects.get("ebi/.locks/x.lease").data)["seconds"] == 77.0


def test_a_dead_process_of_this_machine_is_found_out_at_once() -> None:
    import os
    import subprocess
    import sys

    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = s3_lease.process_identity(child.pid)
    assert identity is not None
    assert not s3_lease.is_dead(identity)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert s3_lease.is_dead(identity)  # not waited for yet: a zombie
    child.communicate()
    assert s3_lease.is_dead(identity)
    here = s3_lease.process_identity(os.getpid())
    assert here is not None
    assert not s3_lease.is_dead(here)
    assert s3_lease.is_dead([*here[:3], "1"])  # the number was given to another process
    assert not s3_lease.is_dead(["another-boot", *identity[1:]])
    for doubtful in (None, [], "x", [1, 2, 3, 4], [*here[:2], "1; rm", "2"]):
        assert not s3_lease.is_dead(doubtful)


def test_a_run_whose_lease_was_overwritten_finds_out_and_leaves_the_thief_alone(
    destination: Destination, uri: str
) -> None:
    store = S3Store(uri, destination.settings(lease_seconds=0.6))
    lease = store.lock("ebi/x", "first")
    lease.__enter__()
    thief = b'{"run": "thief", "host": "h", "pid": 1, "since": "now"}'
    S3Store(uri, destination.settings())._writes.put(
        "ebi/.locks/x.lease", [memoryview(thief)], None
    )
    lease._thread.join(120)  # type: ignore[attr-defined]
    with pytest.raises(DestinationBusyError, match="lease on ebi/x is over"):
        store.put("ebi/x.ome.zarr/c/0", b"1")
    with pytest.raises(DestinationBusyError, match="thief"):
        lease.__exit__(None, None, None)
    with pytest.raises(DestinationBusyError, match="lease on ebi/x is over"):
        store.put("ebi/x.ome.zarr/c/0", b"1")
    assert list(store.list()) == []
    assert len(store._objects.listing("ebi/.locks")) == 1  # the thief's stays


def test_a_lease_outlives_lost_replies_and_refusals(
    destination: Destination, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_lease, "BEATS", 600)  # soon, of a term that no busy machine outlasts
    store = S3Store(uri, destination.settings(faulty=True, lease_seconds=120.0))
    faults = {"lost_reply": 2, "status_503": 2}
    with store.lock("v", "first"):
        destination.control.add("lost_reply", "destination", match=r"\.lease", first_n=2)
        destination.control.add("status_503", "destination", match=r"\.lease", skip=2, first_n=2)
        for _ in range(2400):
            if destination.control.faults.fired() == faults:
                break
            time.sleep(0.05)
        store.put("v/k", b"1")
    assert destination.control.faults.fired() == faults
    assert [found.key for found in store.list()] == ["v/k"]


async def careless(scope: Scope, receive: Receive, send: Send) -> None:
    """A server that takes every PUT, whatever its conditions."""
    while (await receive()).get("more_body"):
        pass
    body = b"" if scope["method"] == "PUT" else b"<DeleteResult></DeleteResult>"
    await Response(body, headers={"ETag": '"1"'}, media_type="application/xml")(
        scope, receive, send
    )


def test_a_server_that_ignores_conditions_is_refused(destination: Destination) -> None:
    port = destination.side.add("destination", careless)
    settings = destination.settings(endpoint_url=f"127.0.0.1:{port}", attempts=1)
    store = S3Store("s3://bucket", settings)
    with pytest.raises(DestinationError, match="ignores conditional writes"):
        store.lock("v", "run").__enter__()
    assert store.counts()["DELETE"] == 1


# --- addresses and credentials ---------------------------------------------------------------


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="must not carry credentials") as caught:
        parse_uri("s3://AKIA:hidden@bucket/x")
    assert "hidden" not in str(caught.value)
    assert parse_uri("s3://bucket/a/b/") == ("bucket", "a/b")


def test_servers_without_a_scheme_are_https_except_on_this_machine() -> None:
    assert server_url("127.0.0.1:9000") == "http://127.0.0.1:9000"
    assert server_url("localhost:9000") == "http://localhost:9000"
    assert server_url("minio.lab:9000") == "https://minio.lab:9000"
    assert server_url("http://minio.lab:9000/") == "http://minio.lab:9000"


def test_without_credentials_it_says_where_to_put_them() -> None:
    with pytest.raises(AccessDeniedError, match=r"no credentials .* an AWS profile"):
        S3Store("s3://bucket", StoreSettings(endpoint_url="127.0.0.1:1"))


@pytest.mark.parametrize("way", ["environment", "profile"])
def test_the_aws_chain_gives_credentials_and_address(
    destination: Destination, uri: str, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", destination.server.endpoint_url)
    profile = None
    if way == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", destination.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", destination.secret)
    else:
        profile = "lab"
        (tmp_path / "credentials").write_text(
            f"[lab]\naws_access_key_id={destination.key}\n"
            f"aws_secret_access_key={destination.secret}\n"
        )
    store = S3Store(uri, StoreSettings(profile=profile))
    store.put("k", b"1")
    assert store.get("k") == b"1"
    assert store.sweep_temporaries() == 0


def test_explicit_credentials_do_not_mix_with_those_of_the_environment(
    destination: Destination, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone-else")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a token that the server would refuse")
    S3Store(uri, destination.settings()).put("k", b"1")


def test_impossible_settings_are_refused_without_showing_secrets(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belong together") as caught:
        StoreSettings(secret="hidden")
    assert "hidden" not in str(caught.value)
    with pytest.raises(ConfigError, match="no profile"):
        S3Store("s3://bucket", StoreSettings(profile="absent"))
    with pytest.raises(ConfigError, match="CA bundle"):
        S3Store(
            "s3://bucket", StoreSettings(anonymous=True, ca_bundle=str(tmp_path / "absent.pem"))
        )
