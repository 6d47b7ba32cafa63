"""FTP: listings and resumable downloads over one passive connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lib.transport.counters import ServiceCounters
from lib.transport.limits import Limiter, Limits
from lib.transport.partial import Fetched


@dataclass(frozen=True, slots=True)
class FtpEntry:
    """One entry of a directory. `size` in bytes and `modified` (ISO 8601, UTC) where given."""

    name: str
    is_dir: bool
    size: int | None = None
    modified: str | None = None


class FtpClient:
    """One connection to one FTP server, opened when needed. Thread-safe: calls take turns."""

    def __init__(
        self,
        archive: str,
        address: str,
        limits: Limits,
        limiter: Limiter,
        counters: ServiceCounters,
    ) -> None:
        raise NotImplementedError

    def entries(self, path: str) -> list[FtpEntry]:
        raise NotImplementedError

    def size(self, path: str) -> int:
        raise NotImplementedError

    def modified(self, path: str) -> str | None:
        raise NotImplementedError

    def download(
        self, path: str, local: Path, on_bytes: Callable[[int], None] | None = None
    ) -> Fetched:
        """`on_bytes` is called with the number of bytes of each block that arrived."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
