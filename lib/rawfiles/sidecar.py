"""What is known about a raw file that arrived, in a note beside it.

The note lies at ``.fetched/<name>.json`` in the folder of the file: size, sha256, what the server
said (entity tag, modification time), and the modification time of the local file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib.plan import SourceFile
from lib.storage.durable import naming_os_errors
from lib.storage.keys import temporary_name
from lib.transport.listing import FileIdentity, Likeness, compare
from lib.transport.partial import Fetched

_NOTES = ".fetched"


def note_path(path: Path) -> Path:
    """Where the note of the file at `path` lies."""
    return path.parent / _NOTES / f"{path.name}.json"


def write_note(
    path: Path, fetched: Fetched, measured: Path, notes: Sequence[str], url: str
) -> None:
    """Write the note of the file at `path`, which may still lie at `measured`.

    Raises
    ------
    DestinationError
    """
    note = note_path(path)
    with naming_os_errors(str(note), "write"):
        record = asdict(fetched) | {"mtime_ns": measured.stat().st_mtime_ns}
        record |= {"path": path.name, "notes": [*notes], "url": url}
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_name(temporary_name(note.name, "tmp"))
        temporary.write_text(json.dumps(record, indent=1))
        os.replace(temporary, note)


def facts_of(file: SourceFile) -> FileIdentity:
    """What is said of a source file."""
    return FileIdentity(file.size, file.etag, file.last_modified, file.publisher_checksum)


def differs(file: SourceFile, fetched: Fetched) -> bool:
    """Whether the archive's file may be another one than the one that was fetched.

    Where only an entity tag speaks against it, the file is fetched again: a kept file must be
    right, and here nobody can be asked.
    """
    kept = FileIdentity(
        fetched.size, fetched.etag, fetched.last_modified, fetched.publisher_checksum
    )
    return compare(facts_of(file), kept) is not Likeness.SAME


def as_fetched(path: Path, note: dict[str, Any]) -> Fetched:
    """What a note says of the file at `path`."""
    fields = ("size", "sha256", "etag", "last_modified", "publisher_checksum")
    return Fetched(path, **{field: note[field] for field in fields})


def note_key(key: str) -> str:
    """The key of the note of a kept file."""
    folder, _, name = key.rpartition("/")
    return f"{folder}/{_NOTES}/{name}.json"


def read_note(path: Path) -> dict[str, Any] | None:
    """The note at `path`; None if there is none, or it is damaged."""
    try:
        return parse_note(path.read_bytes())
    except OSError:
        return None


def parse_note(text: bytes) -> dict[str, Any] | None:
    """A note if it is complete, else None."""
    try:
        note = json.loads(text)
        whole = isinstance(note["size"], int) and isinstance(note["sha256"], str)
        known = {"etag", "last_modified", "publisher_checksum", "mtime_ns", "notes", "url"}
    except (ValueError, KeyError, TypeError):
        return None
    return note if whole and known <= note.keys() else None
