"""Slots of a service that all hosts share, wherever they are kept.

`SharedSlots` is what a limiter uses; a `SlotSource` says where the slots are: a scheduler's own
concurrency limits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lib.concurrency import cancel as stopping

Release = Callable[[], None]


class SlotSource(Protocol):
    """Where the slots of one service are kept for all processes.

    Attributes
    ----------
    lease_s
        Seconds for which a slot is kept for the next request, so that busy threads do not pay for
        a new one each time; also how long a slot may lie idle.
    poll_s
        Seconds between two tries to get one.
    """

    lease_s: float
    poll_s: float

    def take(self, connections: int) -> Release | None:
        """One of ``connections`` slots and how to give it back, or None where all are taken."""
        ...


@dataclass(slots=True)
class _Lease:
    release: Release
    good_until: float
    idle_since: float = 0.0


class SharedSlots:
    """Up to ``connections`` slots over all processes.

    A slot that comes back is kept until its lease is over, then it goes to whoever waits; an idle
    process gives its leases back, so nobody starves.
    """

    def __init__(self, source: SlotSource) -> None:
        self._source = source
        self._mutex = threading.Lock()
        self._waiting = threading.Lock()
        self._idle: list[_Lease] = []
        self._used: list[_Lease] = []
        self._reaper: threading.Timer | None = None

    @property
    def held(self) -> int:
        """Slots that this process holds, in use or not."""
        return len(self._used) + len(self._idle)

    def acquire(self, connections: int) -> None:
        """Take a slot. Raises `StoppedError` if a stop is requested while waiting."""
        if self._reuse():
            return
        while not self._waiting.acquire(timeout=self._source.poll_s):
            stopping.check()
            if self._reuse():
                return
        try:
            while not self._reuse():
                release = self._source.take(connections)
                if release is not None:
                    with self._mutex:
                        until = time.monotonic() + self._source.lease_s
                        self._used.append(_Lease(release, until))
                    return
                stopping.sleep(self._source.poll_s)
        finally:
            self._waiting.release()

    def release(self) -> None:
        """Give a slot back; all slots are alike, so any will do."""
        with self._mutex:
            lease = self._used.pop()
            now = time.monotonic()
            if now < lease.good_until:
                lease.idle_since = now
                self._idle.append(lease)
                self._reap_later()
                return
        lease.release()

    def give_back(self) -> None:
        """Give back every slot that is not in use."""
        with self._mutex:
            idle, self._idle = self._idle, []
        for lease in idle:
            lease.release()

    def _reuse(self) -> bool:
        with self._mutex:
            if not self._idle:
                return False
            self._used.append(self._idle.pop())
            return True

    def _reap_later(self) -> None:
        if self._reaper is None:
            self._reaper = threading.Timer(self._source.lease_s, self._reap)
            self._reaper.daemon = True
            self._reaper.start()

    def _reap(self) -> None:
        """Give back what lay idle for a while."""
        with self._mutex:
            self._reaper = None
            since = time.monotonic() - self._source.lease_s / 2
            old = [lease for lease in self._idle if lease.idle_since <= since]
            self._idle = [lease for lease in self._idle if lease.idle_since > since]
            if self._idle:
                self._reap_later()
        for lease in old:
            lease.release()
