"""Addresses: what each spelling means, and what is refused with the nearest word."""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.archives.address.archive import _address_of
from lib.archives.address.finding import find_volumes
from lib.archives.address.grammar import (
    CONTAINERS,
    AddressStep,
    absolute,
    parse_address,
    rounds,
    settings_of,
)
from lib.archives.address.places import Place
from lib.config.loader_base import AddressConfig
from lib.config.manager import ConfigManager
from lib.errors import AccessDeniedError, ConfigError
from lib.execution import MODES
from lib.formats import registry
from lib.formats.format import Options
from lib.ingest.planning import by_round
from lib.plan import VolumePlan
from lib.safety import is_address, redact, same_place
from lib.transport.bounds import ServiceCounters
from lib.transport.environment import ReachPolicy
from lib.transport.listing import Listing
from lib.transport.session import Session
from tests.kit.memory_tree import MemoryObjects

HERE = Path("/data/em")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a.tif", "file:///data/em/a.tif"),
        ("./x/../a b.tif|tiff:", "file:///data/em/a%20b.tif|tiff:"),
        ("/data/sections/|tiff:", "file:///data/sections/|tiff:"),
        ("file:///data/100%25.tif", "file:///data/100%25.tif"),
        ("/data/100%.tif", "file:///data/100%25.tif"),
        ("https://Host/a.zip|zip:stack/|tiff:", "https://host/a.zip|zip:stack/|tiff:"),
        ("https://host/a%20b/x.h5|zarr:volumes/raw", "https://host/a%20b/x.h5|zarr:volumes/raw"),
        ("s3://bucket/x.zarr|zarr2:em/s0", "s3://bucket/x.zarr|zarr2:em/s0"),
        ("s3://bucket/100%.zarr", "s3://bucket/100%.zarr"),
        ("gs://bucket", "gs://bucket/"),
        ("gs://bucket/a #1?.tif", "gs://bucket/a #1?.tif"),
        ("s3://bucket/a%7Cb%257Cc|zip:d%257ce#1", "s3://bucket/a%7Cb%257Cc|zip:d%257ce#1"),
        ("ftp://host:2121/pub/a.mrc", "ftp://host:2121/pub/a.mrc"),
        ("/a%7Cb.tif", "file:///a%7Cb.tif"),
        ("precomputed://gs://bucket/em/seg", "gs://bucket/em/seg|neuroglancer-precomputed:"),
        ("zarr3://https://Host/x.zarr/", "https://host/x.zarr/|zarr3:"),
    ],
)
def test_an_address_has_one_spelling_that_reads_as_itself(text: str, shown: str) -> None:
    address = parse_address(text, HERE)
    assert str(address) == shown
    assert parse_address(shown) == address


def test_the_steps_are_those_of_the_pipeline() -> None:
    address = parse_address("https://host/a.zip|zip:stack/|zarr:/em//s0/")
    assert address.steps == (AddressStep("zip", "stack", True), AddressStep("zarr", "em/s0", True))


@pytest.mark.parametrize(
    "place",
    ["https://h/a.zip", "https://h/a.zip|zip:", "https://h/a.zip|zip:only/", "https://h/a.zip/in"],
)
def test_a_signature_goes_with_whatever_was_found_behind_its_address(place: str) -> None:
    config = AddressConfig(addresses=["https://h/other.zip?sig=2", "https://h/a.zip?sig=1"])
    plan = cast(VolumePlan, SimpleNamespace(reader={"place": place}))
    found = _address_of(plan, config)
    assert found.query == "sig=1"
    assert found.bare == parse_address(place).bare
    elsewhere = cast(VolumePlan, SimpleNamespace(reader={"place": "https://h/a.zip.b"}))
    assert _address_of(elsewhere, config).query == ""


def test_names_of_buckets_and_containers_are_told_whole() -> None:
    for text in ("s3://b/a#1/x.tif", "gs://b/a?/x.tif", "file:///a.zip|zip:s#1.tif"):
        assert redact(text) == text
    assert not same_place("s3://b/a#1/x.tif", "s3://b/a#2/x.tif")
    # what looks like a query is none there, and may be a secret that was meant as one
    assert redact("s3://b/x?X-Amz-Signature=secret|zip:y?sig=secret") == "s3://b/x|zip:y"
    assert redact("https://h/x.zip?sig=secret|zip:y#1") == "https://h/x.zip|zip:y#1"


def test_a_query_tells_files_apart_and_a_signature_does_not() -> None:
    marks = [
        parse_address(f"https://h/get?{query}").mark
        for query in ("id=1", "id=2", "id=1&X-Amz-Signature=a&download=1", "sig=b&se=c", "", "se=1")
    ]
    assert len(set(marks)) == 4
    assert marks[0] == marks[2]
    assert marks[3] == marks[4] == ""  # Azure's; without a signature its words choose as others


def test_of_addresses_that_differ_in_their_query_the_plans_own_is_asked() -> None:
    config = AddressConfig(addresses=["https://h/get?id=1", "https://h/get?id=2&sig=x"])
    for number in (1, 2):
        mark = parse_address(f"https://h/get?id={number}").mark
        reader = {"place": "https://h/get", "query": mark}
        plan = cast(VolumePlan, SimpleNamespace(reader=reader))
        assert _address_of(plan, config).query.startswith(f"id={number}")
        with pytest.raises(ConfigError, match="whole address"):
            _address_of(plan, AddressConfig(addresses=["https://h/get"]))


def test_a_query_is_kept_for_asking_and_never_shown() -> None:
    address = parse_address("https://host/a.tif?X-Signature=secret|tiff:")
    assert "secret" not in str(address)
    assert address.query == "X-Signature=secret"
    assert parse_address(address.whole) == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("empair:10310", "did you mean 'empiar'"),
        ("htps://host/x", "did you mean 'https'"),
        ("x.zarr|zar2:", "did you mean 'zarr2'"),
        ("x.zarr|em/s0", "is no step of a pipeline"),
        ("https://user:pw@host/x", "credentials"),
        ("https:///x", "host or bucket is missing"),
        ("s3://bucket/../other/x", "'..' has no place"),
        ("s3://bucket/a//b.tif", "two slashes in a row"),
        ("gs://bucket//b.tif", "two slashes in a row"),
        ("https://host/o/a%2Fb.tif?alt=media", "(%2F) is not read"),
        ("x.zarr|zarr:../y", "'..' has no place"),
        ("https://host/x#y", "no fragment"),
        ("file://elsewhere/x", "takes no host"),
        ("ftp://host/x?y=1", "takes no query"),
        ("gs://bucket?y=1", "takes no query"),
        ("s3://bucket#y/x", "no fragment"),
        ("gs:/bucket/x", "two slashes"),
        ("C:\\data\\x.tif", "path of Windows"),
        ("\\\\server\\x.tif", "path of Windows"),
        ("a\nb", "control characters"),
        ("https://[::1/x", "no address"),
    ],
)
def test_what_cannot_be_read_is_said_with_the_nearest_word(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text, HERE)
    assert said in str(caught.value)
    assert "pw" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_named_error(text: str) -> None:
    try:
        address = parse_address(text, HERE)
    except ConfigError:
        return
    assert parse_address(address.whole) == address


@pytest.mark.parametrize(
    ("text", "source", "settings"),
    [
        ("empiar:10310", "ebi", {"entry_id": "10310"}),
        ("IDR:9846137", "idr", {"image_ids": [9846137]}),
        ("idr:1,2", "idr", {"image_ids": [1, 2]}),
        (
            "openorganelle:jrc_hela-2/recon-1/em",
            "openorganelle",
            {"dataset_id": "jrc_hela-2", "zarr_path": "recon-1/em"},
        ),
        ("flyem:a89eb385/grayscale", "flyem", {"uuid": "a89eb385", "instance": "grayscale"}),
        ("epfl:", "epfl", {}),
        ("/data/a.tif", "address", {"addresses": ["file:///data/a.tif"]}),
    ],
)
def test_a_named_archive_gets_its_own_settings(
    text: str, source: str, settings: dict[str, object]
) -> None:
    assert settings_of(text) == (source, settings)
    model = ConfigManager().keys.loaders[source]
    model(**settings)


@pytest.mark.parametrize("text", ["idr:x", "empiar:", "epfl:x", "flyem:", "empiar:1|tiff:"])
def test_a_named_archive_says_what_it_needs(text: str) -> None:
    with pytest.raises(ConfigError):
        settings_of(text)


def test_addresses_of_one_source_go_together_where_one_set_of_settings_can_hold_them() -> None:
    found = rounds(["/a.tif", "idr:1", "/b.tif", "empiar:1", "empiar:2", "idr:2", "/a.tif"])
    assert found == [
        {
            "address": {"addresses": ["file:///a.tif", "file:///b.tif"]},
            "idr": {"image_ids": [1, 2]},
            "ebi": {"entry_id": "1"},
        },
        {"ebi": {"entry_id": "2"}},
    ]


def test_the_page_shows_addresses_that_are_understood() -> None:
    page = (Path(__file__).parents[3] / "docs" / "addresses.md").read_text()
    commands = re.findall(r"^macroscope (?:run|plan) (.*)$", page, re.MULTILINE)
    addresses = [one for line in commands for one in shlex.split(line, comments=True)]
    assert len(addresses) >= 8
    for address in addresses:
        settings_of(address)
    steps = {step.partition(":")[0] for step in re.findall(r"`([a-z0-9-]+:[^`]*)`", page)}
    known = {*CONTAINERS, *registry.FILE_FORMATS, *registry.TREE_FORMATS}
    assert known <= steps


def test_a_run_without_addresses_is_a_run_of_the_archives() -> None:
    settings = ConfigManager().load(environ={}, dotenv=None).settings
    (given,) = by_round(None, None, {}, settings)
    assert set(given) == {"ebi", "epfl", "flyem", "idr", "openorganelle"}
    named = ConfigManager().load(environ={"ADDRESS_ADDRESSES": "/a, b.tif\n/c.tif"}, dotenv=None)
    (given,) = by_round(None, None, {}, named.settings)
    assert "address" in given
    assert named.loader("address").addresses == ["/a, b.tif", "/c.tif"]  # type: ignore[attr-defined]
    assert by_round(None, ["epfl:"], {"epfl": {"box": "z=0:1"}}, settings) == [
        {"epfl": {"box": "z=0:1"}}
    ]
    assert MODES  # every mode takes whatever is selected


def test_another_folder_reads_the_same_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = absolute("x.zarr|zarr2:em")
    monkeypatch.chdir("/")
    assert parse_address(whole).place == f"{tmp_path.as_uri()}/x.zarr"


# --- where addresses may lead -------------------------------------------------------------------


SERVER = ReachPolicy()


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://example.com/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/x",
        "ftp://127.0.0.1:21",
    ],
)
def test_a_server_asks_neither_its_disk_nor_its_own_network(url: str) -> None:
    with pytest.raises(AccessDeniedError):
        SERVER.check(url)
    with Session("address", reach=SERVER) as session, pytest.raises(AccessDeniedError):
        session.check_reach(url)


def test_a_server_asks_public_hosts_and_buckets() -> None:
    for url in ("https://93.184.216.34/x", "s3://bucket/x", "gs://bucket/x"):
        SERVER.check(url)


def test_hosts_can_be_named() -> None:
    some = ReachPolicy(("https",), ("*.ebi.ac.uk",), private=True)
    some.check("https://ftp.ebi.ac.uk/x")
    with pytest.raises(AccessDeniedError, match="example"):
        some.check("https://example.com/x")


@pytest.mark.parametrize(
    "target", ["http://93.184.216.34/", "file:///etc/passwd", "https://[::1]/"]
)
def test_a_redirect_obeys_the_same_policy(target: str) -> None:
    with pytest.raises(AccessDeniedError):
        SERVER.check_redirect("https://93.184.216.34/x", target)


def test_a_name_that_leads_elsewhere_after_it_was_checked_reaches_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                with peer:
                    peer.settimeout(5)
                    asked.append(peer.recv(1000))

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://rebound.example:{listener.getsockname()[1]}/secret"
    monkeypatch.setattr(
        "lib.transport.environment.is_public_host", lambda host: not is_address(host)
    )
    resolved = socket.getaddrinfo

    def rebound(host: Any, *more: Any, **named: Any) -> Any:
        if host != "rebound.example":  # a Prefect server, where the run's limits are kept
            return resolved(host, *more, **named)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname())]

    monkeypatch.setattr("urllib3.util.connection.socket.getaddrinfo", rebound)
    reach = ReachPolicy(("http", "https"))
    with Session("address", reach=reach) as session:
        session.check_reach(url)
        with pytest.raises(AccessDeniedError, match="private"):
            session.http("address-https").get_bytes(url)
    listener.close()
    assert not any(asked)


def test_on_kubernetes_the_policy_is_a_servers_and_a_run_cannot_change_it() -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    loaded = ConfigManager().load(environ=pod, dotenv=None)
    config = loaded.loader("address")
    assert isinstance(config, AddressConfig)
    assert config.reach_schemes == ["https", "s3", "gs", "ftp"]
    assert not config.reach_private
    for own in ({"reach_private": True}, {"reach_schemes": ["file"]}, {"reach_hosts": ["x"]}):
        with pytest.raises(ConfigError, match="whoever runs this installation"):
            loaded.loader("address", own)
    typed = AddressConfig(addresses=["/etc/passwd"], reach_private=True)
    with pytest.raises(ConfigError, match="whoever runs this installation"):
        loaded.loader("address", typed)
    loaded.loader("address", {"reach_private": False})  # what is in force may be repeated
    wider = ConfigManager().load(environ={**pod, "ADDRESS_REACH_PRIVATE": "true"}, dotenv=None)
    assert wider.loader("address").reach_private  # type: ignore[attr-defined]


def test_on_a_laptop_files_and_loopback_are_the_users_own() -> None:
    config = ConfigManager().load(environ={}, dotenv=None).loader("address")
    assert "file" in config.reach_schemes  # type: ignore[attr-defined]
    assert config.reach_private  # type: ignore[attr-defined]


def test_a_file_that_a_bucket_lists_and_refuses_is_not_said_to_be_absent() -> None:
    class Refusing(MemoryObjects):
        def look(self, key: str) -> Any:
            raise AccessDeniedError("the object store refuses access (status 403)")

        def list(self, prefix: str = "") -> Listing:
            return Listing((), ())

    place = Place(Refusing({}), "a.tif", None, None, "s3://b/a.tif", ServiceCounters(), ())
    with pytest.raises(AccessDeniedError, match="403"):
        find_volumes(place, Options())
