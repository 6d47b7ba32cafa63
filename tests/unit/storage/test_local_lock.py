"""On a folder without kernel locks a volume is held by a lease that blocks nobody for ever."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.errors import DestinationBusyError, DestinationError
from lib.records.manager import MetadataManager
from lib.storage import base, local_lock
from lib.storage.local import LocalStore
from lib.storage.local_lock import FolderLease

KEY, SHARD = "ebi/x", "ebi/.partial/x/x.ome.zarr/0/c/0/0/0"


def no_flock(*_: Any) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")


@pytest.fixture(autouse=True)
def _no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", no_flock)


def opened(folder: Path, seconds: float = 1.0) -> LocalStore:
    return LocalStore(folder, durable=False, lease_seconds=seconds)


def paused(store: LocalStore) -> FolderLease:
    """A lease that is taken and never refreshed, as by a process that was paused."""
    lease = store.lock(KEY, "paused run")
    assert isinstance(lease, FolderLease)
    lease.__enter__()
    lease._lease._stop_heartbeat()
    return lease


def test_a_second_run_is_told_who_holds_the_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_lock, "_BEATS", 60)  # each second, of a term that no machine outlasts
    store, other = opened(tmp_path, 60.0), opened(tmp_path, 60.0)
    with store.lock(KEY, "nightly-7"):
        with (
            pytest.raises(DestinationBusyError, match=rf"nightly-7 .*process {os.getpid()}"),
            other.lock(KEY, "second"),
        ):
            pytest.fail("two runs hold one volume")
        with other.lock("ebi/y", "second"):
            pass
        store.put(SHARD, b"1")
    with other.lock(KEY, "second"):
        pass
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["0"]


def test_an_error_inside_frees_the_volume(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(ZeroDivisionError), store.lock(KEY, "first"):
        raise ZeroDivisionError
    with opened(tmp_path).lock(KEY, "second"):
        pass


_KILLED = """
import errno, fcntl, os, signal, sys
def no_flock(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = no_flock
from lib.storage.local import LocalStore
LocalStore(sys.argv[1], lease_seconds=3600).lock("ebi/x", "killed run").__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_holder_of_this_machine_blocks_nobody(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", _KILLED, str(tmp_path)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(root)})
    assert list(tmp_path.rglob("*.lease"))
    with opened(tmp_path, 3600).lock(KEY, "next run"):
        pass


CHANGES: dict[str, Callable[[LocalStore], Any]] = {
    "a file": lambda store: store.put(SHARD, b"stale"),
    "a delete": lambda store: store.delete(SHARD),
    "a discard": lambda store: store.delete_tree("ebi/.partial"),
    "a publication": lambda store: store.publish_tree("ebi/.partial/x", "ebi/y"),
    "a sweep": lambda store: store.sweep_temporaries(),
    "a row written in place": lambda store: store.may_write("ebi/x.npy"),
    "a record": lambda store: MetadataManager(store).begin("ebi", "1", "x"),
}


def test_a_holder_that_stopped_refreshing_is_replaced_and_changes_nothing(tmp_path: Path) -> None:
    stale, taker = opened(tmp_path), opened(tmp_path)
    lease = paused(stale)
    draft = stale.draft("ebi/draft")
    draft.write(b"stale")
    with taker.lock(KEY, "next run"):
        taker.put(SHARD, b"right")
        before = {item.key: taker.get(item.key) for item in taker.list()}
        for what, change in CHANGES.items():
            with pytest.raises(DestinationBusyError, match="the lease on ebi/x is over"):
                change(stale)
            assert {item.key: taker.get(item.key) for item in taker.list()} == before, what
        with pytest.raises(DestinationBusyError, match="the lease on ebi/x is over"):
            draft.commit()
        draft.abandon()
        with pytest.raises(DestinationBusyError, match="next run"):
            lease.__exit__(None, None, None)
        taker.put(SHARD, b"still ours")
    with opened(tmp_path).lock(KEY, "third run"):
        pass


def test_a_writer_that_nobody_took_over_from_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path, 60.0)
    lease = paused(store)
    real = base.clock
    monkeypatch.setattr(local_lock, "clock", lambda: real() + 3600)
    store.put(SHARD, b"1")
    assert lease.left() > 0
    lease.__exit__(None, None, None)
    with opened(tmp_path, 60.0).lock(KEY, "next run"):
        pass


def test_a_worker_writes_only_while_the_lease_of_its_run_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, worker, stranger = (opened(tmp_path, 60.0) for _ in range(3))
    with run.lock(KEY, "this run"):
        worker.follow(KEY, "this run")
        worker.put(SHARD, b"1")
        run.follow(KEY, "this run")  # its own, which it holds itself
        stranger.follow(KEY, "another run")
        with pytest.raises(DestinationBusyError):
            stranger.put(SHARD, b"2")
        real = base.clock
        # a term later, in which nobody refreshed the file
        monkeypatch.setattr(local_lock, "clock", lambda: real() + 61)
        with pytest.raises(DestinationBusyError):
            worker.put(SHARD, b"3")
        monkeypatch.setattr(local_lock, "clock", real)
    late = opened(tmp_path, 60.0)
    late.follow(KEY, "this run")
    with pytest.raises(DestinationBusyError):
        late.put(SHARD, b"4")
    assert opened(tmp_path).get(SHARD) == b"1"


def test_runs_that_disagree_about_the_term_are_told(tmp_path: Path) -> None:
    with (
        opened(tmp_path, 60.0).lock(KEY, "first"),
        pytest.raises(DestinationError, match="another length") as caught,
    ):
        opened(tmp_path, 30.0).lock(KEY, "second").__enter__()
    assert "dest_lease_seconds" in caught.value.advice
