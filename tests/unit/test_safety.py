"""Hostile paths, addresses and XML do no harm."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from lib.errors import FormatError, RequestRefusedError, TransportError
from lib.safety import (
    check_public_redirect,
    parse_xml,
    redact,
    redact_text,
    safe_join,
)

# --- paths ----------------------------------------------------------------------------------


def test_joined_paths_stay_inside(tmp_path: Path) -> None:
    assert safe_join(tmp_path, "..", "/etc", "x") == tmp_path / "_" / "_etc" / "x"


def test_a_symlink_that_leads_out_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "out").symlink_to(tmp_path)
    (inside / "in").symlink_to(inside)
    with pytest.raises(FormatError, match="symbolic link"):
        safe_join(inside, "out", "x")
    assert safe_join(inside, "in", "x") == inside / "in" / "x"


# --- addresses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@host:8443/a/b?X-Amz-Signature=1#f", "https://host:8443/a/b"),
        ("s3://key:secret@bucket/x", "s3://bucket/x"),
        ("/path?token=1", "/path"),
        ("http://[::1", "(unreadable address)"),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_text_is_shown_without_secrets_and_control_characters() -> None:
    text = "GET https://u:p@h/x?sig=abc failed\x1b[31m (see ftp://a:b@h/y)"
    assert redact_text(text) == "GET https://h/x failed [31m (see ftp://h/y)"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    table = {"public.org": "93.184.215.14", "cdn.org": "1.1.1.1", "sneaky.org": "10.0.0.7"}

    def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
        address = table.get(host, host)
        if not address[0].isdigit() and ":" not in address:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return table


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("https://public.org/a", "https://public.org/b"),
        ("https://public.org/a", "https://CDN.org/b"),
        ("http://public.org/a", "https://public.org/b"),
        ("http://127.0.0.1:80/a", "http://127.0.0.1:81/b"),
        ("http://127.0.0.1/a", "http://10.1.1.1/b"),
    ],
)
def test_redirects_that_are_right_are_allowed(
    names: dict[str, str], asked: str, target: str
) -> None:
    check_public_redirect(asked, target, ["cdn.org", "10.1.1.1"])


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.org/x",
        "http://public.org/b",
        "ftp://public.org/b",
        "file:///etc/passwd",
        "https://sneaky.org/b",
        "https://127.0.0.1/b",
        "https://169.254.169.254/latest",
        "https://[::1]/b",
        "https://[::ffff:10.0.0.1]/b",
        "https://[fe80::1]/b",
        "https://0.0.0.0/b",
        "https://100.64.0.1/b",
    ],
)
def test_redirects_that_lead_astray_are_refused(names: dict[str, str], target: str) -> None:
    allowed = [
        "sneaky.org",
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "0.0.0.0",
        "100.64.0.1",
    ]
    with pytest.raises(RequestRefusedError):
        check_public_redirect("https://public.org/a", target, allowed)


def test_a_redirect_to_a_name_that_does_not_resolve_is_a_network_failure(
    names: dict[str, str],
) -> None:
    with pytest.raises(TransportError, match="does not resolve"):
        check_public_redirect("https://public.org/a", "https://gone.org/", ["gone.org"])


# --- content --------------------------------------------------------------------------------


def test_plain_xml_is_parsed() -> None:
    assert parse_xml("<OME><Image Name='ü'/></OME>".encode())[0].get("Name") == "ü"


@pytest.mark.parametrize(
    "data",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>',
        b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><x/>',
        b"<x>",
        b"",
        b"\xff\xfe\x00",
        b'<?xml version="1.0" encoding="nonsense"?><x/>',
    ],
)
def test_xml_that_reaches_out_or_is_broken_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_xml(data)


def test_xml_beyond_the_bound_is_refused() -> None:
    with pytest.raises(FormatError, match="longer than 10"):
        parse_xml(b"<x>" + b" " * 10 + b"</x>", max_bytes=10)
