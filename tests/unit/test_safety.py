"""Hostile paths, addresses and XML do no harm."""

from __future__ import annotations

import random
import socket
import unicodedata
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import FormatError, RequestRefusedError, TransportError
from lib.records.lifecycle import clean_text
from lib.safety import (
    _PLAIN_XML,
    MAX_NAME_BYTES,
    MAX_VOLUME_NAME,
    check_public_redirect,
    distinct_file_names,
    folded,
    marked_file_name,
    marked_volume_name,
    parse_xml,
    place_of,
    redact,
    redact_text,
    safe_join,
    safe_name,
    same_place,
    volume_name,
)
from lib.storage.keys import check_key, is_shortened, temporary_name, temporary_of

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
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'.encode(
            "utf-16"
        ),
        '<?xml version="1.0" encoding="cp037"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'.encode(
            "cp037"
        ),
        b"<x>&a;</x>",
    ],
)
def test_xml_that_reaches_out_or_is_broken_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_xml(data)


@pytest.mark.parametrize(
    "head", ["", "\n", '<?xml version="1.0"?>', "<?xml version='1.0' encoding='UTF-8'?>\n"]
)
def test_xml_is_parsed_alike_whichever_parser_reads_it(head: str) -> None:
    plain = f"{head}<x a='1' b='&#10;'><y> &lt;&#64;</y><z/>\u00fc</x>".encode()
    assert _PLAIN_XML.match(plain)
    careful = plain + b"<!-- no DTD, but it might be one -->"
    assert tostring(parse_xml(plain)) == tostring(parse_xml(careful))


def test_xml_beyond_the_bound_is_refused() -> None:
    with pytest.raises(FormatError, match="longer than 10"):
        parse_xml(b"<x>" + b" " * 10 + b"</x>", max_bytes=10)


# --- one name -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "F57-8_test1_3VBSED_slice_0000.dm3",
        "trakem2.1528909664283.981147357.856576865",
        "a b (1)+ü.tif",
    ],
)
def test_harmless_names_stay(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("..", "_"),
        (".", "_"),
        ("", "_"),
        ("../../etc/passwd", "_.._.._etc_passwd"),
        ("/etc/passwd", "_etc_passwd"),
        ("C:\\x", "C__x"),
        ("a\0b\nc\x1b", "a_b_c_"),
        ("NUL", "_NUL"),
        ("com1.dm3", "_com1.dm3"),
        (".hidden", "_.hidden"),
        ("dot. ", "dot"),
        ("right\u202eto-left", "right_to-left"),
        ("e\u0301", "é"),
        ("a\u00a0b\u3000c\u2028d", "a_b_c_d"),
    ],
)
def test_harmful_names_are_made_harmless(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_long_names_are_cut_and_stay_apart() -> None:
    names = [safe_name("ä" * 300 + end + ".ome.tif") for end in "ab"]
    assert names[0] != names[1]
    for name in names:
        assert name.endswith(".tif")
        assert len(name.encode()) <= MAX_NAME_BYTES


@given(st.text(max_size=300))
def test_any_text_makes_one_plain_component(name: str) -> None:
    safe = safe_name(name)
    assert safe not in {"", ".", ".."}
    assert not set(safe) & set('/\\\0\n\r:*?"<>|')
    assert len(safe.encode()) <= MAX_NAME_BYTES
    assert safe_name(safe) == safe
    assert Path("/x", safe).parent == Path("/x")


@given(st.text(max_size=40))
def test_a_key_is_a_text_that_no_record_changes(name: str) -> None:
    """Letters that Unicode has not assigned yet are left to `lib.records.lifecycle.Key`."""
    safe = safe_name(name)
    check_key(f"ebi/downloads/{safe}")
    for new, old in zip(clean_text(safe), safe, strict=True):
        assert new == old or unicodedata.category(old) == "Cn"


@pytest.mark.parametrize("name", ["EMPIAR-11759_F57-8_test1_3VBSED", "jrc_hela-2_recon-1_em_s1"])
def test_names_of_volumes_stay(name: str) -> None:
    assert volume_name(name) == name


@given(st.text(max_size=400))
def test_any_text_makes_the_name_of_a_volume(text: str) -> None:
    for name in (volume_name(text), marked_volume_name(text, "ebi", text)):
        assert name.isascii()
        assert 0 < len(name) <= MAX_VOLUME_NAME
        assert safe_name(name) == name
        check_key(f"ebi/metadata_{name}.json")
        assert volume_name(name) == name


@pytest.mark.parametrize("text", ["catalog_1", "metadata_x", "Catalog_X", "nul", "COM1.tif"])
def test_a_volume_is_not_called_as_the_stores_own_files_are(text: str) -> None:
    assert volume_name(text) == f"volume_{text}"


def test_long_names_of_volumes_differ_where_their_texts_do() -> None:
    names = {volume_name("x" * 300 + end) for end in ("a", "b")}
    assert len(names) == 2


def test_the_suffix_of_a_part_survives_in_what_tells_long_names_apart() -> None:
    whole, part = volume_name("x" * 300), volume_name("x" * 300 + "_z0-4_y0-9_x0-9")
    assert whole != part


# --- several names --------------------------------------------------------------------------

ALIKE = ["a.dm3", "A.DM3", "a/b", "a_b", "a:b", "..", ".", "straße", "STRASSE", "e\u0301", "é"]


def test_names_that_a_file_system_would_take_for_one_are_kept_apart() -> None:
    names = distinct_file_names({f"data/{i}": name for i, name in enumerate([*ALIKE, "b.dm3"])})
    assert len({folded(name) for name in names.values()}) == len(ALIKE) + 1
    assert names[f"data/{len(ALIKE)}"] == "b.dm3"
    assert all(name.endswith(".dm3") for name in list(names.values())[:1])


@given(st.lists(st.text(alphabet="aAbB./\\~2é", max_size=6), max_size=30), st.integers())
def test_a_name_does_not_depend_on_the_order_of_the_others(names: list[str], seed: int) -> None:
    wanted = {f"{i}/{name}": name for i, name in enumerate(names)}
    found = distinct_file_names(wanted)
    assert len({folded(name) for name in found.values()}) == len(names)
    assert all(safe_name(name) == name for name in found.values())
    shuffled = list(wanted.items())
    random.Random(seed).shuffle(shuffled)
    assert distinct_file_names(dict(shuffled)) == found


@pytest.mark.parametrize("name", ["a.mrc", "x" * 400 + ".mrc", "a." + "x" * 400, "数据" * 90])
def test_a_mark_stays_in_a_long_name(name: str) -> None:
    marked = {marked_file_name(name, identity) for identity in ("one", "other")}
    assert len(marked) == 2
    for one in marked:
        assert len(one.encode()) <= MAX_NAME_BYTES
        assert one.endswith(".mrc") is name.endswith(".mrc")


def test_temporaries_of_long_names_are_not_each_others() -> None:
    long = ["metadata_" + "x" * 150 + end + ".json" for end in "ab"]
    found = [temporary_of(temporary_name(name, "tmp")) for name in long]
    assert all(found)
    shortened = [pair[0] for pair in found if pair]
    assert is_shortened(shortened[0], [long[0]])
    assert not is_shortened(shortened[1], [long[0]])
    assert len(temporary_name(long[0], "gone").encode()) < 150


# --- addresses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ftp://h/empiar/1/data/a%20b.mrc", "https://m/empiar/1/data/a b.mrc", True),
        ("ftp://h/empiar/1/data/a.mrc", "https://m/mirror/empiar/1/data/a.mrc", True),
        ("ftp://h/empiar/1/data/x.1.mrc", "ftp://h/empiar/1/data/x_1.mrc", False),
        ("ftp://h/empiar/1/data/a.mrc", "ftp://h/empiar/2/data/a.mrc", False),
        ("s3://one/a.zarr/s0", "s3://two/a.zarr/s0", False),
        ("s3://one/a.zarr/s0", "s3://one/a.zarr/s0", True),
    ],
)
def test_the_place_of_a_file_is_told_without_its_server(one: str, other: str, same: bool) -> None:
    assert same_place(one, other) is same
    assert same_place(other, one) is same


def test_a_place_has_no_server() -> None:
    assert place_of("https://h:8/a%20b//c?x=1") == "a b/c"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("at http://[::1]:8080/a.tif?sig=secret.", "at http://[::1]:8080/a.tif."),
        ("(http://u:secret@[fe80::1])", "(http://[fe80::1])"),
        ("see [it](https://h/a(1).tif?sig=secret).", "see [it](https://h/a(1).tif)."),
        ("https://h/[x]/{y}?sig=secret, and more", "https://h/[x]/{y}, and more"),
    ],
)
def test_brackets_of_an_address_belong_to_it_and_those_around_do_not(text: str, told: str) -> None:
    assert redact_text(text) == told
