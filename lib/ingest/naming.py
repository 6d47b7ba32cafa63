"""One name for each volume of a run and of a store, whatever the archive calls it.

A volume keeps the plain name that its archive made for it, as long as nobody else has it. Where
several volumes of a run would share one, on any file system, or a record of the store holds it for
another source, each gets a digest of where the archive keeps it. A volume that the store knows
already keeps the name of its record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from lib.concurrency.bounded_map import run_ordered
from lib.errors import NameTakenError, NotFoundError, RecordError
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.sidecar import facts_of
from lib.records.lifecycle import RecordDict, read_json, record_key, section
from lib.safety import folded, marked_volume_name, same_place, volume_name
from lib.storage.base import Store
from lib.transport.listing import FileIdentity, Likeness, compare

_DIGEST = "source_digest"
# Names that runs of this process have given, before a record holds them: store, source, name ->
# digest of the volume. Several datasets of one run are planned at the same time.
_given: dict[tuple[str, str, str], str] = {}
_giving = threading.Lock()
_READS_AT_ONCE = 8
_log = logging.getLogger(__name__)


def name_plans(plans: Sequence[VolumePlan], store: Store | None) -> list[VolumePlan]:
    """The same plans, each under a name that is its own, with files as the store noted them.

    Parameters
    ----------
    plans
        Of one source's run; ``name`` is what the archive would call the volume.
    store
        Where the volumes will lie; None to look at this run alone.

    Raises
    ------
    NameTakenError
        Two plans are of the same volume, so that no name tells them apart.
    DestinationError, AccessDeniedError
        The store's records cannot be listed or read.
    """
    candidates = [_candidates(plan) for plan in plans]
    holders = _holders(store, plans, candidates)
    held = {folded(name) for name in holders}
    shared = Counter(folded(volume_name(plan.name)) for plan in plans)
    named = []
    for plan, names in zip(plans, candidates, strict=True):
        own = (name for name in names if name in holders and is_of(holders[name], plan))
        plain, marked = names[-2:]
        free = shared[folded(plain)] == 1 and folded(plain) not in held
        name = next(own, None) or (plain if free and _give(store, plan, plain) else marked)
        update = {"name": name, "source_path": plan.path_in_source}
        mine = plan.model_copy(update=update)
        known = name in holders and is_of(holders[name], plan)
        named.append(as_noted(mine, holders[name]) if known else mine)
    _require_distinct(named)
    return named


def require_own_name(store: Store, plan: VolumePlan) -> None:
    """The last look before a volume is begun; the caller holds its lock.

    Raises
    ------
    NameTakenError
        The record under the plan's name is another volume's.
    """
    record = _read(store, record_key(plan.source, plan.name))
    if record is not None and not is_of(record, plan):
        raise NameTakenError(
            f"the name {plan.name} is that of {_words(record)}, not of {plan.path_in_source}",
            archive=plan.source,
            location=record_key(plan.source, plan.name),
        )


def stated_source(plan: VolumePlan) -> dict[str, str]:
    """What a record's ``additional_metadata`` says of where the archive keeps the volume.

    The path is for people, and cleaned as all text of a record is; the digest is compared.
    """
    return {"source_path": plan.path_in_source, _DIGEST: _digest(plan)}


def is_of(record: RecordDict, plan: VolumePlan) -> bool:
    """Whether a record describes the volume of a plan, or an earlier state of it.

    Records of before `stated_source` are told by accession, path inside the container and files.
    """
    more = section(record, "additional_metadata")
    provenance = section(record, "metadata", "provenance")
    if record.get("source") != plan.source:
        return False
    if isinstance(more.get(_DIGEST), str):
        return bool(more[_DIGEST] == _digest(plan))
    if record.get("source_id") != plan.source_id:
        return False
    if provenance.get("internal_zarr_path") not in (None, plan.internal_path):
        return False
    files = provenance.get("source_files")
    urls = [file.get("url") for file in files if isinstance(file, dict)] if files else []
    known = [url for url in urls if isinstance(url, str)]
    return not known or any(same_place(url, file.url) for url in known for file in plan.files)


# --- inside ---------------------------------------------------------------------------------


def _give(store: Store | None, plan: VolumePlan, name: str) -> bool:
    """Whether a name is the plan's: no other volume got it in this process before."""
    if store is None:
        return True
    with _giving:
        key = (store.uri, plan.source, folded(name))
        return _given.setdefault(key, _digest(plan)) == _digest(plan)


def _candidates(plan: VolumePlan) -> tuple[str, ...]:
    """Names under which the volume may be known: as it was called once, plain, marked."""
    every: list[str] = []
    for name in (*plan.earlier_names, plan.name):
        plain = volume_name(name)
        every += [name] if name != plain else []
        every += [plain, marked_volume_name(name, plan.source, plan.path_in_source, name)]
    return tuple(every)


def _holders(
    store: Store | None, plans: Sequence[VolumePlan], candidates: Iterable[tuple[str, ...]]
) -> dict[str, RecordDict]:
    """The records that hold one of the names, in any case, by the names that they hold."""
    if store is None or not plans:
        return {}
    source = plans[0].source
    wanted = {folded(name) for names in candidates for name in names}
    before, after = record_key(source, "\0").split("\0")
    found = [
        item.key.removeprefix(before).removesuffix(after)
        for item in store.list_folder(source).objects
        if item.key.startswith(before) and item.key.endswith(after)
    ]
    names = [name for name in found if folded(name) in wanted]
    jobs = (partial(_read, store, record_key(source, name)) for name in names)
    records = run_ordered(jobs, _READS_AT_ONCE)
    return {name: record for name, record in zip(names, records, strict=True) if record is not None}


def _read(store: Store, key: str) -> RecordDict | None:
    """A record, however old; None where there is none, or nothing that says whose it is."""
    try:
        record = read_json(store, key)
    except NotFoundError:
        return None
    except RecordError as error:
        _log.warning("the record is made anew: %s", error)
        return None
    return record if isinstance(record.get("source_id"), str) else None


def _require_distinct(plans: Iterable[VolumePlan]) -> None:
    seen: dict[str, VolumePlan] = {}
    for plan in plans:
        first = seen.setdefault(folded(plan.name), plan)
        if first is not plan:
            raise NameTakenError(
                f"two volumes of this run are {plan.path_in_source}, called {plan.name}",
                archive=plan.source,
                location=plan.source_id,
                advice="Report this: the archive gives the same volume twice",
            )


def _digest(plan: VolumePlan) -> str:
    identity = json.dumps([plan.source, plan.path_in_source])
    return hashlib.sha256(identity.encode()).hexdigest()


def _words(record: RecordDict) -> str:
    path = section(record, "additional_metadata").get("source_path")
    return str(path or record.get("source_id"))


def as_noted(plan: VolumePlan, record: RecordDict) -> VolumePlan:
    """The plan with the entity tags and times of a record, if all its files may be the same.

    Nodes of a mirror give one file other entity tags, and times that are off by a second. A
    volume's identity holds both, so that a run that met another node would make everything anew.
    Where size and one weak fact fit, the plan goes on with what was noted; should the file be
    another one after all, the second look at its bytes finds it (`lib.transport.second_look`).
    """
    found = section(record, "metadata", "provenance").get("source_files")
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
    return dataclasses.replace(
        file, etag=etag or file.etag, last_modified=date or file.last_modified
    )


def _text(noted: dict[str, Any], key: str) -> str | None:
    value = noted.get(key)
    return value if isinstance(value, str) else None
