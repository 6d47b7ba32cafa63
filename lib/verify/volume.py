"""Re-proving a finished volume from its record alone; or a whole store, record by record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lib.concurrency.bounded_map import run_ordered
from lib.errors import MacroscopeError, NotFoundError, NothingThereError
from lib.present.described import read_document
from lib.records.lifecycle import (
    RecordDict,
    member_records,
    read_json,
    record_id,
    record_key,
)
from lib.records.manager import member_errors, schema_errors
from lib.storage.base import Store
from lib.storage.digests import digest_of
from lib.storage.keys import (
    VOLUME_SUFFIXES,
    contents,
    labels_of,
    own_files,
    record_of,
    require_contents,
)
from lib.verify.beside import (
    prove_crate,
    prove_listing,
    prove_preview,
    prove_raw_files,
    read_sums,
    sums_key,
)
from lib.verify.documents import prove_npy_header, prove_ome_zarr
from lib.verify.findings import Facts, Findings
from lib.verify.voxels import prove_voxels

_READS_AT_ONCE = 4


def examine(
    store: Store, record: dict[str, Any], *, deep: bool, key: str | None = None
) -> Findings:
    """Hold everything that a complete record states against what is in the store.

    Parameters
    ----------
    record
        Valid by its schema.
    deep
        Read every byte again: digests, statistics, holes. Without it, listings and documents only.
    key
        Where the record lies, where that is known.
    """
    found = Findings()
    found.proven |= {"schema_version", "status", "progress", "error"}  # the schema holds these
    _prove_identity(record, key, found)
    sums: Mapping[str, str] = {}
    try:
        sums = read_sums(store, record)
        found.proven.add("technical.sha256" if _is_zarr(record) else "files.sums")
    except MacroscopeError as error:
        found.refuted.add("technical.sha256")
        found.damage(sums_key(record), str(error))
    noted = record["metadata"]["quality"].get("damaged") or []
    found.hold(
        "quality.damaged",
        not noted,
        f"{len(noted)} files were found damaged before, and not made anew since, such as "
        f"{next(iter(noted), '')}: run again, or `macroscope verify --repair`",
    )
    checks: list[Callable[[], None]] = []
    if sums:
        checks.append(partial(_prove_listing, store, record, sums, found))
        if deep:
            checks.append(partial(_prove_digests, store, sums, record, found))
    checks += [
        partial(_prove_documents, store, record, sums, found),
        partial(prove_raw_files, store, record, found, deep=deep),
        partial(prove_preview, store, record, found, deep=deep),
        partial(prove_crate, store, record, found),
        partial(_prove_quality, record, found),
    ]
    for check in checks:
        _run(check, found)
    if deep and _finest_is_whole(record, found):
        _run(partial(prove_voxels, store, record, found), found)
    if record.get("members"):
        _run(partial(_prove_members, store, record, found, deep=deep), found)
    if found.damaged:
        found.refuted.add("quality.damaged")
    return found


def _prove_members(store: Store, record: dict[str, Any], found: Findings, *, deep: bool) -> None:
    """The label images that share the record: each as if it had one, and all of them listed."""
    volume, names = record["files"]["volume"], []
    for error in member_errors(record):
        found.hold("members[].metadata", False, error)
    for member in member_records(record):
        name, key = member["name"], member["files"]["volume"]
        names.append(name)
        lies = key == f"{labels_of(volume)}/{name}{VOLUME_SUFFIXES[0]}"
        found.hold("members[].name", lies, f"{key} is no place for {name} of {volume}")
        own = examine(store, member, deep=deep)
        for damaged, what in own.damaged.items():
            found.damage(damaged, what)
        found.hold("members[].files", not own.damaged, f"{name} is damaged")
        said = set(own.problems) - set(own.damaged.values())
        found.hold("members[].metadata", not said, f"{name}: {'; '.join(sorted(said))}")
    group = read_document(store, f"{labels_of(volume)}/zarr.json")
    listed = group["attributes"]["ome"]["labels"]
    found.hold(
        "technical.label_images",
        sorted(listed) == sorted(f"{name}{VOLUME_SUFFIXES[0]}" for name in names)
        and record["metadata"]["technical"].get("label_images") == names,
        f"{volume} lists other label images than the record: {listed}",
    )


def _run(check: Callable[[], None], found: Findings) -> None:
    try:
        check()
    except MacroscopeError as error:
        found.wrong(str(error))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        # a document or record of no form that we know
        found.wrong(f"cannot be held against the record: {type(error).__name__}: {error}")


def _is_zarr(record: Mapping[str, Any]) -> bool:
    return not str(record["files"]["volume"]).endswith(".npy")


def _prove_identity(record: dict[str, Any], key: str | None, found: Findings) -> None:
    source, name = record["source"], record["name"]
    computed = record_id(source, record["source_id"], name)
    says = f"the id is not that of {source}, {record['source_id']}, {name}"
    for fact in ("id", "source", "source_id", "name"):
        found.hold(fact, record["id"] == computed, says)
    lies, said = key or record_key(source, name), record["files"].get("record")
    if said is not None:
        found.hold("files.record", said == lies, f"the record lies at {lies}, and says {said}")


def _prove_listing(
    store: Store, record: dict[str, Any], sums: Mapping[str, str], found: Findings
) -> None:
    volume = record["files"]["volume"]
    form = record["metadata"]["technical"].get("format")
    if form is not None:
        there = "zarr" if _is_zarr(record) else "npy"
        found.hold("technical.format", form == there, f"{volume} is no {form}")
    try:
        prove_listing(store, record, dict(sums))
    except MacroscopeError:
        found.refuted |= {"files.volume", "technical.file_size_bytes"}
        present = {item.key for item in store.list(volume)} if _is_zarr(record) else set()
        for key in sums:
            if key not in present and store.size(key) is None:
                found.damage(key, f"{key} is absent")
        raise
    found.proven |= {"files.volume", "technical.file_size_bytes"}


def _prove_digests(
    store: Store, sums: Mapping[str, str], record: dict[str, Any], found: Findings
) -> None:
    """sha256 of every file of the volume."""
    read = run_ordered((partial(_digest, store, key) for key in sums), _READS_AT_ONCE)
    for (key, sha256), here in zip(sums.items(), read, strict=True):
        if here is None:
            found.damage(key, f"{key} is absent")
        elif here != sha256:
            found.damage(key, f"the bytes of {key} are not those that were written")
    fact = "files.sums" if _is_zarr(record) else "technical.sha256"
    (found.refuted if set(sums) & set(found.damaged) else found.proven).add(fact)


def _digest(store: Store, key: str) -> str | None:
    try:
        return digest_of(store, key)[1]
    except NotFoundError:
        return None


def _prove_documents(
    store: Store, record: dict[str, Any], sums: Mapping[str, str], found: Findings
) -> None:
    if _is_zarr(record):
        listed = sums or [item.key for item in own_files(store, record["files"]["volume"])]
        prove_ome_zarr(store, record, listed, found)
    else:
        prove_npy_header(store, record, found)


def _prove_quality(record: dict[str, Any], found: Findings) -> None:
    """How the numbers of missing chunks and the completeness go together."""
    quality = record["metadata"]["quality"]
    named, score = len(quality["missing_chunks"]), quality["completeness_score"]
    total = quality.get("missing_chunks_total", named)
    found.hold(
        "quality.missing_chunks",
        named == total or (named < total and named >= 1000),
        f"the record names {named} missing chunks, and says that {total} are missing",
    )
    if score is not None:
        expected = total / (1 - score) if score < 1 else 0.0
        found.hold(
            "quality.completeness_score",
            abs(expected - round(expected)) < 1e-3 * max(1.0, expected)
            and (score == 1) == (total == 0)
            and expected >= total,
            f"the record says that {total} chunks are missing, and a completeness of {score}",
        )


def _finest_is_whole(record: Mapping[str, Any], found: Findings) -> bool:
    volume = record["files"]["volume"]
    needed = (f"{volume}/0/", f"{volume}/zarr.json") if _is_zarr(record) else (volume,)
    return not any(key.startswith(needed) for key in found.damaged)


NO_RECORD = "no record"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one record and its volume; no problems means that all of it holds.

    Attributes
    ----------
    record_key
        Key of the record; of the volume, where it has none.
    status
        The record's, ``unreadable``, or ``no record``.
    facts
        What the record states, sorted by whether it was proven; of complete records only.
    damaged
        Key of each file that can be made anew -> what is wrong with it.
    noted
        The record says that files were found damaged before.
    volume_key
        Source and name, as a lock calls the volume; of complete records only.
    """

    record_key: str
    status: str
    problems: tuple[str, ...]
    facts: Facts = field(default_factory=Facts)
    damaged: Mapping[str, str] = field(default_factory=dict)
    noted: bool = False
    volume_key: str = ""


def verify_store(
    store: Store, *, digests: bool = True, sources: Collection[str] = ()
) -> Iterator[Verdict]:
    """Look at every record of a store, and re-prove the volumes that are said to be complete.

    Records of other statuses promise no volume; only their form is looked at. A volume for which
    no record vouches is told as such.

    Parameters
    ----------
    sources
        Only what lies in the folders of these sources.
    """
    found = contents(store)
    records = [item for item in found.records if _chosen(item.key, sources)]
    volumes = [key for key in found.volumes if _chosen(key, sources)]
    vouched = {item.key for item in records}
    for item in records:
        try:
            record = read_json(store, item.key, item.size)
        except MacroscopeError as error:
            yield _unreadable(item.key, error)
            continue
        if isinstance(volume := (record.get("files") or {}).get("volume"), str):
            vouched.add(record_of(volume))
        yield _verdict(store, item.key, record, digests=digests)
    for key in volumes:
        if record_of(key) not in vouched:
            missing = f"{key} has no record ({record_of(key)}): nothing says what it should be"
            yield Verdict(key, NO_RECORD, (missing,))


def verify_record(store: Store, key: str, *, digests: bool = True) -> Verdict:
    """The same of one record."""
    try:
        return _verdict(store, key, read_json(store, key), digests=digests)
    except MacroscopeError as error:
        return _unreadable(key, error)


def _unreadable(key: str, error: MacroscopeError) -> Verdict:
    return Verdict(key, "unreadable", (str(error),))


def _verdict(store: Store, key: str, record: RecordDict, *, digests: bool) -> Verdict:
    status = str(record.get("status", "unknown"))
    problems = list(schema_errors(record))
    if problems or status != "complete" or not record.get("schema_version"):
        return Verdict(key, status, tuple(problems))
    found = examine(store, record, deep=digests, key=key)
    facts = found.summary(record, deep=digests)
    return Verdict(
        key,
        status,
        tuple(found.problems),
        facts,
        found.damaged,
        noted=bool(record["metadata"]["quality"].get("damaged")),
        volume_key=f"{record['source']}/{record['name']}",
    )


def _source_of(key: str) -> str:
    return key.partition("/")[0] if "/" in key else ""


def _chosen(key: str, sources: Collection[str]) -> bool:
    return not sources or _source_of(key) in sources


def require_proof(store: Store, verdicts: Sequence[Verdict], sources: Collection[str] = ()) -> None:
    """Refuse to call a store right of which nothing was looked at.

    Raises
    ------
    NothingThereError
        There is neither a record nor a volume; or none of a source that was asked for.
    """
    looked_at = {_source_of(verdict.record_key) for verdict in verdicts}
    nothing = [source for source in sources if source not in looked_at]
    if verdicts and not nothing:
        return
    found = require_contents(store, "prove")
    there = sorted({*map(_source_of, (*(item.key for item in found.records), *found.volumes))})
    raise NothingThereError(
        f"there is nothing to prove of {', '.join(nothing)}",
        location=store.uri,
        advice=f"The store holds {', '.join(there)}",
    )
