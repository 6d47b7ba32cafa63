"""What a store holds, in numbers: volumes by status, bytes, shards, failures, free space.

From the records alone, which every run writes; no volume is opened.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lib.errors import MacroscopeError
from lib.records.manager import read_json
from lib.storage.base import Store
from lib.storage.keys import contents


@dataclass
class Tally:
    """Numbers of one look at a store.

    Attributes
    ----------
    volumes
        (source, status of the record) to how many.
    failures
        (source, kind of error) to how many records of failed volumes say so.
    stored_bytes, shards, fetched_bytes, requests, seconds
        Source to sums over complete volumes: bytes and finest-level shards in the store; bytes,
        requests and time that it took to make them.
    completed_at
        Source to when its last volume became complete, in seconds since the epoch.
    unreadable
        Records that are not JSON, or cannot be read.
    free_bytes
        Of the destination; None where it does not say (a bucket).
    """

    volumes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    stored_bytes: Counter[str] = field(default_factory=Counter)
    shards: Counter[str] = field(default_factory=Counter)
    fetched_bytes: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    completed_at: dict[str, float] = field(default_factory=dict)
    unreadable: int = 0
    free_bytes: int | None = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one record; what an older one does not say counts as nothing."""
        source, status = str(record.get("source")), str(record.get("status"))
        self.volumes[source, status] += 1
        if status == "failed":
            self.failures[source, str(_at(record, "error", "type") or "unknown")] += 1
        if status != "complete":
            return
        made = _at(record, "metadata", "provenance") or {}
        technical = _at(record, "metadata", "technical") or {}
        self.stored_bytes[source] += _number(technical.get("file_size_bytes"))
        self.shards[source] += _shards(record)
        self.fetched_bytes[source] += _number(made.get("bytes"))
        self.requests[source] += _number(made.get("requests"))
        self.seconds[source] += _number(made.get("seconds"))
        when = _moment(record.get("updated_at"))
        self.completed_at[source] = max(when, self.completed_at.get(source, 0.0))


def tally(store: Store) -> Tally:
    """Count a store; one small read for each of its records.

    Raises
    ------
    MacroscopeError
        The store cannot be listed.
    """
    found = Tally(free_bytes=store.free_bytes())
    for item in contents(store).records:
        try:
            found.add(read_json(store, item.key, item.size))
        except MacroscopeError:
            found.unreadable += 1
    return found


def _at(record: Mapping[str, Any], *keys: str) -> Any:
    found: Any = record
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _number(value: Any) -> int:
    return round(value) if isinstance(value, int | float) else 0


def _shards(record: Mapping[str, Any]) -> int:
    """Shards of the finest level; none of a volume that is one file."""
    shape = _at(record, "metadata", "core", "volume_shape")
    shard = _at(record, "metadata", "technical", "shard")
    if not isinstance(shape, list) or not isinstance(shard, list) or not all(shard):
        return 0
    return math.prod(math.ceil(n / s) for n, s in zip(shape, shard, strict=False))


def _moment(text: Any) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
