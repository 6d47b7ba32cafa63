"""Gates before a source: units in their order, or any units but only so many at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

from lib.concurrency import cancel


class InOrderGate:
    """Lets units pass in order, one at a time; the others do something else meanwhile.

    A source that is read from its front to its end is then asked for its bytes in that order, so
    that its digest needs no second reading, and few units' requests are read ahead.

    Parameters
    ----------
    overlapping
        Whether a unit may ask for its first bytes while the last of the one before it travel.
    """

    def __init__(self, units: Sequence[Hashable], *, overlapping: bool = False) -> None:
        self._places = {unit: place for place, unit in enumerate(units)}
        self._overlapping = overlapping
        self._begun = self._ended = 0  # of the units before these, all have
        self._moved = threading.Condition()

    @contextmanager
    def turn(self, unit: Hashable) -> Iterator[Callable[[float], None]]:
        """Wait for the unit's turn, or `StoppedError`.

        Yields what is to be told after each block which share of the unit has arrived; it waits
        until every earlier unit has ended.
        """
        place = self._places[unit]
        self._wait(lambda: self._begun >= place)

        def arrived(share: float) -> None:
            if self._overlapping and share >= 0.5:  # then all the rest has been asked for
                self._move(place + 1, 0)
            self._wait(lambda: self._ended >= place)

        try:
            yield arrived
        finally:
            self._move(place + 1, place + 1)

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._moved:
            cancel.wait_for(self._moved, ready)

    def _move(self, begun: int, ended: int) -> None:
        with self._moved:
            self._begun, self._ended = max(self._begun, begun), max(self._ended, ended)
            self._moved.notify_all()


class CountGate:
    """Lets so many units pass at a time, whichever they are."""

    def __init__(self, units: int) -> None:
        self._room = threading.BoundedSemaphore(units)

    @contextmanager
    def turn(self, unit: Hashable) -> Iterator[Callable[[float], None]]:
        """Wait for room, or `StoppedError`; what this yields does nothing."""
        cancel.acquire(self._room)
        try:
            yield _nothing
        finally:
            self._room.release()


def _nothing(share: float) -> None:
    """Nobody waits for the share of a unit that has arrived."""
