"""What a record is called, where it lies, the states that it moves through, its plain JSON form."""

from __future__ import annotations

import json
import math
import re
import sys
import traceback
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from enum import StrEnum
from os import PathLike, fspath
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

from lib.errors import MacroscopeError, NotFoundError, RecordError
from lib.safety import redact_text
from lib.storage.base import Store
from lib.storage.keys import image_of, record_of

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


_LONG_SECRET = 8
_SECRET = re.compile(
    r"(?i)\b([\w-]*(?:secret|password|passwd|token|signature|access[_-]?key|authorization)[\w-]*)"
    r"(\s*[=:]\s*)(?:bearer\s+|basic\s+)?(?!\s)[^\s,;'\"]+"
)


class Key(str):
    """The key of an object in the store: an identity, which `plain` leaves as it is."""

    __slots__ = ()


def plain(value: Any, secrets: Iterable[str] = ()) -> Any:
    """Return `value` as plain JSON: no numpy, no NaN, no tuples, and no secrets.

    Numbers that JSON does not have become null. Query strings and passwords are cut from URLs.

    Raises
    ------
    RecordError
        A value has no JSON form.
    """
    secrets = tuple(secret for secret in secrets if secret)
    return _plain(value, secrets)


def _plain(value: Any, secrets: tuple[str, ...]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Key):
        return str(value)
    if isinstance(value, str):
        return clean_text(value if type(value) is str else str(value), secrets)
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _plain(value.tolist(), secrets)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, SecretStr | SecretBytes):
        return str(value)
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(), secrets)
    if isinstance(value, Mapping):
        # Keys are interned: a record of 20,000 files has the same ten for each.
        return {
            sys.intern(clean_text(str(key), filter(_is_long, secrets))): _plain(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, set | frozenset):
        return [_plain(item, secrets) for item in sorted(value, key=str)]
    if isinstance(value, list | tuple | Iterator):  # of 20,000 files, each is made and forgotten
        return [_plain(item, secrets) for item in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, PathLike):
        return clean_text(str(fspath(value)), secrets)
    raise RecordError(f"a record cannot hold a {type(value).__name__}")


def clean_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Return text without the given secrets and without credentials in URLs; lines are kept.

    One of few letters, such as the keys of a test server, is cut where it stands by itself: in
    other words, in names of fields above all, it would leave a record that nobody can read.
    """
    for secret in secrets:
        if secret not in text:
            continue
        if _is_long(secret):
            text = text.replace(secret, "***")
        else:
            alone = rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])"
            text = re.sub(alone, "***", text)
    if text.isprintable() and "://" not in text:
        return text  # most texts of a record, and not a copy of each
    # A lone surrogate (from a file name, say) has no UTF-8 form.
    text = text.encode("utf-8", errors="replace").decode()
    return "\n".join(redact_text(line) for line in text.split("\n"))


def _is_long(secret: str) -> bool:
    return len(secret) >= _LONG_SECRET


def error_record(error: BaseException, secrets: Iterable[str] = ()) -> dict[str, Any]:
    """Return the form of a failure that a record's ``error`` holds, without secrets."""
    if isinstance(error, MacroscopeError):
        said = error.as_record()
    else:
        said = {
            "type": type(error).__name__,
            "message": str(error) or type(error).__name__,
            "retryable": False,
            "advice": "Report this with the traceback",
        }
    lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-12)
    said["traceback"] = "".join(lines)[-8000:]
    cleaned: dict[str, Any] = plain(said, secrets)
    return {
        field: _SECRET.sub(r"\1\2***", value) if isinstance(value, str) else value
        for field, value in cleaned.items()
    }


def section(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """An object inside a document that may be older, or anybody's; empty where there is none."""
    found: Any = document
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def member_records(record: Mapping[str, Any]) -> Iterator[RecordDict]:
    """The label images that share an image's record, each as if it had a record of its own."""
    shared = ("schema_version", "source", "status", "created_at", "updated_at", "progress", "error")
    for member in record.get("members") or ():
        own = {key: record[key] for key in shared if key in record}
        identity = record_id(record["source"], member["source_id"], member["name"])
        yield {**own, "id": identity, **member}


def stored_bytes(record: Mapping[str, Any]) -> int:
    """Of the volume that a complete record describes, and of the label images that share it."""
    every = (record, *(record.get("members") or ()))
    return sum(int(one["metadata"]["technical"]["file_size_bytes"]) for one in every)


_LARGEST = 64 * 2**20  # bytes; a record is some kilobytes


def read_json(store: Store, key: str, size: int = 0) -> RecordDict:
    """Read one JSON object.

    Parameters
    ----------
    size
        Bytes as a listing gave them; asking for them alone would double the requests to a bucket.

    Raises
    ------
    NotFoundError
        There is none.
    RecordError
        It is too large, not JSON, or not an object.
    """
    if size > _LARGEST:
        raise _broken(key, f"has {size} bytes, more than any record")
    return parse_json(store.get(key), key)


def record_for(store: Store, volume_key: str) -> RecordDict | None:
    """The record of a volume: beside it, or for labels in that of their image; None for neither.

    Raises
    ------
    RecordError
        It cannot be read.
    """
    try:
        return read_json(store, record_of(volume_key))
    except NotFoundError:
        image = image_of(volume_key)
        shared = None if image is None else record_for(store, image)
        every = member_records(shared or {})
        return next((one for one in every if one["files"]["volume"] == volume_key), None)


def parse_json(data: bytes, key: str) -> RecordDict:
    """Read one JSON object from the bytes of a record; raises `RecordError`."""
    try:
        record = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _broken(key, f"is not JSON: {str(error) or type(error).__name__}") from error
    if not isinstance(record, dict):
        raise _broken(key, "is not a JSON object")
    return record


def _broken(key: str, why: str) -> RecordError:
    return RecordError(
        f"the record {why}", location=key, advice="Run the volume again to write it anew"
    )


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
