"""Where a process stops itself, as SIGSTOP at the worst of moments would stop it."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

ANY_MOMENT = "any moment"
BEFORE, BODY, SHARD = "before a write", "in a body", "a shard, signed"
SIGNED = {  # method and address of requests that are signed, and not sent yet
    "a write, signed": r"(PUT|POST|DELETE) (?!.*\.lease)",
    SHARD: r"PUT .*/c/\d+/\d+/\d+",
    "a level's document, signed": r"PUT .*\.ome\.zarr/\d+/zarr\.json",
    "the root document, signed": r"PUT .*\.ome\.zarr/zarr\.json",
    "the digests, signed": r"PUT .*\.SHA256SUMS",
    "the record, signed": r"PUT .*/metadata_",
    "a ledger entry, signed": r"PUT .*/ledger/",
    "a discard, signed": r"DELETE .*\.ome\.zarr",
    "the ledger's end, signed": r"POST .*\?delete",
    "a renewal, signed": r"PUT .*\.lease",
}
POINTS = (ANY_MOMENT, BEFORE, BODY, *SIGNED)
_PIECE = 2048  # so that small shards are half sent, too


@dataclass(frozen=True)
class Pause:
    """Where to stop: the `number`-th time at a point, or after so many seconds."""

    point: str
    number: int = 1
    after: float = 0.0


def stop_at(pause: Pause) -> None:
    """Make this process stop itself there, once."""
    from lib.transport.s3 import requests
    from lib.transport.s3.address import Signer
    from lib.transport.s3.requests import S3Requests

    stop = _once(pause.number)
    write, signed, pieces = S3Requests.write, Signer.in_address, requests._pieces
    if pause.point == BEFORE:

        def new_write(self: Any, method: str, key: str, *args: Any, **more: Any) -> Any:
            if not key.endswith(".lease"):
                stop()
            return write(self, method, key, *args, **more)

        S3Requests.write = new_write  # type: ignore[method-assign]
    elif pause.point == BODY:
        requests.PIECE = _PIECE

        def new_pieces(*args: Any) -> Iterator[Any]:
            for piece in pieces(*args):
                yield piece
                stop()  # that piece is with the kernel, or further

        requests._pieces = new_pieces
    elif pause.point in SIGNED:
        wanted = re.compile(SIGNED[pause.point])

        def new_signed(self: Any, method: str, url: str, *args: Any) -> str:
            ready = signed(self, method, url, *args)
            if wanted.match(f"{method} {url}"):
                stop()
            return ready

        Signer.in_address = new_signed  # type: ignore[method-assign]


def _once(number: int) -> Callable[[], None]:
    left, guard = number, threading.Lock()

    def stop() -> None:
        nonlocal left
        with guard:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)

    return stop
