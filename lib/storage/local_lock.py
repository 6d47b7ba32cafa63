"""One run per volume on a shared folder: a kernel lock, and beside it who holds it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock, Timeout

from lib.errors import DestinationBusyError
from lib.storage.keys import temporary_name
from lib.storage.os_errors import naming_os_errors

# What file systems and servers say that have no kernel locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK)
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


def honours_flock(folder: str) -> bool:
    """Whether the file system of a folder keeps two holders of one kernel lock apart.

    Raises
    ------
    OSError
        Nothing can be written there.
    """
    path = os.path.join(folder, temporary_name("flock", "tmp"))
    with open(path, "xb") as first:
        try:
            with open(path, "rb") as second:
                fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
                try:
                    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    return error.errno in (errno.EAGAIN, errno.EACCES)
                return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise
        finally:
            os.unlink(path)


@contextmanager
def lock(lock_path: str, holder_path: str, key: str, holder: str) -> Iterator[None]:
    """Hold the lock file at `lock_path`.

    The kernel releases the lock when the process ends, also by SIGKILL. The file is removed at
    release, while still held: `filelock` notices when it has locked a removed file and tries again.
    """
    with naming_os_errors(lock_path, "lock"):
        held = _acquire(lock_path, holder_path, key)
        with suppress(OSError):  # who holds it is a courtesy; holding it is what counts
            write_holder(holder_path, holder)
    try:
        yield
    finally:
        for path in (holder_path, lock_path):
            with suppress(OSError):
                os.unlink(path)
        held.release()
        with suppress(OSError):
            os.rmdir(os.path.dirname(lock_path))


def _acquire(lock_path: str, holder_path: str, key: str) -> FileLock:
    for attempt in range(3):
        # One object per attempt: the same object in two threads would count as re-entry.
        lock = FileLock(
            lock_path,
            timeout=_PATIENCE_SECONDS,
            thread_local=False,
            is_singleton=False,
            fallback_to_soft=False,
        )
        try:
            os.makedirs(os.path.dirname(lock_path), exist_ok=True)
            lock.acquire()
        except Timeout:
            raise busy(key, read_holder(holder_path), lock_path) from None
        except (FileNotFoundError, FileExistsError):  # the other run removed the empty folder
            if attempt == 2:
                raise
            continue
        return lock
    raise AssertionError("unreachable")


def write_holder(path: str, holder: str) -> None:
    """Note beside a lock who holds it."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(describe_holder(holder), file)


def read_holder(path: str) -> dict[str, Any] | None:
    """Who was noted beside a lock, if anybody was."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
