"""HTTP(S): JSON and text answers, byte ranges into the caller's buffer, resumable downloads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.errors import RequestRefusedError
from lib.transport.counters import ServiceCounters
from lib.transport.limits import Limiter, Limits
from lib.transport.partial import Fetched

MIB = 1024 * 1024
Params = Mapping[str, str | int | float]


class RangesIgnoredError(RequestRefusedError):
    """The server answers a range with the whole file; `HttpClient.download` still works."""

    advice = "Download the whole file instead of reading ranges"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What HEAD says about a file. `size` is bytes, or None where the server does not say."""

    url: str
    size: int | None
    etag: str | None = None
    last_modified: str | None = None
    accepts_ranges: bool = False


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One entry of a directory listing page; `name` without slashes."""

    name: str
    is_dir: bool


class HttpClient:
    """Requests to one service. Thread-safe."""

    def __init__(
        self,
        archive: str,
        limits: Limits,
        limiter: Limiter,
        counters: ServiceCounters,
        *,
        allowed_hosts: Collection[str] = (),
    ) -> None:
        raise NotImplementedError

    def get_json(self, url: str, params: Params | None = None, max_bytes: int = 64 * MIB) -> Any:
        raise NotImplementedError

    def post_json(self, url: str, body: Any, max_bytes: int = 64 * MIB) -> Any:
        """POST `body` (str or bytes as they are, anything else as JSON); the answer is JSON."""
        raise NotImplementedError

    def get_text(self, url: str, params: Params | None = None, max_bytes: int = 64 * MIB) -> str:
        raise NotImplementedError

    def head(self, url: str) -> RemoteFile:
        raise NotImplementedError

    def read_range_into(self, remote: RemoteFile, start: int, view: memoryview) -> None:
        raise NotImplementedError

    def read_exact_into(self, url: str, view: memoryview, params: Params | None = None) -> None:
        raise NotImplementedError

    def download(
        self, remote: RemoteFile | str, path: Path, on_bytes: Callable[[int], None] | None = None
    ) -> Fetched:
        """`on_bytes` is called with the number of bytes of each block that arrived."""
        raise NotImplementedError

    def list_index(self, url: str) -> list[IndexEntry]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
