"""What is done and proven of a volume in the making: one small entry for each finished shard.

An entry is written after the shard's files are in the store, so an entry without its files means
a tampered store, and files without their entry are made again. Entries carry the digests and the
statistics, so nothing that one run makes has to be read twice to finish the volume; what it takes
over from an earlier run is proven first (`lib.volumes.engine`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, ValidationError

from lib.concurrency.bounded_map import run_ordered
from lib.errors import NotFoundError
from lib.geometry import ShapeZYX
from lib.plan import FrozenModel
from lib.storage.base import Store
from lib.volumes.job import VolumeJob
from lib.volumes.statistics import Statistics

_READS_AT_ONCE = 16  # a bucket answers in tens of milliseconds, whatever the size of an entry


def pack_statistics(statistics: Statistics) -> bytes:
    """The statistics of a shard as an entry holds them: they take 10 to 40 KB as Python's objects.

    A volume of 100,000 shards would need gigabytes when it is taken over and when it is finished.
    """
    return _packed(statistics.to_json())


def _packed(statistics: Any) -> bytes:
    if isinstance(statistics, bytes):
        return statistics
    if not isinstance(statistics, dict):
        raise ValueError("statistics are an object")  # of an entry that is foreign or damaged
    return zlib.compress(json.dumps(statistics).encode(), 1)


def _unpacked(packed: bytes | None) -> dict[str, Any] | None:
    found: dict[str, Any] | None = None if packed is None else json.loads(zlib.decompress(packed))
    return found


_Packed = Annotated[
    bytes, BeforeValidator(_packed), PlainSerializer(_unpacked, return_type=dict[str, Any])
]


class StoredFile(FrozenModel):
    """One file of the volume, relative to the volume, with what was written."""

    key: str
    size: int
    sha256: str


class LedgerEntry(FrozenModel):
    """One finished shard: level, index, the files written for it, and what was found in it.

    Units of an npy share one file, whose digest is known only at the end: each has the CRC-32 of
    its own bytes, in the order of the file.
    """

    fingerprint: str
    level: int
    index_zyx: ShapeZYX
    files: tuple[StoredFile, ...]
    crc32: int | None = None  # of an npy's rows; ledgers of earlier versions have none
    statistics: _Packed | None = None
    # of labels: packed ids of this level and of those made with it, by level; None for too many
    label_ids: dict[int, str | None] | None = None
    background: int = 0  # voxels of labels that are 0
    missing_chunks: tuple[str, ...] = ()

    def stats(self) -> Statistics:
        found = _unpacked(self.statistics)
        return Statistics.from_json(found) if found else Statistics()


class Ledger:
    """The entries of one job in one store."""

    def __init__(self, store: Store, job: VolumeJob) -> None:
        self._store = store
        self._job = job
        self._folder = f"{job.state_key}/ledger"
        self._job_key = f"{job.state_key}/job.json"

    def open(self) -> bool:
        """Make ready: True to go on with an earlier half, False after starting from nothing.

        A half that was made from another source, grid or codec is discarded, never mixed.
        """
        stored = self._stored_fingerprint()
        if stored == self._job.fingerprint:
            # Somebody may have deleted the volume; an npy has its full size from its first row on,
            # and entries would be believed about rows that were never written.
            root = self.root()
            if self._store.size(root) is None and next(iter(self._store.list(root)), None) is None:
                self._store.delete_tree(self._folder)
            return True
        self.discard()
        document = {"fingerprint": self._job.fingerprint, "job": self._job.model_dump(mode="json")}
        self._store.put(self._job_key, json.dumps(document, sort_keys=True).encode())
        return False

    def discard(self) -> None:
        """Drop the half-made volume and everything known about it."""
        staging = self._store.staging_key(self._job.final_key)
        # first what makes the half look usable, then the half itself
        self._store.delete(self._job_key)
        self._store.delete_tree(self._folder)
        self._store.delete_tree(staging)
        self._store.delete(staging)

    def close(self) -> None:
        """Forget the ledger; the volume is published and its record is complete."""
        self._store.delete_tree(self._job.state_key)

    def add(self, entry: LedgerEntry) -> None:
        self._store.put(
            self._entry_key(entry.level, entry.index_zyx), entry.model_dump_json().encode()
        )

    def forget(self, entries: Iterable[LedgerEntry]) -> None:
        """Drop entries, so that their shards are made again."""
        for entry in entries:
            self._store.delete(self._entry_key(entry.level, entry.index_zyx))

    def known(self, level: int | None = None) -> list[LedgerEntry]:
        """All entries of this job, whether or not their files are there."""
        folder = self._folder if level is None else f"{self._folder}/{level}"
        keys = [item.key for item in self._store.list(folder)]
        jobs = (partial(self._read, key) for key in keys)
        read = run_ordered(jobs, _READS_AT_ONCE, outlives_stop=True)  # a stopping run looks, too
        return [entry for entry in read if entry is not None]

    def entries(self, level: int | None = None) -> dict[tuple[int, ShapeZYX], LedgerEntry]:
        """All entries whose files are in the store with their recorded sizes."""
        known = self.known(level)
        if not known:
            return {}
        root = self.root()
        sizes = self._sizes(root, level)
        return {
            (entry.level, entry.index_zyx): entry
            for entry in known
            if _is_there(entry, root, sizes.get)
        }

    def root(self) -> str:
        """Where the volume's files lie: its staging name, or its final one once published.

        A run that was killed between publication and the record's last move leaves a finished
        volume with its ledger; the next run finds every shard in place and only writes the record.
        """
        staging = self._store.staging_key(self._job.final_key)
        if staging == self._job.final_key or self._store.size(staging) is not None:
            return staging
        there = next(iter(self._store.list(staging)), None) is not None
        return staging if there else self._job.final_key

    def pending(self, level: int, indices: Iterable[ShapeZYX]) -> list[ShapeZYX]:
        """Which shards of a level are still to be made, in order."""
        done = self.entries(level)
        return [index for index in indices if (level, index) not in done]

    def rest_of(self, level: int, indices: Sequence[ShapeZYX]) -> list[ShapeZYX]:
        """What is left of shards that are made one after another, and may have been begun before.

        Costs one read where nothing was begun: the ledger of a large volume is not for each batch.
        """
        root = ""
        for place, index in enumerate(indices):
            entry = self._read(self._entry_key(level, index))
            if entry is None:
                return list(indices[place:])
            root = root or self.root()
            if not _is_there(entry, root, self._store.size):
                return list(indices[place:])
        return []

    def _sizes(self, root: str, level: int | None) -> dict[str, int]:
        """Key -> size of the volume's files, as far as entries of that level can name them."""
        if self._job.output_format == "npy":
            size = self._store.size(root)
            return {} if size is None else {root: size}
        # Entries of level 0 name the shards of further levels that were made with theirs.
        folder = f"{root}/{level}" if level else root
        return {item.key: item.size for item in self._store.list(folder)}

    def _read(self, key: str) -> LedgerEntry | None:
        try:
            entry = LedgerEntry.model_validate_json(self._store.get(key))
        except (ValidationError, NotFoundError):
            return None  # cut short or foreign: the shard is made again
        mine = entry.fingerprint == self._job.fingerprint
        return entry if mine and key == self._entry_key(entry.level, entry.index_zyx) else None

    def _entry_key(self, level: int, index_zyx: ShapeZYX) -> str:
        return f"{self._folder}/{level}/{'.'.join(str(i) for i in index_zyx)}.json"

    def _stored_fingerprint(self) -> str | None:
        try:
            document = json.loads(self._store.get(self._job_key))
        except (NotFoundError, ValueError):
            return None
        return document.get("fingerprint") if isinstance(document, dict) else None


def _is_there(entry: LedgerEntry, root: str, size_of: Callable[[str], int | None]) -> bool:
    """Whether all files of an entry have their recorded sizes below `root`."""
    keys = ((f"{root}/{file.key}" if file.key else root, file.size) for file in entry.files)
    return all(size_of(key) == size for key, size in keys)
