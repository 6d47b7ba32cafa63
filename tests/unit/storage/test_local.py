"""What a folder promises beyond the contract of every store."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.errors import (
    DestinationBusyError,
    DestinationError,
    DestinationFullError,
    MacroscopeError,
)
from lib.storage import local_lock
from lib.storage.base import StoreSettings
from lib.storage.keys import temporary_name
from lib.storage.local import LocalStore
from lib.storage.local_lock import scratch_folder
from lib.storage.open import open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "data")


def files(store: LocalStore) -> list[str]:
    """Everything on the disk, hidden or not."""
    root = Path(store.root)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("number", "kind", "word"),
    [
        (errno.ENOSPC, DestinationFullError, "no space"),
        (errno.EDQUOT, DestinationFullError, "quota"),
        (errno.EROFS, DestinationError, "read-only"),
        (errno.EACCES, DestinationError, "permission"),
        (errno.EIO, DestinationError, "input/output"),
        (errno.EFBIG, DestinationError, "larger"),
        (errno.EPROTO, DestinationError, "cannot write"),
    ],
)
def test_a_failed_write_is_named_and_leaves_the_old_file(
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[MacroscopeError],
    word: str,
) -> None:
    store.put("a/k", b"old")
    real, calls = os.pwrite, []

    def pwrite(handle: int, data: Any, offset: int) -> int:
        calls.append(handle)
        if len(calls) == 1:
            return real(handle, bytes(data)[:1], offset)  # half of it arrives
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(kind, match=word) as caught:
        store.put("a/k", b"new")
    assert caught.value.location == os.path.join(store.root, "a/k")
    assert caught.value.advice
    assert len(calls) == 2
    assert store.get("a/k") == b"old"
    assert files(store) == ["a/k"]


def test_a_write_that_the_kernel_splits_is_completed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def pwrite(handle: int, data: Any, offset: int) -> int:
        return real(handle, bytes(data)[:7], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    parts = [bytes(range(number)) for number in range(20)]
    store.put("k", parts)
    assert store.get("k") == b"".join(parts)


def test_a_real_limit_of_the_kernel_is_named(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "import resource, signal, sys\n"
        "from lib.storage.local import LocalStore\n"
        "from lib.errors import DestinationError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    LocalStore(sys.argv[1]).put('a/k', [b'x' * 600, b'y' * 600])\n"
        "except DestinationError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "larger than the file system or the process may hold" in done.stdout
    assert files(LocalStore(tmp_path)) == []


def test_a_file_where_a_folder_is_needed_is_named(store: LocalStore) -> None:
    store.put("a", b"1")
    with pytest.raises(DestinationError, match="a file lies where a folder is needed"):
        store.put("a/b", b"2")
    store.put("d/e", b"3")
    with pytest.raises(DestinationError, match="a folder lies where a file is needed"):
        store.put("d", b"4")
    assert files(store) == ["a", "d/e"]


def test_links_that_lead_outside_are_refused(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.put("in/k", b"1")
    os.symlink(outside, os.path.join(store.root, "folder"))
    os.symlink(outside / "secret", os.path.join(store.root, "in", "file"))
    os.symlink(os.path.join(store.root, "in"), os.path.join(store.root, "inner"))
    calls: list[Callable[[], Any]] = [
        lambda: store.put("folder/new", b"2"),
        lambda: store.get("folder/secret"),
        lambda: store.get("in/file"),
        lambda: store.get_range("in/file", 0, 1),
        lambda: store.size("in/file"),
        lambda: store.delete("folder/secret"),
        lambda: store.delete_tree("folder/x"),
        lambda: store.publish_tree("in", "folder/in"),
        lambda: store.lock("folder/x", "run").__enter__(),
    ]
    for call in calls:
        with pytest.raises(DestinationError, match="leads outside"):
            call()
    assert [found.key for found in store.list()] == ["in/k"]
    assert store.get("inner/k") == b"1"
    store.put("in/file", b"ours")  # replaces the link, not what it points to
    assert (outside / "secret").read_bytes() == b"secret"
    assert os.listdir(outside) == ["secret"]


def test_replacing_a_tree_survives_a_kill_between_any_two_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    seen = set()
    for step in range(1, 20):
        store = LocalStore(tmp_path / str(step))
        store.put("x.zarr/old", b"old")
        staging = store.staging_key("x.zarr")
        store.put(f"{staging}/new", b"new")
        left = step

        def die(real: Callable[..., Any], *args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise KilledError
            return real(*args, **more)

        with monkeypatch.context() as patch:
            for name in ("rename", "unlink", "rmdir", "fsync"):
                real = getattr(os, name)
                patch.setattr(os, name, lambda *a, _real=real, **k: die(_real, *a, **k))
            try:
                store.publish_tree(staging, "x.zarr")
            except KilledError:
                finished = False
            else:
                finished = True
        visible = [found.key for found in store.list() if not found.key.startswith(".partial")]
        assert visible in ([], ["x.zarr/old"], ["x.zarr/new"])
        seen.add(tuple(visible))
        again = LocalStore(store.root)
        again.sweep_temporaries()
        if list(again.list(staging)):
            assert [found.key for found in again.list("x.zarr")] == ["x.zarr/old"]
            again.publish_tree(staging, "x.zarr")
        assert [found.key for found in again.list()] == ["x.zarr/new"]
        assert files(again) == ["x.zarr/new"]
        if finished:
            break
    else:
        pytest.fail("publishing never ended")
    assert seen == {(), ("x.zarr/old",), ("x.zarr/new",)}


def test_publishing_leaves_no_empty_folders_of_unfinished_work(store: LocalStore) -> None:
    staging = store.staging_key("ebi/x.ome.zarr")
    assert staging == "ebi/.partial/x/x.ome.zarr"
    store.put(f"{staging}/zarr.json", b"{}")
    store.publish_tree(staging, "ebi/x.ome.zarr")
    assert os.listdir(os.path.join(store.root, "ebi")) == ["x.ome.zarr"]


def test_publishing_what_is_not_there_keeps_the_old_tree(store: LocalStore) -> None:
    store.put("x.zarr/zarr.json", b"old")
    with pytest.raises(DestinationError, match="no finished tree"):
        store.publish_tree(store.staging_key("x.zarr"), "x.zarr")
    assert store.get("x.zarr/zarr.json") == b"old"


def test_a_single_file_is_published_in_place_of_the_old_one(store: LocalStore) -> None:
    store.put("x.npy", b"old")
    store.put(store.staging_key("x.npy"), b"new")
    store.publish_tree(store.staging_key("x.npy"), "x.npy")
    assert store.get("x.npy") == b"new"
    assert files(store) == ["x.npy"]


def test_leftovers_of_killed_runs_are_hidden_and_swept(store: LocalStore) -> None:
    store.put("ebi/k", b"1")
    store.put("idr/k", b"1")
    for name in ("ebi/.k.0123456789ab.tmp", "ebi/.t.zarr.0123456789ab.gone/c/0"):
        path = Path(store.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    Path(store.root, "idr/.k.0123456789ab.tmp").write_bytes(b"another volume's")
    assert [found.key for found in store.list()] == ["ebi/k", "idr/k"]
    assert store.sweep_temporaries("ebi") == 2
    assert files(store) == ["ebi/k", "idr/.k.0123456789ab.tmp", "idr/k"]


class Synced:
    """Which files and folders were forced to the disk, by their numbers there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: set[int] = set()
        real = os.fsync

        def noted(handle: int) -> None:
            self.numbers.add(os.fstat(handle).st_ino)
            real(handle)

        monkeypatch.setattr(os, "fsync", noted)

    def missing(self, *paths: Path) -> list[str]:
        return [str(path) for path in paths if path.stat().st_ino not in self.numbers]


@pytest.mark.parametrize("durable", [True, False])
def test_records_reach_the_disk_before_a_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    synced = Synced(monkeypatch)
    store = open_store(str(tmp_path), StoreSettings(durable=durable))
    store.put("ebi/metadata_x.json", b"{}")
    reached = [tmp_path / "ebi" / "metadata_x.json", tmp_path / "ebi"]
    assert synced.missing(*reached) == ([] if durable else [str(path) for path in reached])
    synced.numbers.clear()
    store.put("ebi/x.zarr/c/0/0/0", b"1")
    assert synced.numbers == set()


@pytest.mark.parametrize("durable", [True, False])
def test_files_trees_and_the_folders_on_the_way_reach_the_disk_when_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    synced = Synced(monkeypatch)
    root = tmp_path / "data"
    store = open_store(str(root), StoreSettings(durable=durable))
    for key in ("ebi/x.zarr/zarr.json", "ebi/x.zarr/0/c/0/0/0", "ebi/x.sums", "ebi/other"):
        store.put(key, b"1")
    store.persist("ebi/x.zarr", "ebi/x.sums", "ebi/not there")
    tree = root / "ebi" / "x.zarr"
    wanted = [*tree.rglob("*"), tree, root / "ebi" / "x.sums", root / "ebi", root, tmp_path]
    assert len(wanted) == 11
    assert synced.missing(*wanted) == ([] if durable else [str(path) for path in wanted])
    assert synced.missing(root / "ebi" / "other")


def test_a_disk_that_is_full_only_when_forced_is_named(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS and quotas may say so no earlier."""
    store.put("ebi/x", b"1")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DestinationFullError, match="cannot force to the disk"):
        store.persist("ebi/x")


def test_files_get_the_permissions_of_the_umask(store: LocalStore) -> None:
    old = os.umask(0o027)
    try:
        store.put("k", b"1")
    finally:
        os.umask(old)
    assert os.stat(os.path.join(store.root, "k")).st_mode & 0o777 == 0o640


def test_a_name_of_255_bytes_can_be_written(store: LocalStore) -> None:
    store.put("ä" * 127, b"1")
    assert store.get("ä" * 127) == b"1"
    with pytest.raises(DestinationError, match="too long"):
        store.put("x" * 256, b"1")


def test_a_dead_holders_note_does_not_hold_the_volume(store: LocalStore) -> None:
    Path(store.root, "ebi/.locks").mkdir(parents=True)
    Path(store.root, "ebi/.locks/x.lock").touch()
    Path(store.root, "ebi/.locks/x.json").write_text("{ cut")
    with store.lock("ebi/x", "next"):
        with pytest.raises(DestinationBusyError, match="next"), store.lock("ebi/x", "third"):
            pytest.fail("held twice")
        Path(store.root, "ebi/.locks/x.json").write_text("{ cut")
        with pytest.raises(DestinationBusyError, match="no name"), store.lock("ebi/x", "third"):
            pytest.fail("held twice")
    assert files(store) == []


def test_free_space_is_told_even_before_the_folder_exists(store: LocalStore) -> None:
    free = store.free_bytes()
    assert not os.path.exists(store.root)
    state = os.statvfs("/".join(store.root.split("/")[:-1]))
    assert free is not None
    assert abs(free - state.f_bavail * state.f_frsize) < 2**30


def test_file_addresses_are_folders(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    store.put("k", b"1")
    assert store.local_path("k") == str(tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == b"1"


def test_what_killed_writers_without_a_lock_left_is_swept_after_an_hour(tmp_path: Path) -> None:
    old, young, moved = (
        tmp_path / temporary_name("report.html", kind) for kind in ("tmp", "tmp", "old")
    )
    deep = tmp_path / "ebi" / temporary_name("x-ro-crate-metadata.json", "tmp")
    own = tmp_path / ".report.html.tmp"  # of no name that we give
    deep.parent.mkdir()
    for path in (old, young, moved, deep, own):
        path.touch()
    for path in (old, moved, deep, own):
        os.utime(path, (1, 1))
    store = LocalStore(tmp_path)
    assert store.sweep_abandoned() == 1
    assert not old.exists()
    assert all(path.exists() for path in (young, moved, deep, own))
    assert store.sweep_abandoned("ebi") == 1
    assert store.sweep_abandoned("nowhere") == 0
    assert not deep.exists()


# --- scratch ---------------------------------------------------------------------------------

_HOLDER = """
from lib.storage.local_lock import scratch_folder
with scratch_folder("ebi") as folder:
    (folder / "downloads").mkdir()
    print(folder, flush=True)
    input()
"""


def holder(environ: dict[str, str]) -> tuple[subprocess.Popen[str], Path]:
    """A process with a scratch folder, which it has until it is told to go."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env=environ,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_scratch_folders_of_killed_processes_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    (living, mine), (dead, left) = holder(environ), holder(environ)
    dead.kill()
    dead.communicate()
    rebooted, foreign = tmp_path / "macroscope-00000000-ebi-x", tmp_path / "macroscope-mine"
    for other in (rebooted, foreign):
        other.mkdir()
    assert (left / "downloads").is_dir()
    with scratch_folder("list") as scratch:
        assert scratch.is_dir()
        assert {*tmp_path.iterdir()} == {scratch, mine, rebooted, foreign}
    living.communicate("\n")
    assert living.returncode == 0
    assert {*tmp_path.iterdir()} == {rebooted, foreign}


def test_a_scratch_folder_is_had_where_nothing_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.EBADF, "as NFS says of a folder")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with scratch_folder("one") as one, scratch_folder("two") as two:
        assert {*tmp_path.iterdir()} == {one, two}
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_that_was_removed_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def lock(handle: int) -> bool:
        if not made:
            made.extend(tmp_path.iterdir())
            shutil.rmtree(made[0])
        return real(handle)

    real = local_lock._try_lock
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(local_lock, "_try_lock", lock)
    with scratch_folder("ebi") as scratch:
        assert scratch.is_dir()
        assert [scratch] == list(tmp_path.iterdir()) != made


def test_a_worker_whose_run_was_killed_changes_nothing_once_another_run_holds_the_volume(
    tmp_path: Path,
) -> None:
    """The kernel frees the lock of a killed run at once; its Dask workers live on for a while."""
    key, shard = "ebi/x", "ebi/.partial/x/x.ome.zarr/0/c/0/0/0"
    worker, late, run = (LocalStore(tmp_path, durable=False) for _ in range(3))
    with LocalStore(tmp_path).lock(key, "killed run"):
        worker.follow(key, "killed run")
        worker.put(shard, b"1")
        note = tmp_path / "ebi" / ".locks" / "x.json"
        said = note.read_bytes()
    note.parent.mkdir()
    note.write_bytes(said)  # which a killed run leaves
    worker.put(shard, b"2")  # nobody else is at the volume yet
    draft = worker.draft("ebi/draft")
    with run.lock(key, "next run"):
        run.follow(key, "next run")  # its own, which it holds itself
        run.put(shard, b"right")
        late.follow(key, "killed run")
        for stale in (worker, late):
            for change in (
                lambda store: store.put(shard, b"stale"),
                lambda store: store.delete(shard),
                lambda store: store.delete_tree("ebi/.partial/x"),
                lambda store: store.may_write(shard),
            ):
                with pytest.raises(DestinationBusyError, match="ebi/x"):
                    change(stale)
        with pytest.raises(DestinationBusyError, match="ebi/x"):
            draft.commit()
        assert run.get(shard) == b"right"
    run.put(shard, b"after")  # as a run of one process does when it has let go
    with pytest.raises(DestinationBusyError, match="ebi/x"):
        worker.put(shard, b"stale")


def test_a_worker_goes_on_where_its_run_could_not_be_noted(tmp_path: Path) -> None:
    """A full disk takes a lock, which is empty, and no note."""
    worker = LocalStore(tmp_path, durable=False)
    worker.follow("ebi/x", "this run")
    worker.put("ebi/a", b"1")
    note = tmp_path / "ebi" / ".locks" / "x.json"
    note.parent.mkdir(exist_ok=True)
    note.touch()
    worker.put("ebi/a", b"2")
    assert worker.get("ebi/a") == b"2"
