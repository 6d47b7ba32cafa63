"""Objects in S3: whole, in ranges, and in listings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lib.transport.counters import ServiceCounters
from lib.transport.limits import Limiter, Limits


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object. `key` is relative to the reader's prefix, `size` is bytes."""

    key: str
    size: int
    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """One level of a bucket: objects, and the common prefixes (without a trailing slash)."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]


class ObjectReader:
    """Reads objects below one ``s3://bucket/prefix``. Thread-safe."""

    def __init__(
        self,
        archive: str,
        uri: str,
        limits: Limits,
        limiter: Limiter,
        counters: ServiceCounters,
        *,
        endpoint_url: str | None = None,
        anonymous: bool = True,
        key: str | None = None,
        secret: str | None = None,
        region: str | None = None,
    ) -> None:
        raise NotImplementedError

    def get(self, key: str) -> memoryview | None:
        """The bytes of an object, or None where the store says that there is no such key."""
        raise NotImplementedError

    def get_range(self, key: str, start: int, length: int) -> memoryview | None:
        raise NotImplementedError

    def head(self, key: str) -> ObjectInfo | None:
        raise NotImplementedError

    def list(self, prefix: str = "", delimiter: bool = True) -> Listing:
        raise NotImplementedError

    def list_all(self, prefix: str = "") -> Iterator[tuple[str, int, str | None]]:
        raise NotImplementedError
