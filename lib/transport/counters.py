"""What a session asked of each service; tests of politeness and the run's report read it."""

from __future__ import annotations

import threading
from collections import Counter


class ServiceCounters:
    """Counts of one service. Thread-safe."""

    __slots__ = (
        "_kinds",
        "_lock",
        "bytes_received",
        "in_flight",
        "peak_in_flight",
        "requests",
        "retries",
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: Counter[str] = Counter()
        self.requests = 0
        self.bytes_received = 0
        self.retries = 0
        self.in_flight = 0
        self.peak_in_flight = 0

    def begin(self, requests: int = 1) -> None:
        """Something goes out: usually one request (or FTP command)."""
        with self._lock:
            self.requests += requests
            self.in_flight += 1
            if self.in_flight > self.peak_in_flight:
                self.peak_in_flight = self.in_flight

    def end(self, received: int = 0) -> None:
        """Its answer is done with; `received` body bytes came in that were not yet counted."""
        with self._lock:
            self.in_flight -= 1
            self.bytes_received += received

    def sent(self, kind: str = "") -> None:
        """One more request within what `begin` opened, of a kind that is counted by itself."""
        with self._lock:
            self.requests += 1
            self._kinds[kind] += 1

    def by_kind(self, *kinds: str) -> dict[str, int]:
        """Requests of each of these kinds."""
        with self._lock:
            return {kind: self._kinds[kind] for kind in kinds}

    def received(self, count: int) -> None:
        """Body bytes came in."""
        with self._lock:
            self.bytes_received += count

    def retried(self) -> None:
        """A request is about to be tried again."""
        with self._lock:
            self.retries += 1

    def snapshot(self) -> dict[str, int]:
        """All counts at one moment."""
        with self._lock:
            return {
                "requests": self.requests,
                "bytes_received": self.bytes_received,
                "retries": self.retries,
                "in_flight": self.in_flight,
                "peak_in_flight": self.peak_in_flight,
            }


class Counters:
    """The counts of every service that a session used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._services: dict[str, ServiceCounters] = {}

    def service(self, name: str) -> ServiceCounters:
        """The counters of one service, made on first use."""
        with self._lock:
            return self._services.setdefault(name, ServiceCounters())

    def snapshot(self) -> dict[str, dict[str, int]]:
        """Service name to ``requests, bytes_received, retries, in_flight, peak_in_flight``."""
        with self._lock:
            services = dict(self._services)
        return {name: counters.snapshot() for name, counters in services.items()}
