"""The list of digests beside a volume is believed only if it is the record's, and the store's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from lib.errors import IntegrityError
from lib.storage.local import LocalStore
from lib.verify.beside import (
    is_intact,
    prove_crate,
    prove_listing,
    prove_preview,
    prove_raw_files,
    raw_files,
    read_sums,
)
from lib.verify.findings import Findings

A, B = hashlib.sha256(b"aaa").hexdigest(), hashlib.sha256(b"bb").hexdigest()
LIST = f"{A}  v.ome.zarr/0/c/0\n{B}  v.ome.zarr/zarr.json\n"
ZARR = "idr/v.ome.zarr"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """One OME-Zarr of two files and one npy, each with its list."""
    store = LocalStore(tmp_path, durable=False)
    store.put(f"{ZARR}/0/c/0", b"aaa")
    store.put(f"{ZARR}/zarr.json", b"bb")
    store.put(f"{ZARR}.SHA256SUMS", LIST.encode())
    store.put("idr/w.npy", b"aaa")
    store.put("idr/w.npy.SHA256SUMS", f"{A}  w.npy\n".encode())
    return store


def record(volume: str = ZARR, *, sums: str | None = None, **technical: Any) -> dict[str, Any]:
    stated = {"format": "zarr", "sha256": hashlib.sha256(LIST.encode()).hexdigest()}
    if volume.endswith(".npy"):
        stated = {"format": "npy", "sha256": A}
    size = 5 if volume == ZARR else 3
    files = {"volume": volume} | ({"sums": sums} if sums else {})
    return {
        "files": files,
        "metadata": {"technical": {"file_size_bytes": size} | stated | technical},
    }


@pytest.mark.parametrize("volume", [ZARR, "idr/w.npy"])
def test_a_volume_as_it_was_written_is_intact(store: LocalStore, volume: str) -> None:
    is_intact(store, record(volume))


def test_every_file_comes_with_its_key_in_the_store(store: LocalStore) -> None:
    assert read_sums(store, record()) == {f"{ZARR}/0/c/0": A, f"{ZARR}/zarr.json": B}
    assert read_sums(store, record("idr/w.npy")) == {"idr/w.npy": A}


def test_a_record_may_name_its_list_and_lie_at_the_top_of_a_store(store: LocalStore) -> None:
    """A store that is one source's folder has keys without a folder before them."""
    other = LocalStore(Path(store.root) / "idr", durable=False)
    assert read_sums(other, record("v.ome.zarr")) == {
        "v.ome.zarr/0/c/0": A,
        "v.ome.zarr/zarr.json": B,
    }
    store.put("idr/list", LIST.encode())
    store.delete(f"{ZARR}.SHA256SUMS")
    assert len(read_sums(store, record(sums="idr/list"))) == 2


def test_an_absent_list_is_named(store: LocalStore) -> None:
    store.delete(f"{ZARR}.SHA256SUMS")
    with pytest.raises(IntegrityError, match="list of digests is not there") as caught:
        read_sums(store, record())
    assert caught.value.location == f"{ZARR}.SHA256SUMS"


@pytest.mark.parametrize(
    "line",
    [
        f"{A} v.ome.zarr/0/c/0",  # one space
        f"{A[:-1]}  v.ome.zarr/0/c/0",
        f"{A.upper()}  v.ome.zarr/0/c/0",
        f"{A}  /etc/passwd",
        f"{A}  ",
        "",
        "x" * 200,
    ],
)
def test_a_list_with_a_line_that_sha256sum_would_not_write_is_refused_whole(
    store: LocalStore, line: str
) -> None:
    text = f"{LIST}{line}\n"
    store.put(f"{ZARR}.SHA256SUMS", text.encode())
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(IntegrityError) as caught:
        read_sums(store, record(sha256=sha256))
    assert f"holds {line[:80]!r}" in str(caught.value)
    assert caught.value.location == f"{ZARR}.SHA256SUMS"


@pytest.mark.parametrize("sha256", ["0" * 64, B, "f" * 64])
@pytest.mark.parametrize("volume", [ZARR, "idr/w.npy"])
def test_a_list_that_the_record_was_not_written_with_is_refused(
    store: LocalStore, volume: str, sha256: str
) -> None:
    with pytest.raises(IntegrityError, match="not the record's") as caught:
        read_sums(store, record(volume, sha256=sha256))
    assert caught.value.location == f"{volume}.SHA256SUMS"


@pytest.mark.parametrize("volume", [ZARR, "idr/w.npy"])
def test_a_file_that_is_gone_is_named(store: LocalStore, volume: str) -> None:
    sums = read_sums(store, record(volume))
    gone = min(sums)
    store.delete(gone)
    with pytest.raises(IntegrityError, match="1 files are absent") as caught:
        prove_listing(store, record(volume), sums)
    assert caught.value.location == gone


def test_a_foreign_file_is_named(store: LocalStore) -> None:
    for name in ("b", "a", "c"):
        store.put(f"{ZARR}/{name}", b"")
    with pytest.raises(IntegrityError, match="3 files do not belong there") as caught:
        is_intact(store, record())
    assert caught.value.location == f"{ZARR}/a"


def test_an_absent_file_is_told_before_a_foreign_one(store: LocalStore) -> None:
    store.put(f"{ZARR}/a", b"")
    store.delete(f"{ZARR}/zarr.json")
    store.delete(f"{ZARR}/0/c/0")
    with pytest.raises(IntegrityError, match="2 files are absent") as caught:
        is_intact(store, record())
    assert caught.value.location == f"{ZARR}/0/c/0"


@pytest.mark.parametrize("volume", [ZARR, "idr/w.npy"])
@pytest.mark.parametrize("more", [-1, 1])
def test_sizes_must_add_up_to_the_record_s(store: LocalStore, volume: str, more: int) -> None:
    stated = record(volume)
    size = stated["metadata"]["technical"]["file_size_bytes"]
    stated["metadata"]["technical"]["file_size_bytes"] += more
    with pytest.raises(IntegrityError, match=f"have {size} bytes.* says {size + more}") as caught:
        is_intact(store, stated)
    assert caught.value.location == volume


def test_a_volume_that_was_found_damaged_is_not_intact(store: LocalStore) -> None:
    """A flipped bit is in no listing; whoever read the bytes noted it."""
    noted = record()
    noted["metadata"]["quality"] = {"damaged": [f"{ZARR}/0/c/0"]}
    with pytest.raises(IntegrityError, match="1 files were found damaged") as caught:
        is_intact(store, noted)
    assert caught.value.location == f"{ZARR}/0/c/0"
    noted["metadata"]["quality"] = {"damaged": []}
    is_intact(store, noted)


# --- raw files ------------------------------------------------------------------------------

RAW, FACT = "idr/downloads/7", "provenance.source_files[]"


def kept(*files: dict[str, Any], raw: tuple[str, ...]) -> dict[str, Any]:
    """A record that lists raw files, and says of some what they are."""
    return {
        "files": {"raw": list(raw)},
        "metadata": {"provenance": {"source_files": list(files)}},
    }


def told(data: bytes, **more: Any) -> dict[str, Any]:
    said = {"name": "a", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {**said, "publisher_checksum": f"md5:{hashlib.md5(data).hexdigest().upper()}", **more}


def look(store: LocalStore, stated: dict[str, Any], *, deep: bool = True) -> Findings:
    found = Findings()
    prove_raw_files(store, stated, found, deep=deep)
    return found


def test_a_raw_file_is_found_by_its_key_and_by_its_name_where_a_record_has_no_keys() -> None:
    keyed, named = told(b"x", key=f"{RAW}/one"), told(b"yy", name="data/sub/a b.tif")
    other = told(b"zzz", name="more/a b.tif")  # the first of a name counts
    stated = kept(keyed, named, other, raw=(f"{RAW}/one", f"{RAW}/a b.tif", f"{RAW}/lost"))
    found = {f"{RAW}/one": keyed, f"{RAW}/a b.tif": named, f"{RAW}/lost": None}
    assert raw_files(stated) == found
    assert raw_files({"files": {}, "metadata": {"provenance": {}}}) == {}


@pytest.mark.parametrize("deep", [False, True])
def test_raw_files_that_are_whole_are_proven(store: LocalStore, deep: bool) -> None:
    store.put(f"{RAW}/a", b"data")
    store.put(f"{RAW}/b", b"more")
    stated = kept(
        told(b"data", key=f"{RAW}/a"),
        told(b"more", key=f"{RAW}/b", publisher_checksum="publisher gives none"),
        raw=(f"{RAW}/a", f"{RAW}/b"),
    )
    found = look(store, stated, deep=deep)
    read = {f"{FACT}.sha256", f"{FACT}.publisher_checksum"} if deep else set()
    assert found.proven == {"files.raw", f"{FACT}.key", f"{FACT}.size"} | read
    assert (found.problems, found.refuted) == ([], set())


def test_a_fact_of_all_files_is_not_proven_by_some(store: LocalStore) -> None:
    store.put(f"{RAW}/a", b"data")
    stated = kept(told(b"data", key=f"{RAW}/a"), told(b"gone"), raw=(f"{RAW}/a",))
    found = look(store, stated)
    assert found.proven == {"files.raw", f"{FACT}.key"}
    assert not found.problems


def test_one_bad_raw_file_hides_no_other(store: LocalStore) -> None:
    """Absent, of another size, unknown to the record, with other bytes: each is told.

    One digest sorts before what it should be, one behind it.
    """
    for name, data in (("b", b"longer"), ("c", b"?"), ("d", b"dat0"), ("e", b"data")):
        store.put(f"{RAW}/{name}", data)
    files = [told(b"data", name=name, key=f"{RAW}/{name}") for name in "abde"]
    files[0]["key"] = f"{RAW}/elsewhere"
    files[3]["size"] = None  # not stated, so not wrong
    files[3]["publisher_checksum"] = "md5:" + "0" * 32
    found = look(store, kept(*files, raw=tuple(f"{RAW}/{name}" for name in "abcde")))
    assert found.problems == [
        f"the raw file {RAW}/elsewhere is not among those that the record lists",
        f"{RAW}/a is absent",
        f"{RAW}/b has 6 bytes, where the record says 4",
        f"the bytes of {RAW}/d are not those that were written",
        f"the bytes of {RAW}/e are not those that were written",
    ]
    assert [*found.damaged] == [f"{RAW}/{name}" for name in "abde"]
    assert found.refuted == {
        "files.raw",
        *(f"{FACT}.{one}" for one in ("key", "size", "sha256")),
        f"{FACT}.publisher_checksum",
    }
    assert f"{FACT}.sha256" not in found.proven - found.refuted


# --- preview and crate ----------------------------------------------------------------------


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("data", [None, b"picture", b"PICTURE", b"Pictura"])
def test_a_picture_is_there_and_the_one_that_was_drawn(
    store: LocalStore, data: bytes | None, deep: bool
) -> None:
    if data is not None:
        store.put("idr/v.preview.png", data)
    sha256 = hashlib.sha256(b"picture").hexdigest()  # of one of the others it is more, of one less
    found = Findings()
    files = {"preview": "idr/v.preview.png", "preview_sha256": sha256}
    prove_preview(store, {"files": files}, found, deep=deep)
    whole = data == b"picture"
    fact = {"files.preview_sha256"} if deep else set()
    assert found.proven == (
        set() if data is None else {"files.preview"} | (fact if whole else set())
    )
    assert found.refuted == ({"files.preview"} if data is None else set() if whole else fact)
    assert [*found.damaged] == (["idr/v.preview.png"] if found.refuted else [])


def test_a_record_without_a_picture_or_without_its_digest_is_no_problem(store: LocalStore) -> None:
    found = Findings()
    prove_preview(store, {"files": {}}, found, deep=True)
    assert found == Findings()
    store.put("idr/v.preview.png", b"any")
    prove_preview(store, {"files": {"preview": "idr/v.preview.png"}}, found, deep=True)
    assert (found.proven, found.problems) == ({"files.preview"}, [])


@pytest.mark.parametrize(
    ("graph", "problem"),
    [
        ([{"@id": "urn:uuid:1"}], None),
        ([{"@id": "urn:uuid:1"}, {"@id": "s3://b/idr/v.ome.zarr.SHA256SUMS", "sha256": A}], None),
        ([{"@id": "urn:uuid:1"}, {"@id": "s3://b/raw.tif", "sha256": B}], None),
        ([{"@id": "urn:uuid:1"}, {"@id": "s3://b/idr/v.ome.zarr", "sha256": A}], None),
        ([{"@id": "urn:uuid:1"}, {"@id": "s3://b/idr/v.ome.zarr", "sha256": B}], "another version"),
        (
            [
                {"@id": "urn:uuid:1"},
                {"@id": "s3://b/idr/v.ome.zarr.SHA256SUMS", "sha256": B},
                {"@id": "s3://b/idr/v.ome.zarr"},
            ],
            "another version",
        ),
        ([{"@id": "urn:uuid:2"}], "another volume"),
        ([{"name": "no id"}], "no RO-Crate"),
        (None, "no RO-Crate"),
    ],
)
def test_a_crate_is_of_this_volume_and_of_these_bytes(
    store: LocalStore, graph: Any, problem: str | None
) -> None:
    store.put("idr/v-ro-crate-metadata.json", json.dumps({"@graph": graph}).encode())
    stated = record(sums=f"{ZARR}.SHA256SUMS", sha256=A) | {"id": "1"}
    found = Findings()
    prove_crate(store, stated, found)
    assert len(found.problems) == (0 if problem is None else 1)
    assert problem is None or problem in found.problems[0]


def test_a_volume_without_a_crate_is_no_problem(store: LocalStore) -> None:
    found = Findings()
    prove_crate(store, record() | {"id": "1"}, found)
    assert found == Findings()
