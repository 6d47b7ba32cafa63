"""Optional realism: the time to the first byte, and the bandwidth of one connection.

Loopback answers in microseconds; a client tuned against it would be tuned for nothing. With
30 ms and 20 MiB/s a connection behaves like one to a public archive.
"""

from __future__ import annotations

import time

from pydantic import BaseModel, ConfigDict


class Latency(BaseModel):
    """How slow one connection of a service is.

    Parameters
    ----------
    first_byte_s
        Seconds from the request to the first byte of its answer.
    bytes_per_second
        Bandwidth of one connection; 0 is no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_byte_s: float = 0.0
    bytes_per_second: float = 0.0


class Pace:
    """How long to wait so that a stream of bytes keeps to a bandwidth."""

    def __init__(self, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        # Pieces of 20 ms: finer than a client can notice, coarser than the clock of the loop.
        self.piece = max(4096, int(bytes_per_second / 50)) if bytes_per_second else 0
        self._due = time.monotonic()

    def sent(self, count: int) -> float:
        """Seconds to wait after sending `count` more bytes; 0 where there is no limit."""
        if not self.bytes_per_second:
            return 0.0
        now = time.monotonic()
        self._due = max(self._due, now - 0.1) + count / self.bytes_per_second
        return max(0.0, self._due - now)
