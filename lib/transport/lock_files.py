"""Slots and a request rate that processes share through a folder of lock files.

The kernel frees a lock when its holder dies, however it dies, so a killed process never keeps a
slot. The folder must be on a file system with working ``flock``.
"""

from __future__ import annotations

import time
from pathlib import Path

from filelock import FileLock, Timeout

from lib.concurrency import cancel as stopping
from lib.transport.shared_slots import Release

_LONGEST_BACKLOG_S = 600.0


def _lock(path: Path) -> FileLock:
    return FileLock(str(path), thread_local=False)


def _try(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


class LockedSlots:
    """A `lib.transport.shared_slots.SlotSource`: one lock file a slot, one for the queue."""

    lease_s = 1.0
    poll_s = 0.05

    def __init__(self, directory: Path, service: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._stem = str(directory / service)

    def take(self, connections: int) -> Release | None:
        """The first lock that is free."""
        for number in range(connections):
            lock = _lock(Path(f"{self._stem}.slot{number}"))
            if _try(lock):
                return lock.release
        return None

    def stand_in_line(self) -> Release | None:
        """The head of the queue is whoever holds its lock."""
        queue = _lock(Path(f"{self._stem}.queue"))
        return queue.release if _try(queue) else None

    def somebody_waits(self) -> bool:
        """Whether another process stands in the queue."""
        leave = self.stand_in_line()
        if leave is None:
            return True
        leave()
        return False


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
