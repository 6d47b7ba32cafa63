"""What a destination holds, said so that two of them can be compared byte for byte."""

from __future__ import annotations

import difflib
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lib.storage.base import Store
from lib.storage.keys import PARTIAL, VOLUME_SUFFIXES
from lib.verify.volume import verify_store

# What tells of the run and not of the volume: when it was made, by whom, at what cost.
_TIMES = ("created_at", "updated_at")
_COSTS = ("run", "seconds", "requests", "store_requests", "bytes")


@dataclass
class Reference:
    """The undisturbed run's destination."""

    digests: dict[str, str]
    seconds: float
    units: tuple[str, ...]
    whole: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, digest in self.digests.items():
            if (volume := volume_of(key)) is not None:
                self.whole.setdefault(volume, {})[key] = digest

    def share_left(self, finished: set[str], complete: set[str]) -> float:
        """About how much of a run is still to be done, from 0 to 1."""
        done = sum(u in finished or u.partition(" ")[0] in complete for u in self.units)
        return 1 - done / len(self.units)


def volume_of(key: str) -> str | None:
    """``ebi/x.ome.zarr/0/c/0/0/0`` -> ``ebi/x.ome.zarr``; None outside of volumes."""
    source, _, rest = key.partition("/")
    name = rest.partition("/")[0]
    return f"{source}/{name}" if name.endswith(VOLUME_SUFFIXES) else None


def digests(store: Store) -> dict[str, str]:
    """Every object of a store with its sha256; of records and notes what they say, without times
    and costs."""
    return {item.key: _digest(store, item.key) for item in store.list()}


def _digest(store: Store, key: str) -> str:
    data = store.get(key)
    name = key.rpartition("/")[2]
    with suppress(ValueError):  # what is no JSON is compared as it is
        if name.startswith("metadata_") and name.endswith(".json"):
            return _plain(_record(json.loads(data)))
        if "/.fetched/" in key:
            note = json.loads(data)
            return _plain(_by_either({k: v for k, v in note.items() if k != "mtime_ns"}))
    return hashlib.sha256(data).hexdigest()


def _record(record: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in record.items() if k not in _TIMES}
    provenance = kept["metadata"]["provenance"]
    trimmed = {k: v for k, v in provenance.items() if k not in _COSTS}
    # The undisturbed run goes through the pipeline alone: Prefect is not among what made it.
    trimmed["software"] = {k: v for k, v in provenance["software"].items() if k != "prefect"}
    if "source_files" in trimmed:
        trimmed["source_files"] = [_by_either(file) for file in trimmed["source_files"]]
    return {**kept, "metadata": {**kept["metadata"], "provenance": trimmed}}


def _by_either(file: dict[str, Any]) -> dict[str, Any]:
    """A file without its entity tag where it was planned by FTP.

    FTP has no tags. HTTPS, which is asked where FTP does not answer, has one for the same file.
    """
    by_ftp = str(file["url"]).startswith("ftp:")
    return {k: v for k, v in file.items() if not (by_ftp and k == "etag")}


def _plain(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, indent=0)


def differences(found: dict[str, str], reference: Reference) -> list[str]:
    """What a finished destination has more, less or other than the undisturbed run's."""
    wanted = reference.digests
    return [
        *(f"{key} is absent" for key in sorted(wanted.keys() - found.keys())),
        *(f"{key} is left over" for key in sorted(found.keys() - wanted.keys())),
        *(
            f"{key} differs: {_changes(wanted[key], found[key])}"
            for key in sorted(wanted.keys() & found.keys())
            if wanted[key] != found[key]
        ),
    ]


def _changes(wanted: str, found: str) -> list[str]:
    lines = difflib.ndiff(wanted.splitlines(), found.splitlines())
    return [line for line in lines if line[:1] in "+-"][:8]


def violations(store: Store, reference: Reference) -> list[str]:
    """What must never be seen, at whatever moment a run was killed."""
    found = [
        f"{verdict.record_key} ({verdict.status}): {problem}"
        for verdict in verify_store(store, digests=True)
        for problem in verdict.problems
    ]
    visible: dict[str, dict[str, str]] = {}
    for item in store.list():
        if _in_the_making(item.key):
            continue
        digest = _digest(store, item.key)
        if (volume := volume_of(item.key)) is not None:
            visible.setdefault(volume, {})[item.key] = digest
        elif not _is_record(item.key) and digest != reference.digests.get(item.key):
            found.append(f"{item.key} has its final name, but not its final bytes")
    for volume, files in visible.items():
        whole = reference.whole.get(volume, {})
        found.extend(
            f"{key} is not what it will be" for key in files if files[key] != whole.get(key)
        )
        # On a bucket a tree grows under its final name; its root document makes it a volume.
        opens = volume in files or f"{volume}/zarr.json" in files
        in_a_bucket = store.local_path(volume) is None
        if files.keys() != whole.keys() and (opens or not in_a_bucket):
            found.append(f"{volume} is visible with {len(files)} of {len(whole)} files")
    return found


def finished_units(store: Store) -> set[str]:
    """Every unit that has an entry in a ledger, as the workers name them."""
    found = set()
    for item in store.list():
        source, _, rest = item.key.partition(f"/{PARTIAL}/")
        name, _, entry = rest.partition("/ledger/")
        if entry:
            level, _, index = entry.removesuffix(".json").partition("/")
            found.add(f"{source}/{name} {level} {index}")
    return found


def complete_volumes(store: Store) -> set[str]:
    """``source/name`` of each volume whose record is complete."""
    return {
        verdict.record_key.replace("/metadata_", "/").removesuffix(".json")
        for verdict in verify_store(store, digests=False)
        if verdict.status == "complete"
    }


def _in_the_making(key: str) -> bool:
    """Names that say of themselves that they are not finished, and notes beside raw files."""
    parts = key.split("/")
    unfinished = key.endswith((".partial", ".partial.json", ".part"))
    return PARTIAL in parts or ".fetched" in parts or unfinished


def _is_record(key: str) -> bool:
    return key.rpartition("/")[2].startswith("metadata_")
