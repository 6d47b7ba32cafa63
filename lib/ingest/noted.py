"""Files of a plan as an earlier run noted them, where only weak facts differ.

Nodes of a mirror give one file other entity tags, and times that are off by a second. A volume's
identity holds both, so that a run that met another node would make everything anew. Where size and
one weak fact fit, the plan goes on with what was noted; should the file be another one after all,
the second look at its bytes finds it (`lib.transport.second_look`).
"""

from __future__ import annotations

from typing import Any

from lib.names import same_place
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.sidecar import facts_of
from lib.records.model import Record
from lib.transport.identity import FileIdentity, Likeness, compare


def as_noted(plan: VolumePlan, record: Record) -> VolumePlan:
    """The plan with the entity tags and times of a record, if all its files may be the same."""
    found = record.get("metadata", {}).get("provenance", {}).get("source_files")
    noted = [file for file in found or () if isinstance(file, dict)]
    if len(noted) != len(plan.files):
        return plan
    files = [_as_noted(*pair) for pair in zip(plan.files, noted, strict=True)]
    if any(file is None for file in files):
        return plan
    return plan.model_copy(update={"files": tuple(files)})


def _as_noted(file: SourceFile, noted: dict[str, Any]) -> SourceFile | None:
    """The file with the noted tag and time; None where it is another one, or may be."""
    if not file.url.startswith(("http://", "https://")):
        return file  # tags of stores are digests or versions, and FTP's times are exact
    url, size = noted.get("url"), noted.get("size")
    etag, date = (_text(noted, key) for key in ("etag", "last_modified"))
    if not isinstance(url, str) or not same_place(url, file.url) or not isinstance(size, int):
        return None
    then = FileIdentity(size, etag, date, _text(noted, "publisher_checksum"))
    if compare(then, facts_of(file)) not in (Likeness.SAME, Likeness.ALIKE):
        return None
    update = {"etag": etag or file.etag, "last_modified": date or file.last_modified}
    return file.model_copy(update=update)


def _text(noted: dict[str, Any], key: str) -> str | None:
    value = noted.get(key)
    return value if isinstance(value, str) else None
