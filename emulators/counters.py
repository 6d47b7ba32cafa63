"""What clients asked for: requests, bytes and concurrency, by service.

Politeness towards archives is a promise, and these counters are how tests hold a client to it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_LOG_LENGTH = 20_000


class Request(NamedTuple):
    """One line of the log; `path` holds the query, `range` the Range header or REST position."""

    time: float
    service: str
    method: str
    path: str
    range: str | None


@dataclass
class Tally:
    """Sums of one service.

    Over HTTP ``open`` and ``peak`` count requests being answered, over FTP control connections.
    """

    requests: int = 0
    bytes_served: int = 0
    open: int = 0
    peak: int = 0
    methods: Counter[str] = field(default_factory=Counter)


class Flight:
    """Something in flight: a request being answered, or an FTP session."""

    def __init__(self, counters: Counters, service: str, is_gone: Callable[[], bool]) -> None:
        self._counters = counters
        self.service = service
        self.is_gone = is_gone

    def end(self) -> None:
        """Say that it is over, before the client can know; later calls do nothing."""
        self._counters.ended(self)


class Counters:
    """Tallies of all services; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}
        self._flights: set[Flight] = set()
        self._log: deque[Request] = deque(maxlen=_LOG_LENGTH)

    def request(self, service: str, method: str, path: str, range_: str | None = None) -> None:
        """Count and log one request."""
        with self._lock:
            tally = self._tally(service)
            tally.requests += 1
            tally.methods[method] += 1
            self._log.append(Request(time.time(), service, method, path, range_))

    def add_bytes(self, service: str, count: int) -> None:
        """Add payload bytes that left the server."""
        with self._lock:
            self._tally(service).bytes_served += count

    def begin(self, service: str, is_gone: Callable[[], bool]) -> Flight:
        """One more in flight.

        Those whose client `is_gone` are taken off first: a client that gives up on one request
        and makes another has one in flight, though the server may learn of it later.
        """
        flight = Flight(self, service, is_gone)
        with self._lock:
            tally = self._tally(service)
            same = [other for other in self._flights if other.service == service]
            self._flights.difference_update([other for other in same if other.is_gone()])
            self._flights.add(flight)
            tally.open = sum(other.service == service for other in self._flights)
            tally.peak = max(tally.peak, tally.open)
        return flight

    def ended(self, flight: Flight) -> None:
        """One fewer in flight."""
        with self._lock:
            if flight in self._flights:
                self._flights.remove(flight)
                self._tally(flight.service).open -= 1

    def clear(self) -> None:
        """Start again from zero; what is open stays counted as open."""
        with self._lock:
            self._log.clear()
            self._tallies = {
                name: Tally(open=tally.open, peak=tally.open)
                for name, tally in self._tallies.items()
            }

    def tally(self, service: str) -> Tally:
        """A copy of one service's sums."""
        with self._lock:
            now = self._tally(service)
            return Tally(now.requests, now.bytes_served, now.open, now.peak, Counter(now.methods))

    def log(self, service: str | None = None) -> list[Request]:
        """The last requests in order of arrival, of one service or of all."""
        with self._lock:
            return [line for line in self._log if service in (None, line.service)]

    def snapshot(self) -> dict[str, Any]:
        """All of it, as JSON."""
        with self._lock:
            services = {
                name: {
                    "requests": tally.requests,
                    "methods": dict(tally.methods),
                    "bytes_served": tally.bytes_served,
                    "open": tally.open,
                    "peak": tally.peak,
                }
                for name, tally in self._tallies.items()
            }
            return {"services": services, "log": [line._asdict() for line in self._log]}

    def _tally(self, service: str) -> Tally:
        return self._tallies.setdefault(service, Tally())
