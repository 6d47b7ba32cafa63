"""Slots and a request rate that several processes share through a folder of lock files.

The kernel frees a lock when its holder dies, however it dies, so a killed process never keeps a
slot. The folder must be on a file system with working ``flock``.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lib import stopping

_POLL_S = 0.05
_LEASE_S = 1.0
_LONGEST_BACKLOG_S = 600.0


def _lock(path: Path) -> FileLock:
    return FileLock(str(path), thread_local=False)


def _try(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


@dataclass(slots=True)
class _Lease:
    lock: FileLock
    good_until: float
    idle_since: float = 0.0


class SharedSlots:
    """Up to ``connections`` slots over all processes, one lock file a slot.

    A slot that comes back is kept as a lease for a second, so that busy threads do not pay a file
    lock a request. A busy process hands an old lease to whoever stands in the queue, an idle one
    gives its leases back, so nobody starves.
    """

    def __init__(self, directory: Path, service: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._stem = str(directory / service)
        self._queue_path = Path(f"{self._stem}.queue")
        self._mutex = threading.Lock()
        self._waiting = threading.Lock()
        self._idle: list[_Lease] = []
        self._used: list[_Lease] = []
        self._reaper: threading.Timer | None = None

    def acquire(self, connections: int) -> None:
        """Take a slot. Raises `StoppedError` if a stop is requested while waiting."""
        if self._reuse():
            return
        while not self._waiting.acquire(timeout=_POLL_S):
            stopping.check()
            if self._reuse():
                return
        try:
            self._queue(connections)
        finally:
            self._waiting.release()

    def release(self) -> None:
        """Give a slot back; all slots are alike, so any will do."""
        with self._mutex:
            lease = self._used.pop()
            now = time.monotonic()
            if now < lease.good_until or not self._somebody_waits():
                if now >= lease.good_until:
                    lease.good_until = now + _LEASE_S
                lease.idle_since = now
                self._idle.append(lease)
                self._reap_later()
                return
        lease.lock.release()

    def _reuse(self) -> bool:
        with self._mutex:
            if not self._idle:
                return False
            self._used.append(self._idle.pop())
            return True

    def _queue(self, connections: int) -> None:
        queue = _lock(self._queue_path)
        while not _try(queue):
            stopping.sleep(_POLL_S)
        try:
            while not self._reuse():
                for number in range(connections):
                    lock = _lock(Path(f"{self._stem}.slot{number}"))
                    if _try(lock):
                        with self._mutex:
                            self._used.append(_Lease(lock, time.monotonic() + _LEASE_S))
                        return
                stopping.sleep(_POLL_S)
        finally:
            queue.release()

    def _somebody_waits(self) -> bool:
        queue = _lock(self._queue_path)
        if not _try(queue):
            return True
        queue.release()
        return False

    def _reap_later(self) -> None:
        if self._reaper is None:
            self._reaper = threading.Timer(_LEASE_S, self._reap)
            self._reaper.daemon = True
            self._reaper.start()

    def _reap(self) -> None:
        """Give back what lay idle for a while."""
        with self._mutex:
            self._reaper = None
            since = time.monotonic() - _LEASE_S / 2
            old = [lease for lease in self._idle if lease.idle_since <= since]
            self._idle = [lease for lease in self._idle if lease.idle_since > since]
            if self._idle:
                self._reap_later()
        for lease in old:
            lease.lock.release()


class SharedRate:
    """A request rate over all processes: the time of the next free turn, in a locked file."""

    def __init__(self, directory: Path, service: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._turn_file = directory / f"{service}.turn"
        self._lock_path = directory / f"{service}.rate"

    def reserve(self, gap_s: float) -> float:
        """Take the next turn and return the seconds until it comes; turns are `gap_s` apart."""
        lock = _lock(self._lock_path)
        while not _try(lock):
            stopping.sleep(0.005)
        try:
            now = time.time()
            turn = max(now, min(self._read(), now + _LONGEST_BACKLOG_S))
            self._turn_file.write_text(repr(turn + gap_s))
            return turn - now
        finally:
            lock.release()

    def _read(self) -> float:
        try:
            return float(self._turn_file.read_text())
        except (FileNotFoundError, ValueError):
            return 0.0
