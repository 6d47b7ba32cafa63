"""Bounds of every read from a network: how much a server may send, and how slowly.

A server that sends without end, or a byte a second, keeps a client busy for ever, because no read
times out. So every socket is read through a `Meter`. Its bounds come from what was announced: the
size of a file or range, the largest document that makes sense, the size of headers and replies.
Only the time spent waiting for the server counts, so a slow disk here is not its fault.
"""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, BinaryIO, Protocol

from lib.errors import BadAnswerError, TransportError
from lib.transport.limits import Limits

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


KIB, MIB, GIB = 1024, 1024**2, 1024**3

DOCUMENT_BYTES = 64 * MIB  # the largest JSON, page or text
HEADER_BYTES = 256 * KIB  # of one HTTP answer, or of one FTP reply
LISTING_BYTES = 64 * MIB  # an FTP directory
LISTING_ENTRIES = 1_000_000
UNANNOUNCED_BYTES = 64 * GIB  # a file of which the server does not say the size
_MINUTE = 60.0

clock: Callable[[], float] = time.monotonic


class Receiver(Protocol):
    """A socket, as far as it is read."""

    def recv_into(self, buffer: WriteableBuffer) -> int: ...


class Meter:
    """What one answer, reply or transfer has taken so far; for one thread at a time.

    Parameters
    ----------
    limits
        Give the floor for transfers, and the longest time of a document.
    most
        Bytes that may come.
    document
        Whether the whole must come within ``limits.document_s``; else only the floor holds.
    """

    def __init__(self, limits: Limits, most: int, *, document: bool) -> None:
        self._longest_s = limits.document_s
        # Longer than one wait for the next byte may be: a pause that is allowed is no drip.
        self._spell_s = max(_MINUTE, 2 * limits.read_timeout_s)
        self._floor = limits.floor_bytes_per_minute
        self.expect(most, document=document)

    def expect(self, most: int, *, document: bool) -> None:
        """Begin anew with other bounds: after the header comes the body."""
        self._left = most
        self._most = most
        self._document = document
        self._waited_s = 0.0
        self._spell_waited_s = 0.0
        self._spell_bytes = 0

    def took(self, count: int, waited_s: float) -> None:
        """Count bytes, and the seconds that the server let us wait for them.

        Raises
        ------
        BadAnswerError
            More came than may.
        TransportError
            They come too slowly.
        """
        self._left -= count
        if self._left < 0:
            raise BadAnswerError(
                f"the server sends more than the {self._most} bytes that it may", retryable=False
            )
        if self._document:
            self._waited_s += waited_s
            if self._waited_s > self._longest_s:
                raise TransportError(f"the answer was not there within {self._longest_s:g} s")
            return
        self._spell_waited_s += waited_s
        self._spell_bytes += count
        if self._spell_waited_s >= self._spell_s:
            if self._spell_bytes < self._floor * self._spell_waited_s / _MINUTE:
                raise TransportError(
                    f"the server sends less than {self._floor} bytes a minute",
                    advice="Run again later: finished work is kept",
                )
            self._spell_waited_s, self._spell_bytes = 0.0, 0

    def receive_into(self, sock: Receiver, buffer: WriteableBuffer) -> int:
        """``sock.recv_into`` within the bounds; 0 at the end."""
        begun = clock()
        count = sock.recv_into(buffer)
        self.took(count, clock() - begun)
        return count


def too_long(most: int) -> BadAnswerError:
    """The error for an answer of more bytes than may come."""
    return BadAnswerError(f"the answer is longer than {most} bytes", retryable=False)


def framed(size: int) -> int:
    """Bytes on the wire that a body of `size` bytes may take, chunked transfer coding included.

    A chunk of a single byte takes six (RFC 9112, section 7.1).
    """
    return 8 * size + HEADER_BYTES


_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered(meter: Meter) -> Iterator[Meter]:
    """Let `meter` bound what is read in this block through files of `metered_file`."""
    before = _meter.get()
    _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.set(before)


class _MeteredRaw(io.RawIOBase):
    """A socket's raw file that reports to the meter in force where it is read."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        begun = clock()
        count = self._raw.readinto(buffer)
        meter = _meter.get()
        if meter is not None:
            meter.took(count or 0, clock() - begun)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def metered_file(file: BinaryIO | io.BufferedReader) -> io.BufferedReader:
    """The buffered file of a socket (``makefile("rb")``), read within bounds from now on."""
    return io.BufferedReader(_MeteredRaw(file.detach()))  # type: ignore[union-attr]


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
