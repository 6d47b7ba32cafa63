"""One run per volume on a folder without kernel locks: a lease file that its holder refreshes.

The file is `filelock`'s: made exclusively, refreshed by a thread, taken over by who has seen no
refresh for a whole term by its own clock, or at once where the holder's process was one of this
machine's and is gone. An expired holder may still run, so its writes pass the store's `Fence`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from lib.concurrency import cancel as stopping
from lib.errors import DestinationError
from lib.storage.fence import Fence, clock
from lib.storage.local_lock import busy, read_holder, write_holder
from lib.storage.os_errors import naming_os_errors

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
