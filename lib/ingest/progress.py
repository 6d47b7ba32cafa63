"""How far each volume is, for whoever wants to watch: a terminal, a server, a log, nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One volume at one moment. Bytes are those received from the archive.

    ``total_shards`` is 0 while files are fetched, before the grid is known.
    """

    volume: str
    done_shards: int
    total_shards: int
    received_bytes: int
    expected_bytes: int


ProgressListener = Callable[[ProgressEvent], None]

_listeners: list[ProgressListener] = []
_guard = threading.Lock()


@contextmanager
def subscribe(
    listener: ProgressListener,
    look: Callable[[], Iterable[ProgressEvent]] | None = None,
    *,
    every_s: float = 1.0,
) -> Iterator[None]:
    """Tell `listener` of every finished shard of this process; called from worker threads.

    Parameters
    ----------
    look
        Where the volumes of this process are now: asked every `every_s` seconds, because bytes come
        long before the shard that they belong to is done.
    """
    over = threading.Event()

    def ask() -> None:
        while look is not None and not over.wait(every_s):
            for event in look():
                listener(event)

    ticker = threading.Thread(target=ask, name="progress", daemon=True)
    with _guard:
        _listeners.append(listener)
    ticker.start()
    try:
        yield
    finally:
        over.set()
        ticker.join()
        with _guard:
            _listeners.remove(listener)


def emit(event: ProgressEvent) -> None:
    """Pass an event on. Listeners bound their own rate."""
    with _guard:
        listeners = list(_listeners)
    for listener in listeners:
        listener(event)
