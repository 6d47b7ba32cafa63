"""The catalogue of all records, and the report of everything that is wrong with any of them.

Beside it lies ``groups.json``, which says what records belong to which group of datasets. A group
is how people sort volumes, no fact about one, so that a volume that is complete can get another.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from lib.errors import AlreadyExistsError, MacroscopeError, NotFoundError
from lib.records.lifecycle import RecordDict, plain, read_json, section
from lib.records.manager import schema_errors, timestamp
from lib.safety import folded
from lib.storage.base import Store, StoreSettings
from lib.storage.keys import Contents, contents, record_of
from lib.storage.open import open_store

GROUPS_KEY = "groups.json"


class Grouped(Protocol):
    """What a dataset came to."""

    @property
    def group(self) -> str | None: ...
    @property
    def metadata_paths(self) -> list[str]: ...


def note_groups(
    metadata_uri: str, data_uri: str, access: StoreSettings, results: Iterable[Grouped]
) -> None:
    """Write down the groups of a run's records, beside those of earlier runs.

    Raises
    ------
    DestinationError
    """
    root = open_store(data_uri, access).uri.rstrip("/") + "/"
    found = {
        path.removeprefix(root): one.group
        for one in results
        if one.group is not None
        for path in one.metadata_paths
        if path.startswith(root)
    }
    if not found:
        return
    store = open_store(metadata_uri, access)
    document = {"groups": dict(sorted({**read_groups(store), **found}.items()))}
    store.put(GROUPS_KEY, json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")


def read_groups(store: Store) -> dict[str, str]:
    """The group of each record that has one, by the record's key; none from a damaged document."""
    try:
        document: object = json.loads(store.get(GROUPS_KEY))
    except (NotFoundError, ValueError):
        return {}
    groups = document.get("groups") if isinstance(document, Mapping) else None
    pairs = groups.items() if isinstance(groups, Mapping) else ()
    return {str(key): group for key, group in pairs if isinstance(group, str)}


LOGGER = logging.getLogger(__name__)

CATALOG_VERSION = "1.0"
_STAMP = r"_\d{8}T\d{6}Z(_\d+)?"
_DATED = tuple(
    re.compile(rf"{kind}{_STAMP}\.{suffix}")
    for kind, suffix in (
        ("metadata_catalog", "json"),
        ("validation_report", "json"),
        ("validation_report", "log"),
        ("report", "html"),
    )
)


@dataclass
class CheckedRecord:
    """One record file, with everything that is wrong or doubtful about it."""

    path: str
    record: RecordDict | None
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Whether it belongs in the catalogue."""
        return self.record is not None and not self.errors


@dataclass(frozen=True)
class CatalogResult:
    """What a consolidation found and where it wrote it.

    Attributes
    ----------
    catalog_key, report_key, log_key
        Keys in the metadata store.
    catalog, report
        The two documents, as written.
    valid, invalid
        Numbers of record files.
    """

    catalog_key: str
    report_key: str
    log_key: str
    catalog: Mapping[str, Any]
    report: Mapping[str, Any]
    valid: int
    invalid: int


def consolidate(
    data_store: Store, metadata_store: Store, now: datetime | None = None
) -> CatalogResult:
    """Read and check every record of the data store; write catalogue, report and log.

    A record that cannot be read, or is wrong, is reported and left out of the catalogue; it never
    stops the others. Files are named after the time, ``metadata_catalog_20261121T105254Z.json``,
    and never replace earlier ones. A volume without a record is reported beside the records.

    Raises
    ------
    DestinationError, AccessDeniedError
        A store as a whole cannot be listed or written.
    """
    moment = now or datetime.now(UTC)
    found = contents(data_store)
    checked = [_check(data_store, item.key, item.size) for item in found.records]
    checked += _without_record(found, checked)
    duplicates = _mark_duplicates(checked)
    groups = read_groups(metadata_store)
    catalog = _catalog(data_store.uri, moment, checked, duplicates, groups)
    report = _report(data_store.uri, moment, checked, duplicates)
    documents = {
        "metadata_catalog_{}.json": _document(catalog),
        "validation_report_{}.json": _document(report),
        "validation_report_{}.log": _log(report).encode(),
    }
    keys = _write_new(metadata_store, moment, documents)
    valid = sum(item.valid for item in checked)
    return CatalogResult(*keys, catalog, report, valid, len(checked) - valid)


def _check(store: Store, key: str, size: int) -> CheckedRecord:
    try:
        record = read_json(store, key, size)
    except MacroscopeError as error:
        return CheckedRecord(key, None, [plain(str(error))])
    checked = CheckedRecord(key, record, schema_errors(record))
    if record.get("status") == "complete" and not checked.errors:
        checked.errors += _volume_errors(store, record)
    recorded = section(record, "files").get("record")
    if isinstance(recorded, str) and recorded != key:
        checked.warnings.append(f"files.record: names {recorded}, but the record lies at {key}")
    return checked


def _without_record(found: Contents, checked: list[CheckedRecord]) -> list[CheckedRecord]:
    """Volumes for which no record vouches, told where a record would be."""
    vouched = {item.key for item in found.records}
    named = (section(item.record or {}, "files").get("volume") for item in checked)
    vouched |= {record_of(volume) for volume in named if isinstance(volume, str)}
    return [
        CheckedRecord(key, None, [f"the volume has no record ({record_of(key)})"])
        for key in found.volumes
        if record_of(key) not in vouched
    ]


def _volume_errors(store: Store, record: RecordDict) -> list[str]:
    """Return what speaks against a complete record: its volume, or the volume's root, is absent."""
    damaged = section(record, "metadata", "quality").get("damaged")
    if damaged:
        return [
            f"quality.damaged: {len(damaged)} files of the volume are damaged, and not repaired"
        ]
    volume = section(record, "files").get("volume")
    if not isinstance(volume, str):
        return []  # older records may not say where their volume lies
    try:
        names = (f"{volume}/zarr.json",) if volume.endswith(".zarr") else (volume,)
        if any(store.size(name) is not None for name in names):
            return []
    except MacroscopeError as error:
        return [plain(f"files.volume: {error}")]
    return [f"files.volume: the status is complete, but there is no {volume} in the store"]


_MOST_OTHERS = 5
"""Of the other records of one volume, in the warning of each: `duplicates` lists all, once."""


def _mark_duplicates(checked: list[CheckedRecord]) -> list[dict[str, Any]]:
    """Tell of volumes that several records describe, and of records that are one file elsewhere."""
    same: dict[tuple[str, str, str], list[CheckedRecord]] = defaultdict(list)
    alike: dict[str, list[CheckedRecord]] = defaultdict(list)
    for item in checked:
        alike[folded(item.path)].append(item)
        if item.valid and item.record is not None:
            which = (item.record["source"], item.record["source_id"], _which_volume(item.record))
            same[which].append(item)
    for items in alike.values():
        for item in items[1:]:
            item.warnings.append(f"where case is ignored, this is {items[0].path}")
    duplicates = []
    for (source, source_id, _), items in sorted(same.items()):
        if len(items) < 2:
            continue
        paths = [item.path for item in items]
        duplicates.append({"source": source, "source_id": source_id, "paths": paths})
        for item in items:
            others = [path for path in paths[: _MOST_OTHERS + 1] if path != item.path]
            said = ", ".join(others[:_MOST_OTHERS])
            if (more := len(paths) - 1 - _MOST_OTHERS) > 0:
                said += f" and {more} more"
            item.warnings.append(f"{source} {source_id} is also described by {said}")
    return duplicates


def _which_volume(record: RecordDict) -> str:
    """What tells the volumes of one accession apart: files or inner path, part and coarseness."""
    more, core = section(record, "additional_metadata"), section(record, "metadata", "core")
    provenance = section(record, "metadata", "provenance")
    given = provenance.get("source_files")
    files = [file.get("url") if isinstance(file, dict) else file for file in given or ()]
    parts = [provenance.get(key) for key in ("internal_zarr_path", "scale_level", "box")]
    source = more.get("source_digest") or sorted(map(str, files))
    return json.dumps([source, *parts, core.get("volume_shape")])


def _catalog(
    uri: str,
    moment: datetime,
    checked: list[CheckedRecord],
    duplicates: list[dict[str, Any]],
    groups: Mapping[str, str],
) -> dict[str, Any]:
    good = [(item.path, item.record) for item in checked if item.valid and item.record is not None]
    return {
        "catalog_version": CATALOG_VERSION,
        "created_at": timestamp(moment),
        "data_store": plain(uri),
        "total": len(good),
        "by_source": dict(sorted(Counter(record["source"] for _, record in good).items())),
        "by_group": dict(sorted(Counter(groups[p] for p, _ in good if p in groups).items())),
        "by_status": dict(sorted(Counter(_status(record) for _, record in good).items())),
        "completeness_by_source": _completeness([record for _, record in good]),
        "duplicates": duplicates,
        "records": [
            {
                "path": path,
                "record": plain(_brief(record)),
                **({"group": plain(groups[path])} if path in groups else {}),
            }
            for path, record in good
        ],
    }


def _brief(record: RecordDict) -> RecordDict:
    """The record with name, place and size of each of its label images: a crop has forty."""
    members = [
        {
            "name": one["name"],
            "source_id": one["source_id"],
            "metadata": {
                "technical": {
                    "file_size_bytes": section(one, "metadata", "technical").get("file_size_bytes")
                },
            },
            "files": one["files"],
            "additional_metadata": {},
        }
        for one in record.get("members") or ()
    ]
    return {**record, "members": members} if members else record


def _completeness(records: list[RecordDict]) -> dict[str, dict[str, Any]]:
    """Per source: volumes, complete ones, and the mean completeness score of these."""
    result: dict[str, dict[str, Any]] = {}
    for source in sorted({record["source"] for record in records}):
        own = [record for record in records if record["source"] == source]
        complete = [record for record in own if _status(record) == "complete"]
        scores = [score for score in map(_score, complete) if score is not None]
        result[source] = {
            "volumes": len(own),
            "complete": len(complete),
            "fraction_complete": len(complete) / len(own),
            "mean_completeness_score": sum(scores) / len(scores) if scores else None,
        }
    return result


def _report(
    uri: str, moment: datetime, checked: list[CheckedRecord], duplicates: list[dict[str, Any]]
) -> dict[str, Any]:
    valid = sum(item.valid for item in checked)
    return {
        "created_at": timestamp(moment),
        "data_store": plain(uri),
        "files": len(checked),
        "valid": valid,
        "invalid": len(checked) - valid,
        "duplicates": duplicates,
        "results": [
            {
                "path": item.path,
                "valid": item.valid,
                "errors": plain(item.errors),
                "warnings": plain(item.warnings),
            }
            for item in checked
        ],
    }


def _log(report: Mapping[str, Any]) -> str:
    lines = [
        f"{report['created_at']} {report['data_store']}: {report['files']} records, "
        f"{report['valid']} valid, {report['invalid']} invalid"
    ]
    for result in report["results"]:
        lines.append(f"{'OK     ' if result['valid'] else 'INVALID'} {result['path']}")
        lines += [f"  error: {_one_line(text)}" for text in result["errors"]]
        lines += [f"  warning: {_one_line(text)}" for text in result["warnings"]]
    return "\n".join(lines) + "\n"


def _write_new(
    store: Store, moment: datetime, documents: Mapping[str, bytes]
) -> tuple[str, str, str]:
    """Write the three documents under one free timestamp; two runs may share a second."""
    stamp = moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1, 1000):
        mark = stamp if number == 1 else f"{stamp}_{number}"
        catalog, report, log = (name.format(mark) for name in documents)
        try:
            store.put(catalog, documents["metadata_catalog_{}.json"], create=True)
        except AlreadyExistsError:
            continue
        store.put(report, documents["validation_report_{}.json"])
        store.put(log, documents["validation_report_{}.log"])
        return catalog, report, log
    raise AlreadyExistsError("a thousand catalogues of one second exist", location=store.uri)


def _document(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _status(record: RecordDict) -> str:
    return str(record.get("status", "unknown"))


def _score(record: RecordDict) -> float | None:
    """The completeness score; older records may have none."""
    score = section(record, "metadata", "quality").get("completeness_score")
    return float(score) if score is not None else None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def forget_old(metadata_store: Store, keep: int) -> int:
    """Delete catalogues, validation reports and reports but for the newest of each kind.

    What killed runs left of such is deleted as well.

    Parameters
    ----------
    keep
        How many stay of each kind.

    Returns
    -------
    int
        How many files were deleted. What cannot be deleted stays, and is told in the log: a store
        that keeps everything has its catalogue all the same.
    """
    metadata_store.sweep_abandoned()
    names = [item.key for item in metadata_store.list_folder().objects]
    deleted = 0
    for pattern in _DATED:
        old = sorted(name for name in names if pattern.fullmatch(name))[:-keep]
        for name in old:
            try:
                metadata_store.delete(name)
            except MacroscopeError as error:
                LOGGER.warning("older reports stay: %s", error)
                return deleted
            deleted += 1
    return deleted
