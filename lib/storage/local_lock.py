"""One run per volume on a shared folder: a kernel lock, or a lease where there are no such locks.

Beside either lies who holds it. The file of a lease is `filelock`'s: made exclusively, refreshed by
a thread, taken over by who has seen no refresh for a whole term by its own clock, or at once where
the holder's process was one of this machine's and is gone. An expired holder may still run, so its
writes pass the store's `Fence`.

A kernel lock also tells whose scratch folders are a dead process's.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, LeaseSettingsMismatch, SoftFileLease, Timeout

from lib.concurrency import cancel as stopping
from lib.errors import DestinationBusyError, DestinationError
from lib.storage.base import Fence, clock
from lib.storage.durable import naming_os_errors
from lib.storage.keys import LOCKS

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

    The file that is tried has one name: what a killed process leaves, the next one removes.

    Raises
    ------
    OSError
        Nothing can be written there.
    """
    path = os.path.join(folder, LOCKS, "flock")
    try:
        first = acquire(path, patience_s=_PATIENCE_SECONDS)
    except Timeout:
        return True  # another process tries the same, and keeps this one out
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        with suppress(OSError):
            os.unlink(path)
            os.rmdir(os.path.dirname(path))
        return False
    try:
        with open(path, "rb") as second:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    finally:
        release(first)
    return False


@contextmanager
def lock(lock_path: str, holder_path: str, key: str, holder: str) -> Iterator[None]:
    """Hold the lock file at `lock_path`.

    The kernel releases the lock when the process ends, also by SIGKILL.
    """
    with naming_os_errors(lock_path, "lock"):
        try:
            held = acquire(lock_path, patience_s=_PATIENCE_SECONDS)
        except Timeout:
            raise busy(key, read_holder(holder_path), lock_path) from None
        with suppress(OSError):  # who holds it is a courtesy; holding it is what counts
            write_holder(holder_path, holder)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(holder_path)
        release(held)


def acquire(path: str, *, patience_s: float | None, soft: bool = False) -> FileLock:
    """Lock the file at `path`, whose folder is made.

    Parameters
    ----------
    patience_s
        How long another may hold it; None waits until it is free, or a stop is asked for.
    soft
        Where the file system has no kernel locks, the file itself is the lock.

    Raises
    ------
    Timeout, StoppedError, OSError
    """
    folder = os.path.dirname(path)
    while True:
        # One object per attempt: the same object in two threads would count as re-entry.
        lock = FileLock(
            path,
            timeout=patience_s or 0,
            thread_local=False,
            is_singleton=False,
            fallback_to_soft=soft,
        )
        try:
            os.makedirs(folder, exist_ok=True)
            lock.acquire()
            return lock
        except Timeout:
            if patience_s is not None:
                raise
            stopping.sleep(_POLL_S)
        except (FileNotFoundError, FileExistsError):
            if os.path.lexists(folder) and not os.path.isdir(folder):
                raise
            stopping.check()  # another's end removed the empty folder before it was looked at


def release(lock: FileLock) -> None:
    """Remove a lock file while it is held: `filelock` notices when it has locked a removed one."""
    with suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()
    with suppress(OSError):
        os.rmdir(os.path.dirname(lock.lock_file))


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


_BEATS = 6  # refreshes within one term
_POLL_S = 0.2


class FolderLease:
    """A lease on `key` for `holder`; a context manager, and the `Term` of what is written under it.

    Raises
    ------
    DestinationBusyError
        Another run refreshes its lease, or took this one over.
    DestinationError
        The file cannot be made; or the holder keeps to another ``lease_seconds``.
    """

    def __init__(
        self, path: str, holder_path: str, fence: Fence, key: str, holder: str, seconds: float
    ) -> None:
        self._path, self._holder_path, self._fence = path, holder_path, fence
        self._key, self._holder, self._seconds = key, holder, seconds
        self._lease = SoftFileLease(
            path,
            lease_duration=seconds,
            heartbeat_interval=seconds / _BEATS,
            poll_interval=min(_POLL_S, seconds / _BEATS),
            thread_local=False,
            is_singleton=False,
        )
        self._seen = 0.0
        self._over = False
        self._looking = threading.Lock()

    def __enter__(self) -> None:
        with naming_os_errors(self._path, "lock"):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            asked = clock()
            try:
                # Long before that somebody has refreshed it, or it is free.
                patience = 3 * self._seconds + _POLL_S
                self._lease.acquire(timeout=patience, cancel_check=_refreshed(self._path))
            except Timeout:
                stopping.check()
                raise busy(self._key, read_holder(self._holder_path), self._path) from None
            except LeaseSettingsMismatch as error:
                raise DestinationError(
                    "another run holds the volume by a lease of another length",
                    location=self._path,
                    advice="Give all runs on this folder the same dest_lease_seconds",
                ) from error
            self._seen = max(asked, clock() - self._seconds / _BEATS)
            with suppress(OSError):  # who holds it is a courtesy; holding it is what counts
                write_holder(self._holder_path, self._holder)
        self._fence.add(self._key, self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.left() <= 0:  # stays in the fence: nothing more is written
            self._lease.release()
            if kind is None:
                raise busy(self._key, read_holder(self._holder_path), self._path)
            return
        self._fence.remove(self._key)
        with suppress(OSError):
            os.unlink(self._holder_path)
        self._lease.release()
        with suppress(OSError):
            os.rmdir(os.path.dirname(self._path))

    def left(self) -> float:
        """Seconds until the lease ends by our clock, counted from when the file was ours; 0: over.

        After a pause it goes on where nobody took it: the file is then still the own one.
        """
        with self._looking:
            now = clock()
            if not self._over and now - self._seen >= self._seconds / _BEATS:
                if self._is_ours():
                    self._seen = now
                else:
                    self._over = True
            return 0.0 if self._over else self._seen + self._seconds - clock()

    def _is_ours(self) -> bool:
        token = self._lease.token
        if token is None or self._lease.compromise is not None:
            return False
        try:
            os.utime(self._path)  # first, so that nobody takes it between the look and the write
            with open(self._path, encoding="utf-8", errors="replace") as file:
                return token in file.read()
        except FileNotFoundError:
            return False
        except OSError:  # for now: what was seen before holds until its end
            return clock() - self._seen < self._seconds


class FollowedLock:
    """Another process's kernel lock, for those that write on its behalf: Dask workers.

    The kernel frees the lock of a killed run and tells its workers nothing, which live on for a
    while. For them it is over for good as soon as another run is noted beside it, or none any
    more. Where nothing was ever noted (the disk is full), it counts as held.
    """

    def __init__(self, holder_path: str, holder: str) -> None:
        self._holder_path, self._holder = holder_path, holder
        self._noted = self._over = False
        self._looking = threading.Lock()

    def left(self) -> float:
        """Seconds until it ends: without end, or 0 when it is another run's."""
        with self._looking:
            about = read_holder(self._holder_path)
            if about is not None:
                self._noted = True
                self._over |= about.get("run") != self._holder
            elif self._noted and not os.path.lexists(self._holder_path):
                self._over = True
            return 0.0 if self._over else math.inf


class FollowedFolderLease:
    """Another process's lease, for those that write on its behalf: Dask workers.

    It is looked at six times in a term; it lasts for a term from when it was last seen to change.
    """

    def __init__(self, path: str, holder_path: str, holder: str, seconds: float) -> None:
        self._path, self._holder_path = path, holder_path
        self._holder, self._seconds = holder, seconds
        self._mark: tuple[int, int] | None = None
        self._seen = self._looked = -float("inf")
        self._over = False
        self._looking = threading.Lock()

    def left(self) -> float:
        """Seconds until the lease ends, as far as was seen; 0 when it is over."""
        with self._looking:
            now = clock()
            if not self._over and now - self._looked >= self._seconds / _BEATS:
                self._look(now)
            return 0.0 if self._over else self._seen + self._seconds - clock()

    def _look(self, now: float) -> None:
        mark = _mark(self._path)
        about = read_holder(self._holder_path)
        if mark is None or about is None or about.get("run") != self._holder:
            self._over = True
            return
        self._looked = now
        if mark != self._mark:
            self._mark, self._seen = mark, now


def _refreshed(path: str) -> Callable[[], bool]:
    """Whether somebody refreshed the lease since it was first seen, or this run is to stop."""
    first: list[tuple[int, int] | None] = []

    def check() -> bool:
        if stopping.stop_requested():
            return True
        mark = _mark(path)
        if not first and mark is not None:
            first.append(mark)
        return bool(first) and mark is not None and mark != first[0]

    return check


def _mark(path: str) -> tuple[int, int] | None:
    """What changes with each refresh and each taking over."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def scratch_folder(what: str) -> Iterator[Path]:
    """A folder of this process in the temporary one; it goes with the block.

    Those that processes left which were killed are removed first: a kernel lock on each lasts as
    long as its process. Only of this machine since it was started, because some shared file systems
    keep such locks on each machine by itself.

    Parameters
    ----------
    what
        For its name: ``macroscope-<boot>-<what>-...``.
    """
    parent = tempfile.gettempdir()
    try:
        boot = _BOOT_ID.read_text(encoding="ascii")[:8]
    except OSError:  # no Linux
        with tempfile.TemporaryDirectory(prefix=f"macroscope-{what}-") as name:
            yield Path(name)
        return
    mark = f"macroscope-{boot}-"
    _remove_dead(parent, mark)
    folder, handle = _held_folder(parent, f"{mark}{what}-")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _held_folder(parent: str, prefix: str) -> tuple[str, int]:
    while True:
        folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
        with suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _try_lock(handle) is not False and os.path.isdir(folder):
                return folder, handle
            os.close(handle)  # another process found it before it was locked, and removes it


def _remove_dead(parent: str, mark: str) -> None:
    with suppress(OSError), os.scandir(parent) as found:
        for one in found:
            if one.name.startswith(mark):
                with suppress(OSError):  # gone already, or another user's
                    handle = os.open(one.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                    try:
                        if _try_lock(handle):
                            shutil.rmtree(one.path, ignore_errors=True)
                    finally:
                        os.close(handle)


def _try_lock(handle: int) -> bool | None:
    """Whether the lock on an open folder is ours; None where there are no such locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
