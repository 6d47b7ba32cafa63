"""How hard each archive service may be used: connections in flight, requests a second, patience.

A service that answers 429 or 503 is asked for less at once, and slowly for more again. One service
(``ebi-ftp``, ``s3``, ...) has one `Limiter` in a process, whichever archive asks. Where a scheduler
keeps slots for all hosts (`share_slots_through`), those are used.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary, WeakValueDictionary, finalize

from lib.concurrency import cancel as stopping
from lib.transport.shared_slots import SharedSlots, SlotSource

MIB = 1024 * 1024
LONGEST_WAIT_S = 300.0
"""A server that asks for more patience than this is left alone."""

_BUSY = frozenset({429, 503})
_GROWS_AFTER_S = 5.0
_ANSWERS_KNOWN = 32  # the last ones, which tell how soon a service usually answers
_FEWEST_KNOWN = 8
_SOONEST_S = 1.5  # the least that a first try waits: a line may stand still for a moment


@dataclass(frozen=True, slots=True)
class Limits:
    """What one service is asked to bear.

    Attributes
    ----------
    connections
        Connections (FTP) or requests (HTTP, S3) in flight, over everything that shares a limiter.
    requests_per_second
        Mean request rate, or None where the number of connections is limit enough. After a pause,
        as many requests as there are connections may begin together.
    connect_timeout_s, read_timeout_s
        Seconds to wait for a connection, and for the next byte of an answer.
    tries
        Tries of one request, the first included.
    first_backoff_s
        Pause before the second try; it doubles from try to try, with jitter.
    range_bytes
        Size of one byte range, or of one block of an FTP transfer's caller.
    document_s
        Longest time that a document, a listing, a header or a reply may take to come.
    floor_bytes_per_minute
        A transfer that brings less in a minute of waiting is broken off, and tried again.
    stall_s
        Seconds without a byte after which the first try of a request is given up; twice as many for
        each further try, up to ``read_timeout_s``, and half as many in the middle of a file. Where
        answers have come much sooner, so is the first try given up (`Limiter.soon_s`). For a
        service of which some requests hang, so that asking again is what helps; None where none is
        known to.
    """

    connections: int
    requests_per_second: float | None = None
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    tries: int = 5
    first_backoff_s: float = 1.0
    range_bytes: int = 8 * MIB
    document_s: float = 600.0
    floor_bytes_per_minute: int = 16 * 1024
    stall_s: float | None = None

    def patience_s(self, tries_before: int) -> float:
        """Seconds to wait for the next byte in a try that so many have gone before."""
        if self.stall_s is None:
            return self.read_timeout_s
        return min(self.read_timeout_s, self.stall_s * 2.0**tries_before)

    def flow_s(self, tries_before: int) -> float:
        """The same for a file or a range of it that has begun to come."""
        patience = self.patience_s(tries_before)
        return patience if self.stall_s is None else patience / 2


CAREFUL = Limits(2, 4.0)
"""For a service that nobody has said anything about."""
MAX_S3_CONNECTIONS = 128


def limits_for(service: str, given: Mapping[str, Limits], timeout_seconds: float | None) -> Limits:
    """The limits of a service: those given, else a careful guess."""
    limits = given.get(service, CAREFUL)
    if service == "s3":
        limits = replace(limits, connections=min(limits.connections, MAX_S3_CONNECTIONS))
    if timeout_seconds is None:
        return limits
    seconds = float(timeout_seconds)
    return replace(limits, read_timeout_s=seconds, document_s=max(limits.document_s, 2 * seconds))


class _Window:
    """How many requests a service bears at once, by its own word. Not thread-safe.

    Additive increase, multiplicative decrease: the first refusal of those in flight halves it, or
    leaves as many as were not refused if these are fewer; then it grows by one at a time, each time
    that so many answers have come and some seconds have gone by.
    """

    def __init__(self) -> None:
        self.size = math.inf
        self.round = 0  # requests of an earlier round were sent before the last decrease
        self._full, self._refused = math.inf, 0
        self._answers, self._grows_at = 0, 0.0

    def refused(self, round_: int, in_flight: int) -> None:
        """A request of a round was refused; `in_flight` counts it."""
        if round_ == self.round:
            self._full, self._refused = min(self.size, in_flight), 0
            self.round += 1
        elif round_ < self.round - 1:
            return
        self._refused += 1
        self.size = max(1, min(self._full // 2, self._full - self._refused))
        self._answers, self._grows_at = 0, time.monotonic() + _GROWS_AFTER_S

    def answered(self, round_: int, most: int) -> None:
        """A request of a round was answered; the window need not grow beyond `most`."""
        if self.size == math.inf or round_ < self.round:
            return
        self._answers += 1
        if self._answers >= self.size and time.monotonic() >= self._grows_at:
            self.size = self.size + 1 if self.size + 1 < most else math.inf
            self._answers, self._grows_at = 0, time.monotonic() + _GROWS_AFTER_S


class Limiter:
    """Slots and pace of one service, shared by all threads of this process.

    ``slot()`` is held while a request or connection is in flight, ``pace()`` waits for the next
    turn of the request rate, and for as long as the server asked to be left alone. Both give up
    with `StoppedError` within a second of a stop.
    """

    def __init__(self, service: str, limits: Limits, slots: SlotSource | None = None) -> None:
        self.service = service
        self._last = limits
        self._wanted: WeakKeyDictionary[object, Limits] = WeakKeyDictionary()
        self._in_use = 0
        self._freed = threading.Condition()
        self._next_turn = self._quiet_until = 0.0
        self._window = _Window()
        self._answers_s: deque[float] = deque(maxlen=_ANSWERS_KNOWN)
        self._slots = SharedSlots(slots) if slots else None
        if self._slots is not None:  # whoever forgets a limiter, or ends, keeps no slot of others
            finalize(self, self._slots.give_back)

    @property
    def connections(self) -> int:
        """Slots in all: the fewest that anybody who joined wants."""
        with self._freed:
            return max(1, min(limits.connections for limits in self._in_force()))

    @property
    def at_once(self) -> int:
        """Requests that may be in flight now: fewer than the slots after refusals."""
        return int(min(self.connections, self._window.size))

    @property
    def idle(self) -> bool:
        """Whether some of the slots are in use, and another request could be made at once."""
        return 0 < self._in_use < self.at_once

    @property
    def requests_per_second(self) -> float | None:
        """The slowest rate that anybody who joined wants, or None."""
        with self._freed:
            rates = (limits.requests_per_second for limits in self._in_force())
            return min((rate for rate in rates if rate), default=None)

    @property
    def soon_s(self) -> float:
        """Seconds of silence after which a request hangs, as far as the last answers tell."""
        known = [*self._answers_s]
        return max(_SOONEST_S, 4 * max(known)) if len(known) >= _FEWEST_KNOWN else math.inf

    def answered_after(self, seconds: float) -> None:
        """An answer began so long after its request."""
        self._answers_s.append(seconds)

    def join(self, owner: object, limits: Limits) -> None:
        """Let `limits` hold too, until `owner` leaves or is gone."""
        with self._freed:
            self._wanted[owner] = self._last = limits

    def leave(self, owner: object) -> None:
        """The limits of `owner` hold no longer; where nobody is left, those that came last do."""
        with self._freed:
            before = self.requests_per_second
            self._wanted.pop(owner, None)
            rate = self.requests_per_second
            if rate != before and rate is not None:  # a turn far ahead was the slower rate's
                self._next_turn = min(self._next_turn, time.monotonic() + 1.0 / rate)
            self._freed.notify_all()

    def slot(self) -> AbstractContextManager[None]:
        """Hold one slot for the length of a ``with`` block."""
        return _Slot(self)

    def acquire(self) -> None:
        """Take a slot, waiting for one if need be. Raises `StoppedError`."""
        with self._freed:
            stopping.wait_for(self._freed, lambda: self._in_use < self.at_once)
            self._in_use += 1
        if self._slots is not None:
            try:
                self._slots.acquire(self.connections)
            except BaseException:
                self._free()
                raise

    def release(self) -> None:
        """Give a slot back."""
        if self._slots is not None:
            self._slots.release()
        self._free()

    def pace(self) -> None:
        """Wait for this request's turn. Raises `StoppedError`."""
        rate = self.requests_per_second
        with self._freed:
            now = time.monotonic()
            turn = max(now, self._quiet_until)
            if rate is not None:
                part = self._part()
                spacing = 1.0 / (rate * part)
                together = max(0, int(self.connections * part) - 1)
                turn = max(turn, self._next_turn)
                self._next_turn = max(self._next_turn, now - together * spacing) + spacing
        if turn > now:
            stopping.sleep(turn - now)

    def note(self, round_: int, error: BaseException | None) -> None:
        """Learn from how a request ended what the service bears.

        Parameters
        ----------
        round_
            What `round_now` was when the request was sent.
        """
        with self._freed:
            if error is None:
                before = self._window.size
                self._window.answered(round_, self.connections)
                if self._window.size > before:
                    self._freed.notify_all()
            elif getattr(error, "status", None) in _BUSY:
                self._window.refused(round_, self._in_use)
            seconds = getattr(error, "retry_after_s", None) or 0.0
            if 0.0 < seconds <= LONGEST_WAIT_S:
                self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)

    @property
    def round_now(self) -> int:
        """Changes when a refusal has made the window smaller."""
        return self._window.round

    def give_back(self) -> None:
        """Leave to other processes every slot that is not in use."""
        if self._slots is not None:
            self._slots.give_back()

    def _part(self) -> float:
        """This process's part of the rate: that of the shared slots which it holds."""
        if self._slots is None:
            return 1.0
        return min(1.0, max(1, self._slots.held) / self.connections)

    def _free(self) -> None:
        with self._freed:
            self._in_use -= 1
            self._freed.notify()

    def _in_force(self) -> list[Limits]:
        return list(self._wanted.values()) or [self._last]


class _Slot:
    """`Limiter.slot`; a class, because a generator costs more than the slot itself."""

    __slots__ = ("_limiter", "_round")

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._round = 0

    def __enter__(self) -> None:
        self._limiter.acquire()
        self._round = self._limiter.round_now

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._limiter.note(self._round, error)
        self._limiter.release()


_limiters: WeakValueDictionary[str, Limiter] = WeakValueDictionary()
_registry = threading.Lock()
_kept_for_all: Callable[[str], SlotSource | None] | None = None


def share_slots_through(sources: Callable[[str], SlotSource | None] | None) -> None:
    """Let something that all hosts can ask keep the slots.

    Parameters
    ----------
    sources
        Where the slots of a service are, or None where nobody keeps any for it; asked once for
        each service of a process.
    """
    global _kept_for_all
    with _registry:
        _kept_for_all = sources


def shared_limiter(service: str, limits: Limits, owner: object) -> Limiter:
    """The limiter of a service in this process, which `owner` joins with its `limits`.

    The strictest limits of all that joined and have not left hold for all.
    """
    limiter = _limiters.get(service)
    if limiter is None:  # whoever keeps the slots may take his time: not while others are kept out
        slots = _kept_for_all(service) if _kept_for_all else None
        with _registry:
            limiter = _limiters.setdefault(service, Limiter(service, limits, slots))
    limiter.join(owner, limits)
    return limiter


def give_back_idle_slots() -> None:
    """Leave every shared slot that is not in use to other processes."""
    with _registry:
        limiters = list(_limiters.values())
    for limiter in limiters:
        limiter.give_back()
