"""The fence before every change of a store: nothing is written once the writer's lease is over.

A process that was paused (SIGSTOP, a suspended machine, a frozen container) knows nothing of it. So
a lease is looked at by the clock before each change, and how long it still lasts goes with the
request, for the store to refuse what arrives later.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from lib.errors import DestinationBusyError


def clock() -> float:
    """Seconds that also pass while the machine sleeps, where the system has such a clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Term(Protocol):
    """A lease as a writer sees it."""

    def left(self) -> float:
        """Seconds until it ends, 0 or less when it has ended. May ask the store, and wait."""
        ...


class Fence:
    """The leases that one store's writes depend on. Thread-safe."""

    def __init__(self) -> None:
        self._terms: dict[str, Term] = {}
        self._guard = threading.Lock()

    def add(self, key: str, term: Term) -> None:
        """From now on writes need this lease."""
        with self._guard:
            self._terms[key] = term

    def remove(self, key: str) -> None:
        """The lease was given back: writes need it no longer."""
        with self._guard:
            self._terms.pop(key, None)

    def __contains__(self, key: str) -> bool:
        with self._guard:
            return key in self._terms

    def __bool__(self) -> bool:
        """Whether writes need any lease at all."""
        with self._guard:
            return bool(self._terms)

    def left(self, location: str) -> float | None:
        """Seconds for which this process may write; None where no lease is needed.

        Raises
        ------
        DestinationBusyError
            A lease is over.
        """
        with self._guard:
            terms = dict(self._terms)
        least: float | None = None
        for key, term in terms.items():
            seconds = term.left()
            if seconds <= 0:
                raise DestinationBusyError(
                    f"the lease on {key} is over, because it was not renewed in time; another run "
                    "may have taken the volume over",
                    location=location,
                )
            least = seconds if least is None else min(least, seconds)
        return least
