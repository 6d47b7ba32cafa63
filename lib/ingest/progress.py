"""How far each volume is, for whoever wants to watch: a terminal, a server, nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """One volume at one moment. Bytes are those received from the archive."""

    volume: str
    done_shards: int
    total_shards: int
    received_bytes: int
    expected_bytes: int


Watcher = Callable[[Standing], None]

_watchers: list[Watcher] = []
_guard = threading.Lock()


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Tell `watcher` of every finished shard of this process; called from worker threads."""
    with _guard:
        _watchers.append(watcher)
    try:
        yield
    finally:
        with _guard:
            _watchers.remove(watcher)


def tell(standing: Standing) -> None:
    """Pass a standing on. Watchers bound their own rate."""
    with _guard:
        watchers = list(_watchers)
    for watcher in watchers:
        watcher(standing)
