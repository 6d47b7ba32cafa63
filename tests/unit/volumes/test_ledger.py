"""An entry of the ledger counts only while the files it names lie in the store as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.geometry import ShapeZYX
from lib.storage.local import LocalStore
from lib.volumes.job import VolumeJob
from lib.volumes.ledger import Ledger, LedgerEntry, StoredFile, pack_statistics
from lib.volumes.statistics import Statistics, of_chunk
from tests.kit.volume_kit import ArrayReader, a_job, a_plan, random_voxels

SHAPE = (40, 40, 40)


class InPlace(LocalStore):
    """A folder that stages nothing, as a bucket does not."""

    def staging_key(self, final: str) -> str:
        return final


@pytest.fixture(params=[LocalStore, InPlace])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LocalStore:
    made: LocalStore = request.param(tmp_path, durable=False)
    return made


def job_of(output_format: str = "zarr", etag: str = "1") -> VolumeJob:
    reader = ArrayReader(random_voxels(SHAPE, "uint8"))
    settings: dict[str, Any] = {"chunk_zyx": (20, 20, 20), "shard_mb": 0.01}
    return a_job(a_plan(SHAPE, etag=etag), reader, output_format=output_format, **settings)


def entry(job: VolumeJob, index: ShapeZYX, *sizes: int, level: int = 0, **more: Any) -> LedgerEntry:
    """An entry of one file for each size."""
    files = [
        StoredFile(key=f"{level}/c/{'/'.join(map(str, index))}/{n}", size=size, sha256="0" * 64)
        for n, size in enumerate(sizes)
    ]
    return LedgerEntry(
        fingerprint=job.fingerprint, level=level, index_zyx=index, files=tuple(files), **more
    )


def done(store: LocalStore, job: VolumeJob, one: LedgerEntry, at: str | None = None) -> None:
    """Write what an entry says, then the entry."""
    root = at or store.staging_key(job.final_key)
    for file in one.files:
        store.put(f"{root}/{file.key}", b"x" * file.size)
    Ledger(store, job).add(one)


@pytest.fixture
def ledger(store: LocalStore) -> Ledger:
    ledger = Ledger(store, job_of())
    assert ledger.open() is False, "nothing was here"
    return ledger


def test_an_entry_counts_with_all_its_files_and_their_sizes(
    store: LocalStore, ledger: Ledger
) -> None:
    job = job_of()
    first, second = entry(job, (0, 0, 0), 3, 4), entry(job, (0, 0, 1), 5)
    done(store, job, first)
    done(store, job, second)
    assert ledger.entries() == {(0, (0, 0, 0)): first, (0, (0, 0, 1)): second}
    store.put(f"{ledger.root()}/{first.files[1].key}", b"xxx")
    assert ledger.entries() == {(0, (0, 0, 1)): second}, "one file of two has another size"
    store.delete(f"{ledger.root()}/{second.files[0].key}")
    assert ledger.entries() == {}


def test_an_entry_says_what_was_found_in_the_shard(store: LocalStore, ledger: Ledger) -> None:
    said = entry(job_of(), (0, 0, 0), 1, missing_chunks=("0/0/1",))
    done(store, job_of(), said)
    (read,) = ledger.entries().values()
    assert read.missing_chunks == ("0/0/1",)
    assert read.stats() == Statistics(), "no statistics are those of nothing"


def test_levels_are_told_apart(store: LocalStore, ledger: Ledger) -> None:
    job = job_of()
    fine, coarse = entry(job, (0, 0, 0), 3), entry(job, (0, 0, 0), 4, level=1)
    done(store, job, fine)
    done(store, job, coarse)
    assert set(ledger.entries()) == {(0, (0, 0, 0)), (1, (0, 0, 0))}
    assert ledger.entries(0) == {(0, (0, 0, 0)): fine}
    assert ledger.entries(1) == {(1, (0, 0, 0)): coarse}
    assert ledger.pending(1, [(0, 0, 1), (0, 0, 0)]) == [(0, 0, 1)]


def test_the_shards_of_coarser_levels_that_were_made_with_a_fine_one_count_with_it(
    store: LocalStore, ledger: Ledger
) -> None:
    job = job_of()
    one = entry(job, (0, 0, 0), 3)
    one = one.model_copy(
        update={"files": (*one.files, StoredFile(key="1/c/0/0/0", size=2, sha256="0" * 64))}
    )
    done(store, job, one)
    assert ledger.pending(0, [(0, 0, 0)]) == []
    store.delete(f"{ledger.root()}/1/c/0/0/0")
    assert ledger.pending(0, [(0, 0, 0)]) == [(0, 0, 0)]


def test_shards_to_be_made_come_in_the_order_that_was_asked_for(
    store: LocalStore, ledger: Ledger
) -> None:
    done(store, job_of(), entry(job_of(), (0, 1, 0), 3))
    assert ledger.pending(0, [(1, 0, 0), (0, 1, 0), (0, 0, 0)]) == [(1, 0, 0), (0, 0, 0)]


def test_what_is_forgotten_is_made_again_and_nothing_else(
    store: LocalStore, ledger: Ledger
) -> None:
    job = job_of()
    kept, dropped, coarse = (
        entry(job, (0, 0, 0), 3),
        entry(job, (0, 0, 1), 3),
        entry(job, (0, 0, 1), 3, level=1),
    )
    for one in (kept, dropped, coarse):
        done(store, job, one)
    ledger.forget([dropped])
    assert ledger.known(0) == [kept]
    assert ledger.known(1) == [coarse], "the same place of another level"
    ledger.forget([dropped])  # of a shard that another attempt forgot
    assert ledger.pending(0, [(0, 0, 0), (0, 0, 1)]) == [(0, 0, 1)]


def test_what_is_left_of_a_batch_starts_at_its_first_shard_that_is_not_whole(
    store: LocalStore, ledger: Ledger
) -> None:
    batch: list[ShapeZYX] = [(0, 0, 0), (0, 0, 1), (0, 1, 0)]
    assert ledger.rest_of(0, batch) == batch
    for index in batch:
        done(store, job_of(), entry(job_of(), index, 3, 4))
    assert ledger.rest_of(0, batch) == []
    store.put(f"{ledger.root()}/0/c/0/0/1/1", b"x")
    assert ledger.rest_of(0, batch) == batch[1:]
    assert ledger.rest_of(1, batch) == batch, "of another level"


def test_the_file_of_an_npy_is_the_volume_itself(store: LocalStore) -> None:
    job = job_of("npy")
    ledger, root = Ledger(store, job), store.staging_key(job.final_key)
    assert ledger.open() is False
    whole = StoredFile(key="", size=10, sha256="0" * 64)
    ledger.add(
        LedgerEntry(fingerprint=job.fingerprint, level=0, index_zyx=(0, 0, 0), files=(whole,))
    )
    assert ledger.pending(0, [(0, 0, 0)]) == [(0, 0, 0)], "there is no file"
    assert ledger.rest_of(0, [(0, 0, 0)]) == [(0, 0, 0)]
    store.put(root, b"x" * 10)
    assert ledger.pending(0, [(0, 0, 0)]) == []
    assert ledger.rest_of(0, [(0, 0, 0)]) == []
    store.put(root, b"x" * 9)
    assert ledger.pending(0, [(0, 0, 0)]) == [(0, 0, 0)]


@pytest.mark.parametrize("output_format", ["zarr", "npy"])
def test_a_half_goes_on_and_a_half_of_something_else_goes(
    store: LocalStore, output_format: str
) -> None:
    job, other = job_of(output_format), job_of(output_format, etag="2")
    ledger, root = Ledger(store, job), store.staging_key(job.final_key)
    ledger.open()
    store.put(root if output_format == "npy" else f"{root}/0/c/0/0/0", b"x")
    key = "" if output_format == "npy" else "0/c/0/0/0"
    one = StoredFile(key=key, size=1, sha256="0" * 64)
    ledger.add(LedgerEntry(fingerprint=job.fingerprint, level=0, index_zyx=(0, 0, 0), files=(one,)))
    assert Ledger(store, job).open() is True
    assert len(ledger.entries()) == 1
    assert Ledger(store, other).open() is False
    assert [item.key for item in store.list(job.state_key)] == [f"{job.state_key}/job.json"]
    assert store.size(root) is None and not list(store.list(root)), "the half itself is gone"
    written = store.get(f"{other.state_key}/job.json")
    document = json.loads(written)
    assert document["fingerprint"] == other.fingerprint
    assert VolumeJob.model_validate(document["job"]) == other
    assert json.dumps(document, sort_keys=True).encode() == written, "one job is the same bytes"


@pytest.mark.parametrize("output_format", ["zarr", "npy"])
def test_entries_of_a_volume_that_somebody_deleted_are_forgotten(
    store: LocalStore, output_format: str
) -> None:
    job = job_of(output_format)
    ledger = Ledger(store, job)
    ledger.open()
    ledger.add(entry(job, (0, 0, 0)))
    assert len(ledger.entries()) == 1, "of no file, so that nothing speaks against it"
    assert ledger.open() is True
    assert ledger.entries() == {}
    assert store.size(f"{job.state_key}/job.json"), "the job itself stays"


def test_a_ledger_that_was_closed_leaves_nothing_but_the_volume(
    store: LocalStore, ledger: Ledger
) -> None:
    job = job_of()
    done(store, job, entry(job, (0, 0, 0), 3))
    if ledger.root() != job.final_key:
        store.publish_tree(ledger.root(), job.final_key)
    ledger.close()
    assert store.get(f"{ledger.root()}/0/c/0/0/0/0") == b"xxx"
    assert list(store.list(job.state_key)) == []
    assert ledger.entries() == {}


def test_a_published_volume_is_where_its_entries_lead(tmp_path: Path) -> None:
    """Killed after publication: only the record is still to be written."""
    job, store = job_of(), LocalStore(tmp_path, durable=False)
    ledger = Ledger(store, job)
    ledger.open()
    assert ledger.root() == job.final_key
    done(store, job, entry(job, (0, 0, 0), 3), at=job.final_key)
    assert ledger.root() == job.final_key
    assert len(ledger.entries()) == 1
    staging = store.staging_key(job.final_key)
    assert staging != job.final_key
    store.put(f"{staging}/0/c/0/0/0/0", b"x")
    assert ledger.root() == staging, "a successor is in the making"
    assert ledger.entries() == {}


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b"{}", b"null", b"\xff"])
def test_rubbish_in_the_ledger_counts_for_nothing(
    store: LocalStore, ledger: Ledger, rubbish: bytes
) -> None:
    job = job_of()
    one = entry(job, (0, 0, 0), 3)
    done(store, job, one)
    (key,) = (item.key for item in store.list(f"{job.state_key}/ledger"))
    assert key.endswith("/ledger/0/0.0.0.json")
    store.put(key, rubbish)
    assert ledger.entries() == {}
    store.put(f"{job.state_key}/job.json", rubbish)
    assert Ledger(store, job).open() is False


@pytest.mark.parametrize(
    "change",
    [{"fingerprint": ""}, {"fingerprint": "x"}, {"level": 1}, {"index_zyx": (1, 0, 0)}],
)
def test_an_entry_that_speaks_of_something_else_counts_for_nothing(
    store: LocalStore, ledger: Ledger, change: dict[str, Any]
) -> None:
    job = job_of()
    one = entry(job, (0, 0, 0), 3)
    done(store, job, one)
    (key,) = (item.key for item in store.list(f"{job.state_key}/ledger"))
    store.put(key, one.model_copy(update=change).model_dump_json().encode())
    assert ledger.entries() == {}
    assert ledger.rest_of(0, [(0, 0, 0)]) == [(0, 0, 0)]
    store.delete(key)
    store.put(key.replace("0.0.0", "9.9.9"), one.model_dump_json().encode())
    assert ledger.entries() == {}, "under the name of another"


def test_what_is_held_of_a_shard_stays_small(store: LocalStore) -> None:
    job = job_of()
    voxels = np.arange(2**20, dtype=np.uint32)
    whole = of_chunk(voxels * 977)
    assert len(whole.histogram.counts) > 900
    one = entry(job, (0, 0, 0), 1, statistics=pack_statistics(whole))
    done(store, job, one)
    (read,) = Ledger(store, job).known()
    assert read == one
    assert read.stats() == whole
    assert read.statistics is not None
    assert len(read.statistics) < 3000  # as objects of Python: more than 30 kB


def test_an_entry_whose_statistics_are_none_is_made_again(store: LocalStore) -> None:
    job = job_of()
    done(store, job, entry(job, (0, 0, 0), 1))
    document = json.loads(entry(job, (0, 0, 1), 1).model_dump_json()) | {"statistics": "abc"}
    folder = f"{job.state_key}/ledger/0"
    store.put(f"{folder}/0.0.1.json", json.dumps(document).encode())
    assert [found.index_zyx for found in Ledger(store, job).known()] == [(0, 0, 0)]
