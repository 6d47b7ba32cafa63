"""How much may be in flight at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """Bounds of one batch of shards.

    Attributes
    ----------
    workers
        Threads that compute (encode, pool, count).
    connections
        Requests in flight, where the source is read chunk by chunk.
    shards
        Shards in flight; where a source gives blocks, those that are read, and one more is
        encoded meanwhile.
    """

    workers: int = 2
    connections: int = 16
    shards: int = 2
