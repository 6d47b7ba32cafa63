"""Names out of foreign text: safe, bounded, and one for each identity."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.names import (
    MAX_NAME_BYTES,
    MAX_VOLUME_NAME,
    distinct_file_names,
    folded,
    marked_file_name,
    marked_volume_name,
    place_of,
    safe_name,
    same_place,
    volume_name,
)
from lib.records.lifecycle import clean_text
from lib.storage.keys import check_key, is_shortened, temporary_name, temporary_of

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
