"""Kill a run between any two writes, as often as you like: it never finishes something wrong.

A stateful test over both kinds of store: a folder, and a bucket, which has no rename and deletes
trees object by object. A crash comes at the n-th change of the store, before or after it took
effect; from then on nothing of that run changes anything.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from lib.errors import IntegrityError, NotFoundError
from lib.storage.base import GatheredDraft, StoredObject
from lib.storage.local import LocalStore
from lib.storage.local_draft import LocalDraft
from lib.volumes.finish import SUMS_SUFFIX, finish
from lib.volumes.job import ConcurrencyLimits, VolumeJob
from lib.volumes.ledger import Ledger
from tests.kit.volume_kit import ZarrSource, a_job, make, random_voxels

SHAPE, CHUNK = (2, 1, 130), (1, 1, 32)
THICK = (1000.0, 8.0, 8.0)  # only the rows are halved
WAYS: dict[str, dict[str, Any]] = {
    "through": {"shard_mb": 0.00001},
    "blocks": {"shard_mb": 0.00001, "codec": "zstd", "chunk_zyx": CHUNK},
    "npy": {"shard_mb": 0.00001, "output_format": "npy", "chunk_zyx": (1, 1, 32)},
}


class Crash(BaseException):
    """The process is gone."""


class Fuse:
    """Burns with every change of a store; when it is through, that run changes nothing more."""

    def __init__(self, changes: int, *, after: bool) -> None:
        self._left, self._after, self._lock = changes, after, threading.Lock()
        self.dead = False

    def change(self, effect: Any) -> Any:
        with self._lock:
            if self.dead:
                raise Crash
            self._left -= 1
            if self._left < 0 and not self._after:
                self.dead = True
                raise Crash
            result = effect()
            if self._left < 0:
                self.dead = True
                raise Crash
            return result


class Folder(LocalStore):
    """A folder that can be killed."""

    fuse = Fuse(10**9, after=False)

    def draft(self, key: str) -> LocalDraft:
        draft = super().draft(key)
        commit = draft.commit

        def fused(**options: bool) -> None:
            self.fuse.change(lambda: commit(**options))

        draft.commit = fused  # type: ignore[method-assign]
        return draft

    def delete(self, key: str) -> None:
        self.fuse.change(lambda: LocalStore.delete(self, key))

    def delete_tree(self, prefix: str) -> None:
        self.fuse.change(lambda: LocalStore.delete_tree(self, prefix))

    def publish_tree(self, staging: str, final: str) -> None:
        self.fuse.change(lambda: LocalStore.publish_tree(self, staging, final))

    def snapshot(self) -> dict[str, bytes]:
        root = Path(self.root)
        return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


class Bucket:
    """What a bucket promises, in memory: atomic objects, no rename, no atomic deletion of trees."""

    uri = "s3://bucket"

    def __init__(self) -> None:
        self.fuse = Fuse(10**9, after=False)
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, data: Any, *, create: bool = False) -> None:
        parts = [data] if isinstance(data, bytes | bytearray | memoryview) else data
        whole = b"".join(bytes(part) for part in parts)
        self.fuse.change(lambda: self.objects.__setitem__(key, whole))

    def draft(self, key: str) -> GatheredDraft:
        return GatheredDraft(partial(self.put, key))

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise NotFoundError("no such key", location=key)
        return self.objects[key]

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.get(key)[start : start + length]

    def size(self, key: str) -> int | None:
        return len(self.objects[key]) if key in self.objects else None

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for key in sorted(self.objects):
            if key.startswith(f"{prefix}/" if prefix else ""):
                yield StoredObject(key, len(self.objects[key]))

    def delete(self, key: str) -> None:
        self.fuse.change(lambda: self.objects.pop(key, None))

    def persist(self, *keys: str) -> None:
        """Nothing to do: an object is durable when the store has answered."""

    def delete_tree(self, prefix: str) -> None:
        depth = prefix.count("/") + 1
        keys = [item.key for item in self.list(prefix)]
        for key in sorted(keys, key=lambda key: key.count("/") > depth):  # its documents first
            self.delete(key)

    def publish_tree(self, staging: str, final: str) -> None:
        assert staging == final

    def staging_key(self, final: str) -> str:
        return final

    def local_path(self, key: str) -> str | None:
        return None

    def snapshot(self) -> dict[str, bytes]:
        return dict(self.objects)


@cache
def source(version: int) -> ZarrSource:
    return ZarrSource(random_voxels(SHAPE, "uint8", 20 + version), CHUNK)


@cache
def job_of(way: str, version: int) -> VolumeJob:
    plan = source(version).plan(etag=str(version), voxel_nm_zyx=THICK)
    job = a_job(plan, source(version).reader(), **WAYS[way])
    if way != "npy":
        assert [level.in_pass for level in job.levels] == [True, True, False]
        assert len(job.grid) == 10
    return job


@cache
def undisturbed(way: str, version: int) -> dict[str, bytes]:
    """Everything that a run without a crash leaves."""
    with tempfile.TemporaryDirectory() as folder:
        store = Folder(folder)
        make(
            job_of(way, version), source(version).reader(), store, limits=ConcurrencyLimits(1, 1, 1)
        )
        return store.snapshot()


class Machine(RuleBasedStateMachine):
    """One volume of one store, its source changing now and then.

    No rule has a precondition: what threads left would decide which rule may be drawn, and examples
    that go differently the second time are an error to Hypothesis.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.version = 0
        self.way = "blocks"
        self.store: Any = Folder(self.folder)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(way=st.sampled_from(sorted(WAYS)), bucket=st.booleans())
    def begin(self, way: str, bucket: bool) -> None:
        self.way = way
        if bucket and way != "npy":
            self.store = Bucket()

    @property
    def job(self) -> VolumeJob:
        return job_of(self.way, self.version)

    def run(self, limits: ConcurrencyLimits) -> None:
        make(self.job, source(self.version).reader(), self.store, limits=limits)

    @rule(changes=st.integers(0, 60), after=st.booleans(), shards=st.integers(1, 2))
    def run_until_it_is_killed(self, changes: int, after: bool, shards: int) -> None:
        self.store.fuse = Fuse(changes, after=after)
        try:
            with suppress(Crash):
                self.run(ConcurrencyLimits(1, shards, shards))
                self.check_finished()
        finally:
            self.store.fuse = Fuse(10**9, after=False)

    @rule()
    def run_to_the_end(self) -> None:
        self.run(ConcurrencyLimits(1, 1, 1))
        self.check_finished()

    @rule()
    def the_source_changes(self) -> None:
        self.version = 1 - self.version

    def remains(self, prefix: str) -> list[str]:
        return [item.key for item in self.store.list(prefix)]

    @rule(number=st.integers(0, 99), rubbish=st.sampled_from([b"", b"{", b"[1]"]))
    def a_power_cut_spoils_a_file_of_the_ledger(self, number: int, rubbish: bytes) -> None:
        keys = [
            k for k in self.remains(self.job.state_key) if k.endswith(".json") and ".zarr/" not in k
        ]
        if keys:
            self.store.put(keys[number % len(keys)], rubbish)

    @rule(number=st.integers(0, 99), cut=st.booleans())
    def somebody_spoils_the_unfinished_volume(self, number: int, cut: bool) -> None:
        if self.visible() and self.store.uri == "s3://bucket":
            return
        staging = self.store.staging_key(self.job.final_key)
        keys = self.remains(staging) + [staging] * (self.store.size(staging) is not None)
        if keys:
            key = keys[number % len(keys)]
            if cut and self.way != "npy":
                self.store.put(key, self.store.get(key)[:-1])
            else:
                self.store.delete(key)

    # --- what always holds

    def visible(self) -> bool:
        """Whether readers see a volume under the final name."""
        key = self.job.final_key
        return self.store.size(key if self.way == "npy" else f"{key}/zarr.json") is not None

    def check_finished(self) -> None:
        assert self.store.snapshot() == undisturbed(self.way, self.version)

    @invariant()
    def what_is_visible_is_whole(self) -> None:
        if not self.visible():
            return
        key = self.job.final_key
        there = {
            k: v for k, v in self.store.snapshot().items() if k == key or k.startswith(f"{key}/")
        }
        whole = []
        for version in (0, 1):
            files = undisturbed(self.way, version)
            whole.append({k: v for k, v in files.items() if not k.endswith(SUMS_SUFFIX)})
        assert there in whole


Machine.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestLedger = Machine.TestCase


def test_every_single_change_can_be_the_last_one() -> None:
    """Not by chance but one by one: a crash at each change, then one undisturbed run."""
    for way, bucket in (("through", False), ("through", True), ("npy", False)):
        crashes = 0
        for changes in range(200):
            with tempfile.TemporaryDirectory() as folder:
                store: Any = Bucket() if bucket else Folder(folder)
                store.fuse = Fuse(changes, after=False)
                job, reader = job_of(way, 0), source(0).reader()
                ended = False
                with suppress(Crash):
                    make(job, reader, store, limits=ConcurrencyLimits(1, 1, 1))
                    ended = True
                if not ended:
                    crashes += 1
                    store.fuse = Fuse(10**9, after=False)
                    ledger = Ledger(store, job)
                    # a bucket forgets a finished ledger file by file, this one first
                    begun = store.size(f"{job.state_key}/job.json") is not None
                    known = set(ledger.entries()) if begun else set()
                    made: list[Any] = []
                    make(
                        job, reader, store, limits=ConcurrencyLimits(1, 1, 1), on_shard=made.append
                    )
                    again = {(entry.level, entry.index_zyx) for entry in made} & known
                    assert not again
                assert store.snapshot() == undisturbed(way, 0)
            if ended:
                break
        assert crashes >= 10


def test_a_finish_that_lost_a_race_says_so() -> None:
    """Entries whose files are gone prove nothing, whatever they say."""
    with tempfile.TemporaryDirectory() as folder:
        store = Folder(folder)
        store.fuse = Fuse(12, after=True)
        with suppress(Crash):
            make(job_of("blocks", 0), source(0).reader(), store, limits=ConcurrencyLimits(1, 1, 1))
        store.fuse = Fuse(10**9, after=False)
        LocalStore.delete_tree(store, store.staging_key(job_of("blocks", 0).final_key))
        ledger = Ledger(store, job_of("blocks", 0))
        assert ledger.entries() == {}
        with pytest.raises(IntegrityError, match="was not made"):
            finish(job_of("blocks", 0), store, max_missing_fraction=0)
