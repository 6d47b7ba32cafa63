"""Credentials of the destination come the ecosystem's way, and are written down nowhere."""

from __future__ import annotations

import datetime
import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from emulators.control import Control
from emulators.http_side import HttpSide
from emulators.s3_proxy import S3Proxy
from flows.credentials import store_settings
from lib.config.manager import ConfigManager
from lib.errors import AccessDeniedError, DestinationError, MacroscopeError
from lib.storage.base import StoreSettings
from lib.storage.s3 import S3Store
from lib.storage.s3_objects import access_of
from lib.transport.s3.address import aws_session, bucket_url, region_of
from tests.end_to_end.bucket import KEY, SECRET, Bucket, Gate
from tests.kit.tls import TlsFront

_ROLE_KEY, _ROLE_SECRET, _ROLE_TOKEN = "ASIAROLE", "role-secret", "role-token"


def settings_of(**environ: str) -> StoreSettings:
    """As a run would have them with these variables alone."""
    return store_settings(ConfigManager().load(environ=environ, dotenv=None))


@pytest.fixture(autouse=True)
def _no_aws_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


# --- the usual chain, against the real server


def test_environment_and_profile_sign_requests(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = {"EM_DATA_DIR": bucket.uri, "EM_DEST_ENDPOINT_URL": bucket.endpoint_url}
    profile = f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    (tmp_path / "credentials").write_text(profile)
    S3Store(bucket.uri, settings_of(**address, EM_DEST_PROFILE="lab")).put("profile", b"1")

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    S3Store(bucket.uri, settings_of(**address)).put("environment", b"1")
    assert {item.key for item in bucket.store().list()} == {"profile", "environment"}


def test_the_region_is_the_profiles_unless_a_setting_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    of_chain = access_of(settings_of(EM_DATA_DIR="s3://volumes"))
    given = access_of(settings_of(EM_DATA_DIR="s3://volumes", EM_DEST_REGION="eu-west-1"))
    assert (region_of(of_chain), region_of(given)) == ("eu-west-3", "eu-west-1")


@pytest.mark.parametrize(
    ("style", "endpoint", "address"),
    [
        ("auto", "http://store.example:8333", "http://store.example:8333/volumes"),
        ("path", "http://store.example:8333", "http://store.example:8333/volumes"),
        ("virtual", "http://store.example:8333", "http://volumes.store.example:8333"),
        ("auto", None, "https://volumes.s3.eu-west-1.amazonaws.com"),
        ("virtual", None, "https://volumes.s3.eu-west-1.amazonaws.com"),
        ("path", None, "https://s3.eu-west-1.amazonaws.com/volumes"),
    ],
)
def test_path_and_virtual_host_style(style: str, endpoint: str | None, address: str) -> None:
    settings = StoreSettings(
        endpoint_url=endpoint,
        addressing_style=style,
        anonymous=True,  # type: ignore[arg-type]
    )
    assert bucket_url("volumes", access_of(settings), "eu-west-1") == address


def test_anonymous_reading_signs_nothing(bucket: Bucket) -> None:
    store = S3Store(
        bucket.uri,
        settings_of(
            EM_DATA_DIR=bucket.uri,
            EM_DEST_ENDPOINT_URL=bucket.endpoint_url,
            EM_DEST_ANONYMOUS="true",
        ),
    )
    with pytest.raises(AccessDeniedError):
        store.get("anything")
    assert bucket.gate.signers == set()


# --- roles: tokens of an STS and of an instance, against a server that takes any


class Roles:
    """A server that hands out one role's credentials in three ways, before an S3 stand-in."""

    def __init__(self) -> None:
        self.moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.moto.start()
        host, port = self.moto.get_host_and_port()
        self.side = HttpSide(Control())
        self.side.start()
        proxy = S3Proxy(f"http://{host}:{port}")
        self.side.at_end(proxy.close)
        self.gate = Gate(proxy)
        self.endpoint_url = f"http://127.0.0.1:{self.side.add('destination', self.gate)}"
        routes = [
            Route("/", _assume_role, methods=["POST"]),
            Route("/latest/api/token", lambda r: PlainTextResponse("session"), methods=["PUT"]),
            Route("/latest/meta-data/iam/security-credentials/", lambda r: PlainTextResponse("it")),
            Route("/latest/meta-data/iam/security-credentials/it", _instance),
            Route("/pod", _instance),
        ]
        self.url = f"http://127.0.0.1:{self.side.add('*', Starlette(routes=routes))}"
        make = StoreSettings(endpoint_url=self.endpoint_url, key="any", secret="any")
        _create_bucket(make)
        self.gate.signers.clear()

    def stop(self) -> None:
        self.side.stop()
        self.moto.stop()


def _create_bucket(settings: StoreSettings) -> None:
    client = aws_session(access_of(settings)).client(
        "s3", endpoint_url=settings.endpoint_url, region_name="us-east-1"
    )
    client.create_bucket(Bucket="roles")
    client.close()


def _soon() -> str:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    return later.strftime("%Y-%m-%dT%H:%M:%SZ")


async def _assume_role(request: Request) -> Response:
    asked = (await request.body()).decode()
    assert "AssumeRoleWithWebIdentity" in asked
    assert "WebIdentityToken=pod-token" in asked
    return Response(
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        "<AssumeRoleWithWebIdentityResult><Credentials>"
        f"<AccessKeyId>{_ROLE_KEY}</AccessKeyId><SecretAccessKey>{_ROLE_SECRET}</SecretAccessKey>"
        f"<SessionToken>{_ROLE_TOKEN}</SessionToken><Expiration>{_soon()}</Expiration>"
        "</Credentials><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn>"
        "<AssumedRoleId>x:s</AssumedRoleId></AssumedRoleUser></AssumeRoleWithWebIdentityResult>"
        "</AssumeRoleWithWebIdentityResponse>",
        media_type="text/xml",
    )


async def _instance(request: Request) -> Response:
    return JSONResponse(
        {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": _ROLE_KEY,
            "SecretAccessKey": _ROLE_SECRET,
            "Token": _ROLE_TOKEN,
            "Expiration": _soon(),
        }
    )


@pytest.fixture(scope="module")
def roles_server() -> Iterator[Roles]:
    running = Roles()
    yield running
    running.stop()


@pytest.fixture
def roles(roles_server: Roles) -> Roles:
    roles_server.gate.signers.clear()
    roles_server.gate.tokens.clear()
    return roles_server


@pytest.mark.parametrize("way", ["web identity", "instance role", "pod identity"])
def test_roles_of_pods_and_machines_sign_with_their_token(
    roles: Roles, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if way == "web identity":
        (tmp_path / "token").write_text("pod-token")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/store")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", roles.url)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
    elif way == "instance role":
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "60")  # one second, unless this is set
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", roles.url)
    else:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{roles.url}/pod")
    settings = settings_of(EM_DATA_DIR="s3://roles/x", EM_DEST_ENDPOINT_URL=roles.endpoint_url)
    store = S3Store("s3://roles/x", settings)
    store.put("k", b"voxels")
    assert store.get("k") == b"voxels"
    assert store.sweep_temporaries("v") == 0  # by the other client
    assert roles.gate.signers == {_ROLE_KEY}
    assert roles.gate.tokens == {_ROLE_TOKEN}
    moved = pickle.loads(pickle.dumps(settings))
    assert _ROLE_SECRET not in repr(settings) + settings.model_dump_json()
    assert moved == settings  # a worker asks for the role by itself


# --- TLS with an authority of one's own


def test_an_authority_of_ones_own_is_trusted_when_it_is_named(
    bucket: Bucket, tmp_path: Path
) -> None:
    host, _, port = bucket.server.endpoint_url.removeprefix("http://").partition(":")
    front = TlsFront((host, int(port)), tmp_path)
    given = {
        "EM_DATA_DIR": bucket.uri,
        "EM_DEST_ENDPOINT_URL": front.url,
        "EM_DEST_KEY": KEY,
        "EM_DEST_SECRET": SECRET,
    }
    try:
        with pytest.raises(DestinationError, match="no secure connection"):
            S3Store(bucket.uri, settings_of(**given)).put("k", b"1")
        with pytest.raises(DestinationError, match="no secure connection"):
            S3Store(bucket.uri, settings_of(**given)).sweep_temporaries("v")
        trusting = settings_of(**given, EM_DEST_CA_BUNDLE=str(front.authority))
        store = S3Store(bucket.uri, trusting)
        store.put("k", b"1")
        assert store.get("k") == b"1"
        assert store.sweep_temporaries("v") == 0
    finally:
        front.close()


# --- Prefect


def test_blocks_by_name_and_nothing_of_them_in_what_prefect_stores(
    prefect_server: str,
    samples: Any,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One source through its flow, with a block for the store, then a search for the secret."""
    from prefect.client.orchestration import get_client
    from prefect_aws import AwsClientParameters, AwsCredentials, MinIOCredentials, S3Bucket

    client = AwsClientParameters(endpoint_url=bucket.endpoint_url)
    aws = AwsCredentials(
        aws_access_key_id=KEY, aws_secret_access_key=SECRET, aws_client_parameters=client
    )
    minio = MinIOCredentials(
        minio_root_user=KEY, minio_root_password=SECRET, aws_client_parameters=client
    )
    aws.save("store", overwrite=True)
    S3Bucket(bucket_name="volumes", credentials=aws).save("store", overwrite=True)
    S3Bucket(bucket_name="volumes", credentials=minio).save("minio", overwrite=True)
    for block in ("aws-credentials/store", "s3-bucket/store", "s3-bucket/minio"):
        settings = settings_of(EM_DATA_DIR=bucket.uri, EM_DEST_CREDENTIALS_BLOCK=block)
        assert SECRET not in repr(settings)
        S3Store(bucket.uri, settings).put(f"by/{block}", b"1")
    with pytest.raises(MacroscopeError, match="cannot be loaded"):
        settings_of(EM_DATA_DIR=bucket.uri, EM_DEST_CREDENTIALS_BLOCK="s3-bucket/absent")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EM_DATA_DIR", bucket.uri)
    monkeypatch.setenv("EM_DEST_CREDENTIALS_BLOCK", "aws-credentials/store")
    monkeypatch.setenv("EM_SERVICES", json.dumps(samples.endpoints))
    from flows.openorganelle import openorganelle

    result = openorganelle()
    assert result.success, result.errors
    with get_client(sync_client=True) as api:
        deadline = time.monotonic() + 240  # the server notes task runs behind the events of a run
        while not api.read_task_runs():
            assert time.monotonic() < deadline, "no task run was noted"
            time.sleep(0.5)
        stored: list[Any] = [api.read_flow_runs(), api.read_task_runs(), api.read_artifacts()]
        stored += [api.read_logs()]
    assert all(stored[:3])
    texts = [one.model_dump_json() for kind in stored for one in kind]
    out = capfd.readouterr()
    assert not [text for text in [*texts, out.out, out.err] if SECRET in text]
    kept = bucket.store()
    assert not [item.key for item in kept.list() if SECRET.encode() in kept.get(item.key)]
    logs = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent.name for path in logs} == {"logs"}  # and nothing else on disk
    assert not [path for path in logs if SECRET in path.read_text()]


def test_results_can_be_kept_in_the_same_bucket_by_a_block(
    prefect_server: str, bucket: Bucket
) -> None:
    from prefect import flow
    from prefect_aws import AwsClientParameters, AwsCredentials, S3Bucket

    credentials = AwsCredentials(
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        aws_client_parameters=AwsClientParameters(endpoint_url=bucket.endpoint_url),
    )
    folder = f"{bucket.prefix}/results"
    storage = S3Bucket(bucket_name="volumes", credentials=credentials, bucket_folder=folder)
    storage.save("results", overwrite=True)

    @flow(persist_result=True, result_storage=storage)
    def answer() -> dict[str, int]:
        return {"volumes": 5}

    state = answer(return_state=True)
    assert state.result() == {"volumes": 5}
    assert len(list(bucket.store().list("results"))) >= 1
