"""One run per volume on a shared folder: a kernel lock, and beside it who holds it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock, Timeout

from lib.errors import DestinationBusyError
from lib.storage.os_errors import naming_os_errors

_PATIENCE_SECONDS = 0.2  # bridges the moment in which another run's end removes the lock file


def describe_holder(holder: str) -> dict[str, Any]:
    """What a lock says about its holder: run name, host, process and time."""
    return {
        "run": holder,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def busy(key: str, holder: dict[str, Any] | None, location: str) -> DestinationBusyError:
    """The error that tells a second run who works on the volume."""
    who = (
        "{run} (host {host}, process {pid}, since {since})".format_map(holder)
        if holder and {"run", "host", "pid", "since"} <= holder.keys()
        else "another run, which left no name"
    )
    return DestinationBusyError(f"{key} is being worked on by {who}", location=location)


@contextmanager
def hold(lock_path: str, holder_path: str, key: str, holder: str) -> Iterator[None]:
    """Hold the lock file at `lock_path`.

    The kernel releases the lock when the process ends, also by SIGKILL. The file is removed at
    release, while still held: `filelock` notices when it has locked a removed file and tries again.
    """
    with naming_os_errors(lock_path, "lock"):
        lock = _acquire(lock_path, holder_path, key)
        with suppress(OSError):  # who holds it is a courtesy; holding it is what counts
            _write_holder(holder_path, holder)
    try:
        yield
    finally:
        for path in (holder_path, lock_path):
            with suppress(OSError):
                os.unlink(path)
        lock.release()
        with suppress(OSError):
            os.rmdir(os.path.dirname(lock_path))


def _acquire(lock_path: str, holder_path: str, key: str) -> FileLock:
    for attempt in range(3):
        os.makedirs(os.path.dirname(lock_path), exist_ok=True)
        # One object per attempt: the same object in two threads would count as re-entry.
        lock = FileLock(
            lock_path, timeout=_PATIENCE_SECONDS, thread_local=False, is_singleton=False
        )
        try:
            lock.acquire()
        except Timeout:
            raise busy(key, _read_holder(holder_path), lock_path) from None
        except FileNotFoundError:  # the other run removed the empty folder just now
            if attempt == 2:
                raise
            continue
        return lock
    raise AssertionError("unreachable")


def _write_holder(path: str, holder: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(describe_holder(holder), file)


def _read_holder(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
