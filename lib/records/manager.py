"""The only writer of metadata records: legal moves, valid content, one atomic write each."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from lib.errors import AlreadyExistsError, NotFoundError, RecordError
from lib.records.lifecycle import (
    FINAL,
    MOVES,
    SCHEMA_VERSION,
    RecordDict,
    error_record,
    member_records,
    parse_json,
    plain,
    read_json,
    record_id,
    record_key,
)
from lib.safety import redact_text
from lib.storage.base import Store
from lib.storage.keys import contents


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema of records."""
    text = resources.files("schemas").joinpath("metadata_schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@cache
def _validator() -> Any:
    return Draft202012Validator(schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)


def schema_errors(record: object) -> list[str]:
    """Return everything that is wrong with a record, each as ``field: what``, sorted by field."""
    found = sorted(_validator().iter_errors(record), key=lambda e: [str(p) for p in e.path])
    return list(dict.fromkeys(_sentence(error) for error in found))


def member_errors(record: RecordDict) -> list[str]:
    """What is wrong with the label images of a record that is valid: each is a record, too."""
    found = {one["name"]: schema_errors(one) for one in member_records(record)}
    return [f"members, {name}: {error}" for name, errors in found.items() for error in errors]


def check_schema(record: RecordDict, location: str) -> None:
    """Raise `RecordError` with all errors of an invalid record."""
    errors = schema_errors(record) or member_errors(record)
    if errors:
        raise RecordError(
            f"the record is invalid: {'; '.join(errors)}",
            location=location,
            advice="Report this: the record was not written",
        )


def _sentence(error: ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path) or "(record)"
    why = error.message
    if error.context:
        reasons = dict.fromkeys(cause.message for cause in error.context)
        why = " and ".join(reason[:200] for reason in reasons)
    return redact_text(f"{where}: {why[:500]}")


_SECTIONS = ("core", "technical", "provenance", "quality")
_SECONDS_BETWEEN_PROGRESS = 1.0
_PAUSE_BY_COST = 20  # how many times as long as a record took to write


def utc_now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """Return UTC in ISO 8601 with milliseconds: ``2026-11-21T10:52:54.123Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class MetadataManager:
    """Writes and finds the records of one data store.

    A record lies at ``<source>/metadata_<name>.json``. Callers pass around the dictionaries that
    the methods return, and never change or store them by themselves. The caller holds the volume's
    lock. Safe to use from several threads.

    Parameters
    ----------
    store
        The data store.
    secrets
        Texts that must not appear in any record, wherever they come from.
    now, clock
        The time for timestamps, and the seconds that bound the rate of progress updates.
    """

    def __init__(
        self,
        store: Store,
        *,
        secrets: Iterable[str] = (),
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._secrets = tuple(secrets)
        self._now = now
        self._clock = clock
        self._guard = threading.RLock()
        self._written: dict[str, _Written] = {}

    def key(self, record: Mapping[str, Any]) -> str:
        """Where a record lies in the data store."""
        return record_key(record["source"], record["name"])

    def begin(self, source: str, source_id: str, name: str, **changes: Any) -> RecordDict:
        """Write a ``pending`` record for a new run and return it.

        Identity and time of creation of an earlier record stay, whatever its status was: the
        holder of the volume's lock knows that no other run is at work.

        Parameters
        ----------
        source, source_id, name
            Registry name of the archive, accession, and file stem of the volume.
        **changes
            See `move`.

        Raises
        ------
        RecordError
            The content is invalid.
        DestinationError
            It cannot be written.
        """
        key = record_key(source, name)
        now = timestamp(self._now())
        record: RecordDict = {
            "id": record_id(source, source_id, name),
            "schema_version": SCHEMA_VERSION,
            "source": source,
            "source_id": source_id,
            "name": name,
            "status": "pending",
            "created_at": now,
            "updated_at": now,
            "progress": {"percentage": 0, "current_step": None},
            "error": None,
            "metadata": {section: {} for section in _SECTIONS},
            "files": {"record": key},
            "additional_metadata": {},
        }
        with self._guard:
            earlier, version = self._earlier(key)
            if earlier is not None and earlier.get("id") == record["id"]:
                record["created_at"] = earlier["created_at"]
            return self._write(key, self._changed(record, changes), version)

    def move(self, record: Mapping[str, Any], status: str, **changes: Any) -> RecordDict:
        """Write a record with another status and return it.

        Parameters
        ----------
        record
            As the last call returned it.
        status
            The new status; ``pending -> processing -> saving-data -> complete``, from each but the
            last to ``failed`` or ``cancelled``, and from these three back to ``pending``.
        **changes
            What else changes: ``core``, ``technical``, ``provenance``, ``quality``, ``files``,
            ``additional_metadata`` and ``progress`` are dictionaries merged into what is there;
            ``error`` is an exception, ``members`` the list of label images of a group.

        Raises
        ------
        RecordError
            The move is illegal, the stored record is no longer the one passed in, or the content
            is invalid. Nothing is written.
        DestinationError
            It cannot be written.
        """
        key = self.key(record)
        before = record["status"]
        if status not in MOVES.get(before, ()):
            raise RecordError(
                f"a record cannot move from {before} to {status}",
                location=key,
                advice="Report this: the record was not changed",
            )
        with self._guard:
            version = self._require_current(key, record)
            moved = _copy(record)
            moved["status"] = status
            moved["error"] = None
            if status == "pending":
                moved["progress"] = {"percentage": 0, "current_step": None}
            moved = self._changed(moved, changes)
            if status == "complete":
                moved["progress"]["percentage"] = 100
            return self._write(key, moved, version)

    def amend(self, record: Mapping[str, Any], **changes: Any) -> RecordDict:
        """Write a finished record with other content and return it; its status stays.

        Parameters
        ----------
        **changes
            See `move`.

        Raises
        ------
        RecordError
            It is not finished, not the stored one any more, or the content is invalid.
        DestinationError
            It cannot be written.
        """
        key = self.key(record)
        if record["status"] not in FINAL:
            raise RecordError(f"a record that is {record['status']} moves on", location=key)
        with self._guard:
            version = self._require_current(key, record)
            return self._write(key, self._changed(_copy(record), changes), version)

    def progress(
        self, record: Mapping[str, Any], percentage: float, step: str | None
    ) -> RecordDict:
        """Return the record with its progress; written at most once a second.

        One that takes long to write, for a volume of thousands of files, is written more rarely. A
        report that comes late, after the record has moved on or ended, is dropped.
        """
        key = self.key(record)
        changed = _copy(record)
        changed["progress"] = {
            "percentage": plain(min(100.0, max(0.0, float(percentage)))),
            "current_step": plain(step, self._secrets),
        }
        with self._guard:
            last = self._written.get(key)
            early = last is not None and self._clock() < last.next_progress
            if early or record["status"] not in ("processing", "saving-data"):
                return changed
            stored, version = self._earlier(key)
            if stored is None or not _same_step(stored, record):
                return changed
            return self._write(key, changed, version)

    def load(self, key: str) -> RecordDict:
        """Read one record.

        Raises
        ------
        NotFoundError
            There is none.
        RecordError
            It is not JSON or not valid; all its errors are in the message.
        """
        record = read_json(self._store, key)
        check_schema(record, key)
        return record

    def find(
        self, *, source: str | None = None, status: str | None = None
    ) -> Iterator[tuple[str, RecordDict]]:
        """Yield key and content of all valid records, sorted by key.

        What is not valid is left to the validation report of `lib.records.catalogue`.
        """
        for found in contents(self._store, source or "").records:
            try:
                record = read_json(self._store, found.key, found.size)
            except (RecordError, NotFoundError):
                continue
            if schema_errors(record) or (source is not None and record["source"] != source):
                continue
            if status is None or record.get("status") == status:
                yield found.key, record

    # --- inside -----------------------------------------------------------------------------

    def _changed(self, record: RecordDict, changes: Mapping[str, Any]) -> RecordDict:
        for name, change in changes.items():
            if name == "error":
                record["error"] = (
                    error_record(change, self._secrets)
                    if isinstance(change, BaseException)
                    else plain(change, self._secrets)
                )
            elif name in _SECTIONS:
                record["metadata"][name].update(plain(change, self._secrets))
            elif name in ("files", "progress", "additional_metadata"):
                record[name].update(plain(change, self._secrets))
            elif name == "members":
                record["members"] = plain(change, self._secrets)
            else:
                raise RecordError(f"a record has no part {name!r}", location=self.key(record))
        return record

    def _write(self, key: str, record: RecordDict, version: str) -> RecordDict:
        """Write a record in place of the version that was just read, and of no other."""
        began = self._clock()
        record["updated_at"] = timestamp(self._now())
        check_schema(self._unchecked(key, record), key)
        data = _as_json(record)
        try:
            self._store.put(key, data, replaces=version)
        except AlreadyExistsError:
            raise _changed_by_another(key, "is another one now") from None
        ended = self._clock()
        pause = max(_SECONDS_BETWEEN_PROGRESS, _PAUSE_BY_COST * (ended - began))
        self._written[key] = _Written(hashlib.sha256(data).digest(), record, ended + pause)
        return record

    def _unchecked(self, key: str, record: RecordDict) -> RecordDict:
        """The record without the list of files, where that was valid when it was last written.

        There is a file for each section of a stack: to check 20,000 takes seconds.
        """
        last = self._written.get(key)
        files = _files_of(record)
        if last is None or files is None or files is not _files_of(last.record):
            return record
        provenance = {**record["metadata"]["provenance"], "source_files": []}
        return {**record, "metadata": {**record["metadata"], "provenance": provenance}}

    def _earlier(self, key: str) -> tuple[RecordDict | None, str]:
        """The stored record, where it is valid, and its version, where anything is stored."""
        try:
            found = self._store.get_versioned(key)
        except NotFoundError:
            return None, ""
        last = self._written.get(key)
        if last is not None and last.digest == hashlib.sha256(found.data).digest():
            return last.record, found.version
        try:
            record = parse_json(found.data, key)
        except RecordError:
            return None, found.version
        return None if schema_errors(record) else record, found.version

    def _require_current(self, key: str, record: Mapping[str, Any]) -> str:
        """The version of the stored record, which must be the one that is to be changed."""
        stored, version = self._earlier(key)
        if stored is None or not _same_step(stored, record):
            state = "is gone or unreadable" if stored is None else f"is {stored.get('status')} now"
            raise _changed_by_another(key, state)
        return version


@dataclass(frozen=True, slots=True)
class _Written:
    """A record as it was last written, the digest of its text, and when progress may be again."""

    digest: bytes
    record: RecordDict
    next_progress: float


def _copy(record: Mapping[str, Any]) -> RecordDict:
    """The record with all dictionaries of its own that `MetadataManager` changes."""
    copied = {key: {**part} if isinstance(part, dict) else part for key, part in record.items()}
    sections = copied["metadata"].items()
    copied["metadata"] = {key: {**section} for key, section in sections}
    return copied


def _files_of(record: Mapping[str, Any]) -> Any:
    return record["metadata"].get("provenance", {}).get("source_files")


def _as_json(record: RecordDict) -> bytes:
    """The text of a record, without a list of its million pieces in memory."""
    text = io.BytesIO()
    for piece in json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False).iterencode(record):
        text.write(piece.encode())
    text.write(b"\n")
    return text.getvalue()


def _changed_by_another(key: str, state: str) -> RecordError:
    return RecordError(
        f"the stored record {state}; another run has changed it",
        location=key,
        advice="Make sure that one run at a time works on a volume, then run again",
    )


def _same_step(stored: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    return (stored.get("id"), stored.get("status")) == (record["id"], record["status"])
