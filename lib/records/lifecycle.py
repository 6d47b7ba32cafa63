"""What a record is called, where it lies, and the states that it moves through."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

RecordDict = dict[str, Any]
"""A record as it is stored: plain JSON, valid against ``schemas/metadata_schema.json``."""

SCHEMA_VERSION = "3.0"
NO_CHECKSUM = "publisher gives none"


class Status(StrEnum):
    """How far a volume is."""

    PENDING = "pending"
    PROCESSING = "processing"
    SAVING_DATA = "saving-data"
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"


STATUSES = tuple(Status)
FINAL = frozenset({"complete", "failed", "cancelled"})
#: From each status to those that may follow.
MOVES: Mapping[str, frozenset[str]] = {
    "pending": frozenset({"processing", "failed", "cancelled"}),
    "processing": frozenset({"saving-data", "failed", "cancelled"}),
    "saving-data": frozenset({"complete", "failed", "cancelled"}),
    "complete": frozenset({"pending"}),
    "failed": frozenset({"pending"}),
    "cancelled": frozenset({"pending"}),
}

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:macroscope:record")


def record_id(source: str, source_id: str, name: str) -> str:
    """Return the same UUID for the same volume, in every run and on every machine."""
    return str(uuid.uuid5(_NAMESPACE, json.dumps([source, source_id, name])))


def record_key(source: str, name: str) -> str:
    """Where a volume's record lies in the data store: ``<source>/metadata_<name>.json``."""
    return f"{source}/metadata_{name}.json"
