"""Objects in memory as a `Tree`."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from lib.bytesource.base import MemoryBytes
from lib.bytesource.tree import MOST_BYTES, check_length
from lib.errors import FormatError, NotFoundError
from lib.transport.listing import Listing, ObjectInfo

T = TypeVar("T")


class MemoryObjects:
    """A whole `Tree`, whose jobs run one after another."""

    uri = "memory:"
    remote = False
    ranged = True
    listing_proves = True
    range_bytes = 8 * 2**20

    def __init__(self, data: dict[str, bytes]) -> None:
        self.data = data

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | None:
        found = self.data.get(key)
        check_length(key, None if found is None else len(found), most)
        return found

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        found = self.data.get(key)
        if found is None:
            return None
        if start < 0 or start + length > len(found):
            raise FormatError("a range leads out of its object", location=key)
        return found[start : start + length]

    def head(self, key: str) -> ObjectInfo | None:
        found = self.data.get(key)
        return None if found is None else _info(key, found)

    def look(self, key: str) -> ObjectInfo | None:
        return self.head(key)

    def list(self, prefix: str = "") -> Listing:
        folder = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        inner = {key.removeprefix(folder) for key in self.data if key.startswith(folder)}
        objects = [one for one in sorted(inner) if "/" not in one]
        folders = sorted({one.partition("/")[0] for one in inner if "/" in one})
        return Listing(
            tuple(_info(folder + one, self.data[folder + one]) for one in objects),
            tuple(folder + one for one in folders),
        )

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        return (_info(key, data) for key, data in self.data.items() if key.startswith(folder))

    def source(self, key: str, known: ObjectInfo | None = None) -> MemoryBytes:
        if key not in self.data:
            raise NotFoundError("there is no such object", location=key)
        return MemoryBytes(self.data[key], name=key)

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return (job() for job in jobs)


def _info(key: str, data: bytes) -> ObjectInfo:
    return ObjectInfo(key, len(data), f"{zlib.crc32(data):08x}")
