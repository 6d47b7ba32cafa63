"""Raw files: kept, recognised, shared between processes, and never mixed between versions."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lib.concurrency import cancel as stopping
from lib.errors import DestinationError, NotFoundError, StoppedError
from lib.plan import SourceFile
from lib.rawfiles.files import RawFiles
from lib.rawfiles.sidecar import CELL_BYTES, RawTee
from lib.records.lifecycle import clean_text
from lib.storage import local_lock
from lib.storage.base import StoredObject
from lib.storage.digests import OrderedHasher
from lib.storage.local import LocalStore
from lib.transport.partial import Fetched

CONTENT = random.Random(1).randbytes(5 * CELL_BYTES + 777)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Bucket:
    """A store without local paths, as an object store is."""

    uri = "s3://bucket"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []

    def put(self, key: str, data: Any, *, create: bool = False) -> None:
        self.objects[key] = bytes(data)

    def persist(self, *keys: str) -> None:
        assert self.objects.keys() >= set(keys)

    def get(self, key: str) -> bytes:
        self.asked.append(key)
        if key not in self.objects:
            raise NotFoundError("there is no such object", location=key)
        return self.objects[key]

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.get(key)[start : start + length]

    def size(self, key: str) -> int | None:
        return len(self.objects[key]) if key in self.objects else None

    def list(self, prefix: str = "") -> list[StoredObject]:
        return [StoredObject(key, len(data)) for key, data in self.objects.items()]

    def local_path(self, key: str) -> str | None:
        return None


def source(**changes: Any) -> SourceFile:
    given: dict[str, Any] = {
        "url": "https://x/a.tif",
        "name": "a.tif",
        "size": len(CONTENT),
        "etag": '"1"',
    }
    return SourceFile(**(given | changes))


def raw_files(folder: Path, *, keep: bool = True, store: Any = None) -> RawFiles:
    store = store or LocalStore(folder / "data")
    return RawFiles(store, "epfl", "entry", keep=keep, scratch_dir=folder / "scratch")


def bring(raw: RawFiles, file: SourceFile, notes: tuple[str, ...] = ()) -> Fetched:
    """What a loader does: write the file, then note it."""
    path = raw.path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    fetched = Fetched(path, len(CONTENT), SHA256, file.etag, file.last_modified)
    return raw.remember(file, fetched, notes)


def fetch_gap(offset: int, view: memoryview) -> None:
    view[:] = CONTENT[offset : offset + len(view)]


def no_gap(offset: int, view: memoryview) -> None:
    raise AssertionError(f"{len(view)} bytes at {offset} are there already")


# --- files that are known ---------------------------------------------------------------------


@pytest.mark.parametrize("gone", [FileNotFoundError, FileExistsError])
def test_a_folder_of_locks_that_another_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: type[OSError]
) -> None:
    """Its last lock is released, and the empty folder removed, while it is looked at."""
    acquire, raised = FileLock.acquire, iter([True])

    def removed_once(lock: FileLock, *args: Any, **kwargs: Any) -> Any:
        if next(raised, False):
            Path(lock.lock_file).parent.rmdir()
            raise gone(lock.lock_file)
        return acquire(lock, *args, **kwargs)

    monkeypatch.setattr(FileLock, "acquire", removed_once)
    held = local_lock.acquire(str(tmp_path / ".locks" / "a.lock"), patience_s=None)
    assert held.is_locked
    local_lock.release(held)
    assert not (tmp_path / ".locks").exists()


def test_what_is_no_folder_of_locks_is_told_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / ".locks").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        local_lock.acquire(str(tmp_path / ".locks" / "a.lock"), patience_s=None)


def test_a_kept_file_is_known_to_the_next_run_with_its_doubts(tmp_path: Path) -> None:
    fetched = bring(raw_files(tmp_path), source(), ("a doubt",))
    later = raw_files(tmp_path)
    assert later.known(source()) == fetched
    assert later.notes == ["a doubt"]
    assert fetched.path == tmp_path / "data/epfl/downloads/entry/a.tif"


@pytest.mark.parametrize(
    "change",
    [{"etag": '"2"'}, {"size": 5}, {"last_modified": "Mon, 15 Jan 2024 00:00:00 GMT"}],
)
def test_a_file_that_the_archive_replaced_is_deleted(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    bring(raw_files(tmp_path), source(last_modified="Sun, 14 Jan 2024 00:00:00 GMT"))
    raw = raw_files(tmp_path)
    assert raw.known(source(**change)) is None
    assert not raw.path(source()).exists()


def test_times_of_ftp_and_http_are_not_held_against_each_other(tmp_path: Path) -> None:
    bring(raw_files(tmp_path), source(etag=None, last_modified="2024-01-15T00:00:00Z"))
    http = source(etag='"1"', last_modified="Mon, 15 Jan 2024 01:00:00 GMT")
    assert raw_files(tmp_path).known(http) is not None


# --- files of one name ------------------------------------------------------------------------

TWO = [
    source(url="ftp://h/idr/a/b_c/x.tif", name="x.tif"),
    source(url="ftp://h/idr/a_b/c/x.tif", name="x.tif"),
]


@pytest.mark.parametrize("bucket", [False, True])
def test_another_file_of_the_same_name_gets_a_name_of_its_own(tmp_path: Path, bucket: bool) -> None:
    store = Bucket() if bucket else LocalStore(tmp_path / "data")
    for number, file in enumerate(TWO):
        raw = raw_files(tmp_path / str(number), store=store)
        assert raw.known(file) is None
        with raw.turn(file):
            fetched = bring(raw, file)
        assert raw.key(file) == raw.key_of(fetched)
        assert raw.finish(True) == [raw.key(file)]
    keys = [raw_files(tmp_path, store=store).key(file) for file in TWO]
    assert len(set(keys)) == 2
    assert keys[0] == "epfl/downloads/entry/x.tif"
    for key in keys:
        assert store.get(key) == CONTENT
    for file in TWO:
        assert raw_files(tmp_path / "later", store=store).known(file) is not None


def test_a_store_is_asked_once_about_a_file_that_it_has_not(tmp_path: Path) -> None:
    store = Bucket()
    raw = raw_files(tmp_path, store=store)
    with raw.turn(source()):
        assert raw.known(source()) is None
        bring(raw, source())
    assert raw.known(source()) is not None
    assert store.asked == ["epfl/downloads/entry/.fetched/a.tif.json"]


def test_the_same_file_from_another_server_is_known(tmp_path: Path) -> None:
    bring(raw_files(tmp_path), source(url="ftp://h/idr/a/x.tif", etag=None))
    file = source(url="https://mirror/idr/a/x.tif")
    assert raw_files(tmp_path).known(file) is not None


def test_who_waited_for_a_turn_does_not_take_the_name_of_who_had_it(tmp_path: Path) -> None:
    """Both asked for the name while it was free."""
    one, other = raw_files(tmp_path), raw_files(tmp_path)
    assert one.path(TWO[0]) == other.path(TWO[1])
    with one.turn(TWO[0]):
        bring(one, TWO[0])
    with other.turn(TWO[1]):
        assert other.path(TWO[1]) != one.path(TWO[0])


@pytest.mark.parametrize("name", ["a\u00a0b.tif", "a\u3000b.tif", "a\u2028b.tif", "数据.tif"])
def test_the_key_of_a_raw_file_is_what_the_record_says(tmp_path: Path, name: str) -> None:
    raw = raw_files(tmp_path)
    bring(raw, source(name=name))
    (key,) = raw.finish(True)
    assert clean_text(key) == key
    assert raw.store.get(key) == CONTENT


def test_a_touched_file_is_hashed_again(tmp_path: Path) -> None:
    path = bring(raw_files(tmp_path), source()).path
    os.utime(path, ns=(1, 1))
    assert raw_files(tmp_path).known(source()) is not None
    path.write_bytes(CONTENT[:-1] + b"?")
    os.utime(path, ns=(2, 2))
    assert raw_files(tmp_path).known(source()) is None


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"size": "5", "sha256": 3}'])
def test_a_damaged_note_is_no_note(tmp_path: Path, note: bytes) -> None:
    path = bring(raw_files(tmp_path), source()).path
    (path.parent / ".fetched" / "a.tif.json").write_bytes(note)
    assert raw_files(tmp_path).known(source()) is None


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "a\0b", "..", "sub/dir"])
def test_names_from_archives_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    raw = raw_files(tmp_path)
    assert raw.path(source(name=name)).parent == tmp_path / "data/epfl/downloads/entry"


def test_files_that_are_not_kept_go_with_the_finished_volume(tmp_path: Path) -> None:
    raw = raw_files(tmp_path, keep=False)
    path = bring(raw, source()).path
    assert path.is_relative_to(tmp_path / "scratch")
    assert raw.finish(False) == []
    assert path.exists()  # the next run goes on with it
    assert raw.finish(True) == []
    assert not [found for found in tmp_path.rglob("*") if found.is_file()]


def test_an_object_store_gets_kept_files_and_gives_them_back(tmp_path: Path) -> None:
    bucket = Bucket()
    raw = raw_files(tmp_path / "one", store=bucket)
    bring(raw, source())
    assert raw.finish(True) == ["epfl/downloads/entry/a.tif"]
    assert bucket.objects["epfl/downloads/entry/a.tif"] == CONTENT
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    elsewhere = raw_files(tmp_path / "two", store=bucket)
    known = elsewhere.known(source())
    assert known is not None
    assert known.path.read_bytes() == CONTENT
    assert raw_files(tmp_path / "three", store=bucket).known(source(etag='"2"')) is None


def test_a_spoilt_object_is_not_taken_for_the_file(tmp_path: Path) -> None:
    bucket = Bucket()
    raw = raw_files(tmp_path / "one", store=bucket)
    bring(raw, source())
    raw.finish(True)
    bucket.objects["epfl/downloads/entry/a.tif"] = CONTENT[:-1] + b"?"
    assert raw_files(tmp_path / "two", store=bucket).known(source()) is None


def test_one_brings_a_file_while_the_others_wait(tmp_path: Path) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with raw_files(tmp_path).turn(source()):
            with guard:
                inside += 1
                most = max(most, inside)
            stopping.sleep(0.01)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_waiting_for_a_turn_ends_when_the_run_stops(tmp_path: Path) -> None:
    try:
        with raw_files(tmp_path).turn(source()):
            stopping.request_stop()
            with pytest.raises(StoppedError), raw_files(tmp_path).turn(source()):
                pass
    finally:
        stopping.reset()


# --- files that arrive in ranges --------------------------------------------------------------


def tee_of(folder: Path, **changes: Any) -> RawTee:
    tee = raw_files(folder).tee(source(**changes))
    assert tee is not None
    return tee


def pieces(seed: int, cuts: int = 30) -> list[tuple[int, int]]:
    """A cut of the file into ranges of any length, in any order."""
    draw = random.Random(seed)
    places = sorted({0, len(CONTENT), *(draw.randrange(len(CONTENT)) for _ in range(cuts))})
    found = list(itertools.pairwise(places))
    draw.shuffle(found)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_ranges_in_any_order_make_the_file_without_another_request(
    tmp_path: Path, seed: int
) -> None:
    raw = raw_files(tmp_path)
    tee = raw.tee(source())
    assert tee is not None
    for start, stop in pieces(seed):
        tee.write(start, memoryview(CONTENT)[start:stop])
    assert tee.gaps() == []
    fetched = raw.complete(source(), tee, no_gap)
    assert (fetched.size, fetched.sha256) == (len(CONTENT), SHA256)
    assert fetched.path.read_bytes() == CONTENT
    assert raw_files(tmp_path).known(source()) == fetched
    assert sorted(path.name for path in fetched.path.parent.iterdir()) == [".fetched", "a.tif"]


def test_a_later_run_fetches_only_what_is_missing(tmp_path: Path) -> None:
    tee_of(tmp_path).write(CELL_BYTES - 10, memoryview(CONTENT)[CELL_BYTES - 10 : 3 * CELL_BYTES])
    raw, asked = raw_files(tmp_path), []
    tee = raw.tee(source())
    assert tee is not None
    last = len(CONTENT) - 3 * CELL_BYTES
    assert tee.gaps() == [(0, CELL_BYTES), (3 * CELL_BYTES, last)]

    def fetch(offset: int, view: memoryview) -> None:
        asked.append((offset, len(view)))
        fetch_gap(offset, view)

    assert raw.complete(source(), tee, fetch).sha256 == SHA256
    assert asked == [(0, CELL_BYTES), (3 * CELL_BYTES, last)]


def test_the_half_of_a_changed_source_is_discarded(tmp_path: Path) -> None:
    tee_of(tmp_path).write(0, memoryview(CONTENT))
    tee = tee_of(tmp_path, etag='"2"')
    assert tee.gaps() == [(0, len(CONTENT))]
    folder = tmp_path / "data/epfl/downloads/entry"
    assert len(list(folder.glob("*.part"))) == 1


def test_a_source_that_nothing_identifies_is_not_teed(tmp_path: Path) -> None:
    assert raw_files(tmp_path).tee(source(etag=None)) is None
    assert raw_files(tmp_path, keep=False).tee(source()) is None


def test_a_range_outside_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="do not belong"):
        tee_of(tmp_path).write(len(CONTENT) - 1, memoryview(b"12"))


def _write_some(folder: Path, number: int) -> None:
    tee = tee_of(folder)
    for start, stop in pieces(9, 6)[number::3]:
        tee.write(start, memoryview(CONTENT)[start:stop])
    os._exit(9)  # as a kill would


def test_processes_share_a_part_and_being_killed_loses_no_whole_cell(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_some, args=(tmp_path, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    raw = raw_files(tmp_path)
    tee = raw.tee(source())
    assert tee is not None
    gaps = tee.gaps()
    in_one_range = [
        cell
        for cell in range(len(CONTENT) // CELL_BYTES)
        if any(a <= cell * CELL_BYTES and (cell + 1) * CELL_BYTES <= b for a, b in pieces(9, 6))
    ]
    assert in_one_range
    for cell in in_one_range:
        assert not any(a <= cell * CELL_BYTES < a + length for a, length in gaps)
    assert raw.complete(source(), tee, fetch_gap).sha256 == SHA256


def test_bytes_that_were_written_but_not_marked_are_fetched_again(tmp_path: Path) -> None:
    tee = tee_of(tmp_path)
    tee.write(0, memoryview(b"\xff" * 100))  # of a cell that never became whole
    tee.close()
    raw = raw_files(tmp_path)
    again = raw.tee(source())
    assert again is not None
    assert raw.complete(source(), again, fetch_gap).sha256 == SHA256


# --- digests of streams -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_digest_bears_disorder_and_overlap(seed: int) -> None:
    hasher = OrderedHasher()
    hasher.write(0, memoryview(CONTENT)[:1000])
    for start, stop in pieces(seed):
        early = max(0, start - 50)
        hasher.write(early, memoryview(CONTENT)[early:stop])
    assert hasher.hexdigest(len(CONTENT)) == SHA256


def test_a_digest_with_a_hole_is_none(tmp_path: Path) -> None:
    hasher = OrderedHasher()
    hasher.write(0, memoryview(CONTENT)[:1000])
    hasher.write(1001, memoryview(CONTENT)[1001:])
    assert hasher.hexdigest(len(CONTENT)) is None


def test_too_much_disorder_is_given_up_instead_of_held_in_memory() -> None:
    hasher = OrderedHasher(reorder_bytes=1000)
    hasher.write(2000, memoryview(CONTENT)[2000:3500])
    hasher.write(0, memoryview(CONTENT)[:2000])
    hasher.write(3500, memoryview(CONTENT)[3500:])
    assert hasher.hexdigest(len(CONTENT)) is None


def test_a_note_is_readable_json(tmp_path: Path) -> None:
    path = bring(raw_files(tmp_path), source()).path
    note = json.loads((path.parent / ".fetched" / "a.tif.json").read_text())
    assert (note["sha256"], note["url"]) == (SHA256, "https://x/a.tif")


def test_what_a_killed_writer_left_beside_a_file_goes_when_the_volume_is_complete(
    tmp_path: Path,
) -> None:
    raw = raw_files(tmp_path)
    path = bring(raw, source()).path
    killed = [
        path.with_name(".a.tif.0123456789ab.tmp"),
        path.parent / ".fetched" / ".a.tif.json.0123456789ab.tmp",
        path.parent / ".locks" / "a.tif.lock",
    ]
    other = path.with_name(".b.tif.0123456789ab.tmp")  # of a volume that another run may work on
    killed[2].parent.mkdir()
    for left in (*killed, other):
        left.touch()
    raw.finish(False)
    assert all(left.exists() for left in killed)
    raw.finish(True)
    assert not any(left.exists() for left in killed)
    assert other.exists()
    assert path.read_bytes() == CONTENT
