"""Repairing one finished volume: what is damaged is made anew, and nothing else is touched.

The record says which files are damaged before the first of them is replaced, and until the last one
is proven. Every file is put whole, so that a repair that is killed anywhere leaves a volume whose
record says that it is damaged, and the next repair, or the next run, goes on.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from lib.config.manager import LoadedSettings
from lib.errors import IntegrityError, NotFoundError, SourceChangedError
from lib.ingest.context import VolumeRequest
from lib.ingest.repair.remake import Planned, Remaking
from lib.ingest.stages import plan_source
from lib.rawfiles.sidecar import hash_file
from lib.records.lifecycle import Key, RecordDict, member_records
from lib.records.manager import MetadataManager, timestamp
from lib.storage.base import Store, StoreSettings
from lib.storage.digests import digest_of
from lib.storage.keys import state_key
from lib.storage.local_lock import scratch_folder
from lib.verify.beside import sums_key
from lib.verify.volume import examine

_MOST_NAMED = 1000
"""Files that a record names of a repair, and of what is damaged: more are a volume to make anew."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair came to.

    Attributes
    ----------
    record
        As it is now.
    made
        Key of each file that was made anew -> what from: ``source``, ``finer level``, ``record``,
        ``volume``.
    problems
        What is still wrong, in words.
    """

    record: RecordDict
    made: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def in_words(self) -> str:
        """``2 files made anew from the source, 1 from a finer level``."""
        if not self.made:
            return "nothing made anew"
        counts = dict.fromkeys(dict.fromkeys(self.made.values()), 0)
        for origin in self.made.values():
            counts[origin] += 1
        words = {"finer level": "a finer level", "volume": "the rest of the volume"}
        parts = [f"{n} from {words.get(o, f'the {o}')}" for o, n in sorted(counts.items())]
        files = f"{len(self.made)} file" + "s" * (len(self.made) > 1)
        return f"{files} made anew: {', '.join(parts)}"


def note_damage(store: Store, record_key: str, damaged: Iterable[str]) -> RecordDict:
    """Say in a complete record which files were found damaged; the caller holds the lock.

    A run that meets the record then repairs the volume, and no catalogue lists it.

    Raises
    ------
    RecordError, DestinationError, AccessDeniedError
    """
    manager = MetadataManager(store)
    record = manager.load(record_key)
    named = [Key(key) for key in sorted(damaged)[:_MOST_NAMED]]
    if record["metadata"]["quality"].get("damaged") == named:
        return record
    return manager.amend(record, quality={"damaged": named})


def repair_volume(
    store: Store,
    record_key: str,
    planned: Planned,
    *,
    by: str,
    volume_key: str,
    secrets: Iterable[str] = (),
) -> Repair:
    """Prove a complete volume, and make anew what is damaged; the caller holds its lock.

    Parameters
    ----------
    planned
        Asks the archive for the volume once more, and gives the order that makes it; called only
        where something has to come from the source.
    by
        What the record calls this run or command.
    volume_key
        Source and name, as the lock calls the volume.
    secrets
        Texts that must not appear in the record.

    Raises
    ------
    SourceChangedError
        The archive's file or array is another one now; nothing was touched.
    IntegrityError
        What was made anew is not what was there; nothing was touched.
    MacroscopeError
        Source or store cannot be reached, ...; files that were put already are right, and the
        record says what is still damaged.
    """
    manager = MetadataManager(store, secrets=secrets)
    record = manager.load(record_key)
    found = examine(store, _without_note(record), deep=True, key=record_key)
    if not found.damaged:
        if record["metadata"]["quality"].get("damaged"):
            record = manager.amend(record, quality={"damaged": []})
        return Repair(record, {}, tuple(found.problems))
    record = note_damage(store, record_key, found.damaged)
    made: dict[str, str] = {}
    left: dict[str, str] = {}
    preview_sha256: str | None = None
    for part, damaged in _by_volume(_without_note(record), found.damaged):
        with _folder(store, volume_key) as folder:
            remaking = Remaking(store, part, damaged, folder)
            remaking.make(partial(_order_of, planned, part["name"]))
            remaking.patched.publish()
            _require_there(store, remaking)
            made |= {k: o for k, o in remaking.patched.origins.items() if k in damaged}
        left |= remaking.left
        preview_sha256 = remaking.preview_sha256 or preview_sha256
    record = manager.amend(record, **_changes(record, left, preview_sha256, made, by))
    after = examine(store, record, deep=False, key=record_key)
    said = [f"{key}: {why}" for key, why in sorted(left.items())]
    return Repair(record, made, tuple(dict.fromkeys([*said, *after.problems])))


def _by_volume(
    record: RecordDict, damaged: Mapping[str, str]
) -> Iterator[tuple[RecordDict, dict[str, str]]]:
    """Damaged files, by the record of the volume that each belongs to: label images have theirs."""
    rest = dict(damaged)
    for member in member_records(record):
        head = (f"{member['files']['volume']}/", sums_key(member))
        own = {key: rest.pop(key) for key in list(rest) if key.startswith(head)}
        if own:
            member["metadata"]["quality"] = {**member["metadata"]["quality"], "damaged": []}
            yield member, own
    if rest:
        yield record, rest


def _order_of(planned: Planned, name: str) -> VolumeRequest:
    """The order of one volume of a record: the image's, or that of one of its label images."""
    order = planned()
    for member in order.plan.members:
        if member.name == name:
            return replace(order, plan=member)
    return order


def _without_note(record: RecordDict) -> RecordDict:
    """The record as if nothing had been found damaged."""
    metadata = record["metadata"]
    quality = {**metadata["quality"], "damaged": []}
    return {**record, "metadata": {**metadata, "quality": quality}}


def _require_there(store: Store, remaking: Remaking) -> None:
    """Read back what was put.

    Raises
    ------
    IntegrityError
        The store gives other bytes than it was given.
    """
    for key, path in remaking.patched.anew.items():
        if digest_of(store, key) != (path.stat().st_size, hash_file(path)):
            raise IntegrityError(
                "a file that was made anew reads otherwise than it was written",
                location=key,
                advice="Check the disk or the bucket, then repair again",
            )


def _changes(
    record: RecordDict,
    left: Mapping[str, str],
    preview_sha256: str | None,
    made: Mapping[str, str],
    by: str,
) -> dict[str, dict[str, Any]]:
    """What the record says of the repair, and what is still damaged."""
    files = {Key(key): origin for key, origin in sorted(made.items())[:_MOST_NAMED]}
    repair = {"at": timestamp(datetime.now(UTC)), "by": by, "files": files}
    earlier = record["metadata"]["provenance"].get("repairs", [])
    changes: dict[str, dict[str, Any]] = {
        "quality": {"damaged": [Key(key) for key in sorted(left)]},
    }
    if made:
        changes["provenance"] = {"repairs": [*earlier, repair]}
    if preview_sha256 is not None:
        changes["files"] = {"preview_sha256": preview_sha256}
    return changes


@contextmanager
def _folder(store: Store, volume_key: str) -> Iterator[Path]:
    """Room for what is made anew: beside the volume where that is a folder, which has room for it.

    What an earlier repair left there is removed.
    """
    state = state_key(volume_key)
    local = store.local_path(f"{state}/repair")
    if local is None:
        with scratch_folder("repair") as scratch:
            yield scratch
        return
    folder = Path(local)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        store.delete_tree(state)


def holder_here(what: str) -> str:
    """Who holds a volume's lock, for whoever waits for it."""
    return f"{what} on {socket.gethostname()}, process {os.getpid()}"


def order_again(
    record: RecordDict,
    loaded: LoadedSettings,
    store: Store,
    store_settings: StoreSettings,
    scratch_dir: Path,
) -> VolumeRequest:
    """The request that makes a record's volume, planned from the archive as it is now.

    The settings that chose and shaped the volume are the record's own; addresses, credentials and
    limits are today's. Records of earlier versions hold no settings: today's stand for them.

    Raises
    ------
    NotFoundError
        The archive does not list the volume, or not under these settings.
    SourceChangedError
        It is another one now.
    ConfigError, TransportError, ...
        As any run.
    """
    source, name = record["source"], record["name"]
    stated = record["metadata"]["provenance"].get("settings") or {}
    known = loaded.keys.loaders[source].model_fields if source in loaded.keys.loaders else {}
    given = {name: value for name, value in stated.items() if name in known}
    config = loaded.loader(source, {**given, "dry_run": False, "output_dir": store.uri})
    plans = plan_source(source, config, scratch_dir, store).plans
    plan = next((plan for plan in plans if plan.name == name), None)
    if plan is None:
        raise NotFoundError(
            f"the archive lists no volume {name} under the settings that it was made with",
            archive=source,
            location=record["source_id"],
            advice="Run it again with the settings that it was made with: "
            + (
                "they are in its record" if given else "its record, of an earlier version, has none"
            ),
        )
    request = VolumeRequest(
        plan, config, store.uri, store_settings, scratch_dir, holder_here("macroscope verify")
    )
    fitting = request.making(record.get("additional_metadata", {}).get("identity"))
    if fitting is None:
        raise SourceChangedError(
            "the archive's file or array is not the one that the volume was made from, or other "
            "settings shape it now; nothing was touched",
            archive=source,
            location=record["source_id"],
            advice="Run again to make the volume anew from what the archive holds now",
        )
    return fitting
