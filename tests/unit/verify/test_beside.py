"""The list of digests beside a volume is believed only if it is the record's, and the store's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from lib.errors import IntegrityError
from lib.storage.local import LocalStore
from lib.verify.beside import is_intact, prove_listing, read_sums

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
