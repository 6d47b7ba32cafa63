"""What every store promises, tried on a folder and on a real S3 server."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from lib.errors import (
    AlreadyExistsError,
    DestinationBusyError,
    DestinationError,
    MacroscopeError,
    NotFoundError,
)
from lib.storage import s3_lease
from lib.storage.base import Store, StoredObject, StoreSettings
from lib.storage.open import open_store

BAD_KEYS = [
    "",
    "/etc/passwd",
    "a//b",
    "a/../../b",
    "..",
    "./a",
    "a/",
    "a\0b",
    "a\\b",
    "a\nb",
    "a/.locks/x",
    ".x.0123456789ab.tmp",
    "\ud800",
]


@pytest.fixture(params=["folder", "bucket"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, StoreSettings]:
    """Address and settings of an empty store."""
    if request.param == "folder":
        return str(tmp_path / "data"), StoreSettings()
    destination = request.getfixturevalue("destination")
    prefix = f"{tmp_path.name}-{time.monotonic_ns()}"
    monkeypatch.setattr(s3_lease, "BEATS", 60)  # each second, of a term that no machine outlasts
    return f"s3://volumes/{prefix}", destination.settings(lease_seconds=60.0)


@pytest.fixture
def store(opened: tuple[str, StoreSettings]) -> Store:
    return open_store(*opened)


def keys(store: Store, prefix: str = "") -> list[str]:
    return [found.key for found in store.list(prefix)]


def test_what_was_put_comes_back(store: Store) -> None:
    voxels = np.arange(24, dtype="<u2").reshape(2, 3, 4)
    store.put("ebi/x.bin", [b"head", bytearray(b"-"), b"", memoryview(voxels)])
    assert store.get("ebi/x.bin") == b"head-" + voxels.tobytes()
    assert store.size("ebi/x.bin") == 53
    assert store.get_range("ebi/x.bin", 5, 4) == voxels.tobytes()[:4]
    assert store.get_range("ebi/x.bin", 5, 0) == b""


def test_many_buffers_make_one_object(store: Store) -> None:
    parts = [bytes([number % 256]) * (number % 7) for number in range(3000)]
    store.put("many", parts)
    assert store.get("many") == b"".join(parts)


@pytest.mark.parametrize("data", [b"", [], [b"", b""], memoryview(b"")])
def test_an_empty_object_is_an_object(store: Store, data: Any) -> None:
    store.put("empty", data)
    assert store.get("empty") == b""
    assert store.size("empty") == 0
    assert keys(store) == ["empty"]


def test_put_replaces_and_create_does_not(store: Store) -> None:
    store.put("k", b"one")
    store.put("k", b"two")
    with pytest.raises(AlreadyExistsError):
        store.put("k", b"three", create=True)
    assert store.get("k") == b"two"
    store.put("new", b"four", create=True)
    assert store.get("new") == b"four"


def test_create_refuses_even_the_same_bytes(store: Store) -> None:
    store.put("k", b"same", create=True)
    with pytest.raises(AlreadyExistsError):
        store.put("k", b"same", create=True)


def test_of_several_creators_exactly_one_wins(store: Store) -> None:
    for round_number in range(3):
        winners: list[int] = []
        start = threading.Barrier(5)

        def create(
            number: int,
            key: str = f"race/{round_number}",
            start: threading.Barrier = start,
            winners: list[int] = winners,
        ) -> None:
            start.wait()
            try:
                store.put(key, bytes([number]), create=True)
            except AlreadyExistsError:
                return
            winners.append(number)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1
        assert store.get(f"race/{round_number}") == bytes(winners)


def test_what_is_not_there_says_so(store: Store) -> None:
    store.put("a/b", b"1")
    for key in ("nothing", "a", "a/b/c"):
        assert store.size(key) is None
        with pytest.raises(NotFoundError):
            store.get(key)
        with pytest.raises(NotFoundError):
            store.get_range(key, 0, 1)
    assert keys(store, "nothing") == []
    assert keys(store, "a/b") == []


@pytest.mark.parametrize(("start", "length"), [(0, 4), (2, 2), (3, 1), (9, 1)])
def test_a_range_past_the_end_is_an_error_not_fewer_bytes(
    store: Store, start: int, length: int
) -> None:
    store.put("k", b"abc")
    with pytest.raises(DestinationError, match="ends before"):
        store.get_range("k", start, length)


def test_listings_are_sorted_by_whole_key_and_end_at_folder_borders(store: Store) -> None:
    names = ["o/b/c", "o/b.x", "o/b-y", "o/b0", "o/a", "ob", "o/b/d/e", "o/ü", "o/Z"]
    for number, name in enumerate(names):
        store.put(name, bytes(number))
    assert list(store.list("o")) == [
        StoredObject(name, names.index(name)) for name in sorted(names) if name != "ob"
    ]
    assert keys(store) == sorted(names)
    assert keys(store, "o/b") == ["o/b/c", "o/b/d/e"]


def test_a_folder_is_listed_without_going_deeper(store: Store) -> None:
    for name in ("v/zarr.json", "v/c/0/0", "v/c/0/1", "v/d/0", "w"):
        store.put(name, b"1")
    inside = store.list_folder("v")
    assert [found.key for found in inside.objects] == ["v/zarr.json"]
    assert inside.folders == ("v/c", "v/d")
    top = store.list_folder()
    assert ([found.key for found in top.objects], top.folders) == (["w"], ("v",))


def test_deleting_is_idempotent_and_takes_nothing_else(store: Store) -> None:
    for name in ("x/1", "x/y/2", "xy", "z"):
        store.put(name, b"1")
    store.delete("x")
    store.delete("nothing/here")
    store.delete("z")
    store.delete("z")
    assert keys(store) == ["x/1", "x/y/2", "xy"]
    store.delete_tree("x")
    store.delete_tree("x")
    assert keys(store) == ["xy"]


def test_names_that_differ_in_odd_letters_stay_apart(store: Store) -> None:
    names = ["a b", "a%20b", "a+b", "a?b", "a#b", "ä", "a\u0308", "a&b=c", "~a", "-"]
    for name in names:
        store.put(f"odd/{name}", name.encode())
    assert sorted(keys(store)) == sorted(f"odd/{name}" for name in names)
    for name in names:
        assert store.get(f"odd/{name}") == name.encode()


@pytest.mark.parametrize("key", BAD_KEYS)
def test_hostile_names_are_refused_by_every_method(store: Store, key: str) -> None:
    for call in (
        lambda: store.put(key, b"1"),
        lambda: store.get(key),
        lambda: store.get_range(key, 0, 1),
        lambda: store.size(key),
        lambda: store.delete(key),
        lambda: store.delete_tree(key),
        lambda: store.staging_key(key),
        lambda: store.local_path(key),
        lambda: store.publish_tree(key, "b"),
        lambda: store.publish_tree("b", key),
        lambda: store.lock(key, "run"),
        lambda: list(store.list(key or "..")),
        lambda: store.list_folder(key or ".."),
    ):
        with pytest.raises(DestinationError, match="is refused"):
            call()


def test_a_tree_written_under_its_staging_key_is_published(store: Store) -> None:
    for content in (b"old", b"new"):
        staging = store.staging_key("ebi/x.ome.zarr")
        store.put(f"{staging}/c/0", content)
        store.put(f"{staging}/zarr.json", content)
        store.publish_tree(staging, "ebi/x.ome.zarr")
        assert keys(store) == ["ebi/x.ome.zarr/c/0", "ebi/x.ome.zarr/zarr.json"]
        assert store.get("ebi/x.ome.zarr/c/0") == content


def test_a_second_run_is_told_who_holds_the_volume(
    store: Store, opened: tuple[str, StoreSettings]
) -> None:
    other = open_store(*opened)
    with store.lock("ebi/x", "nightly-7"):
        with (
            pytest.raises(DestinationBusyError, match=rf"nightly-7 .*process {os.getpid()}"),
            other.lock("ebi/x", "second"),
        ):
            pytest.fail("two runs hold one volume")
        with other.lock("ebi/y", "second"):
            assert keys(store) == []
    with other.lock("ebi/x", "second"):
        pass
    assert keys(store) == []


def test_of_several_runs_exactly_one_holds_the_volume(opened: tuple[str, StoreSettings]) -> None:
    inside, most, refused = 0, 0, 0
    guard, start, others = threading.Lock(), threading.Barrier(4), threading.Semaphore(0)

    def run(number: int) -> None:
        nonlocal inside, most, refused
        own = open_store(*opened)
        start.wait()
        try:
            with own.lock("v", f"run-{number}"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                for _ in range(3):
                    assert others.acquire(timeout=120), "the others are refused meanwhile"
                with guard:
                    inside -= 1
        except DestinationBusyError:
            refused += 1
            others.release()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused == 3


def test_an_error_inside_frees_the_volume_and_passes_on(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.lock("v", "first"):
        raise ZeroDivisionError
    with store.lock("v", "second"):
        pass


def test_a_worker_opens_the_same_store_from_plain_data(
    store: Store, opened: tuple[str, StoreSettings]
) -> None:
    store.put("k", b"1")
    uri, settings = pickle.loads(pickle.dumps(opened))
    assert open_store(uri, settings).get("k") == b"1"
    assert pickle.loads(pickle.dumps(store)).get("k") == b"1"
    for text in (repr(store), store.uri, repr(settings), str(settings.model_dump_json())):
        assert "destination-secret" not in text
        assert "destination-key" not in text


_WRITER = """
import pickle, sys
from lib.storage.open import open_store
uri, settings = pickle.loads(bytes.fromhex(sys.stdin.readline()))
store = open_store(uri, settings)
with store.lock("v", "victim"):
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        one = bytes([number % 251])
        store.put(f"v/{number % 7}", [one] * 500 + [one * 3000000])
        if number == 1:
            print("put", flush=True)
"""


def test_sigkill_leaves_whole_objects_and_a_free_volume(
    opened: tuple[str, StoreSettings], store: Store
) -> None:
    for pause in (0.02, 0.11, 0.3):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=os.getcwd(),
        )
        assert writer.stdin is not None
        assert writer.stdout is not None
        with writer.stdin, writer.stdout:
            writer.stdin.write(pickle.dumps(opened).hex() + "\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "ready\n"
            if pause > 0.2:  # at least one object is there, however slow the machine
                assert writer.stdout.readline() == "put\n"
            time.sleep(pause)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        with store.lock("v", "next run"):
            store.sweep_temporaries("v")  # type: ignore[attr-defined]
            for found in store.list():
                assert found.size == 3_000_500
                assert len(set(store.get(found.key))) == 1
    assert keys(store, "v")


def test_an_address_of_no_known_kind_is_refused() -> None:
    for uri in ("gs://bucket/x", "https://host/x", "", "s3://", "s3://Bad_Name/x", "s3://b/../x"):
        with pytest.raises(MacroscopeError):
            open_store(uri)
