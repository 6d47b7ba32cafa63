"""A run that ends anywhere is taken up by the next one, which ends with the very same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.concurrency import cancel as stopping
from lib.errors import DestinationBusyError, IntegrityError, StoppedError, TransportError
from lib.formats.base import VolumeReader
from lib.geometry import Box, ShapeZYX
from lib.storage.local import LocalStore
from lib.volumes.downsample import make_coarse_levels
from lib.volumes.engine import convert
from lib.volumes.finish import finish
from lib.volumes.job import ConcurrencyLimits, VolumeJob
from lib.volumes.ledger import Ledger, LedgerEntry
from tests.kit.volume_kit import (
    ArrayReader,
    Countdown,
    ZarrSource,
    a_job,
    a_plan,
    digests,
    make,
    random_voxels,
    volume_path,
)

SHAPE = (40, 70, 80)
CHUNK = (16, 16, 32)
SETTINGS: dict[str, Any] = {"shard_mb": 0.033}
WAYS = ["through", "zarr", "npy"]
ONE = ConcurrencyLimits(1, 1, 1)


class Killed(BaseException):
    """Nothing catches this, as nothing catches SIGKILL."""


class Case:
    """One volume, one way of making it, and what an undisturbed run makes of it."""

    def __init__(self, way: str, tmp_path: Path) -> None:
        self.voxels = random_voxels(SHAPE, "uint8", 11)
        self.source = ZarrSource(self.voxels, CHUNK)
        self.asked: Counter[str] = Counter()
        self.settings = {
            "through": {},
            "zarr": {"codec": "zstd", "chunk_zyx": CHUNK},
            "npy": {"output_format": "npy", "chunk_zyx": CHUNK},
        }[way] | SETTINGS
        self.store = LocalStore(tmp_path / "disturbed")
        self.quiet = LocalStore(tmp_path / "undisturbed")
        self.job = a_job(self.source.plan(), self.source.reader(), **self.settings)
        self.units = list(self.job.grid.shards())
        make(self.job, self.source.reader(), self.quiet, limits=ONE)
        self.source.objects.on_get = self._count
        assert len(self.units) > 6

    def _count(self, key: str) -> None:
        self.asked[key] += 1

    def run(self, on_shard: Any = lambda entry: None, limits: ConcurrencyLimits = ONE) -> None:
        make(self.job, self.source.reader(), self.store, on_shard=on_shard, limits=limits)

    def assert_as_undisturbed(self) -> None:
        assert digests(self.store, self.job) == digests(self.quiet, self.job)
        mine, other = (_tree(Path(store.root)) for store in (self.store, self.quiet))
        assert mine == other


def _tree(root: Path) -> dict[str, bytes]:
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


@pytest.fixture(params=WAYS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(request.param, tmp_path)


@pytest.mark.parametrize("shards", [0, 1, 4])
def test_what_was_finished_is_not_made_again(case: Case, shards: int) -> None:
    with pytest.raises(Killed):
        case.run(on_shard=Countdown(shards, Killed()))
    assert not volume_path(case.store, case.job).exists()
    done = Ledger(case.store, case.job).entries(0)
    assert len(done) == shards + 1
    case.asked.clear()
    made: list[LedgerEntry] = []
    case.run(on_shard=made.append)
    assert not {(e.level, e.index_zyx) for e in made} & set(done)
    assert sum(entry.level == 0 for entry in made) == len(case.units) - len(done)
    for _, unit in done:
        for _, chunk in case.job.grid.chunks_of(unit):
            assert f"s0/{'/'.join(map(str, chunk))}" not in case.asked
    case.assert_as_undisturbed()


@pytest.mark.parametrize("shards", [1, 4])
def test_a_batch_that_is_begun_again_goes_on_after_its_last_finished_shard(
    case: Case, shards: int
) -> None:
    ledger = Ledger(case.store, case.job)
    assert ledger.rest_of(0, case.units) == case.units
    with pytest.raises(Killed):
        case.run(on_shard=Countdown(shards - 1, Killed()))
    assert ledger.rest_of(0, case.units) == case.units[shards:]
    (first, *_) = ledger.entries(0).values()
    staged = Path(case.store.root) / ledger.root() / first.files[0].key
    staged.unlink()
    assert ledger.rest_of(0, case.units) == case.units, "an entry without its file counts"


@pytest.mark.parametrize("after", [0, 3, 9])
def test_a_failing_source_leaves_what_is_whole_and_nothing_else(case: Case, after: int) -> None:
    case.source.objects.on_get = Countdown(after, TransportError("the network is gone"))
    with pytest.raises(TransportError, match="the network is gone"):
        case.run(limits=ConcurrencyLimits(2, 3, 2))
    assert not volume_path(case.store, case.job).exists()
    case.source.objects.on_get = lambda key: None
    case.run(limits=ConcurrencyLimits(2, 3, 2))
    case.assert_as_undisturbed()


def test_a_run_that_is_killed_between_publication_and_its_record_only_repeats_the_proof(
    case: Case,
) -> None:
    make(case.job, case.source.reader(), case.store, forget=False)
    assert volume_path(case.store, case.job).exists()
    case.asked.clear()
    made: list[LedgerEntry] = []
    finished = make(case.job, case.source.reader(), case.store, on_shard=made.append)
    assert made == []
    assert not case.asked
    assert finished.statistics.maximum == case.voxels.max()
    case.assert_as_undisturbed()


@pytest.mark.parametrize("change", ["source", "grid", "box"])
def test_a_half_of_something_else_is_discarded_and_never_mixed(case: Case, change: str) -> None:
    with pytest.raises(Killed):
        case.run(on_shard=Countdown(3, Killed()))
    old = case.source
    if change == "source":
        case.source = ZarrSource(case.voxels[:, ::-1].copy(), CHUNK)
        plan, settings = case.source.plan(etag="2"), case.settings
    elif change == "grid":
        plan, settings = old.plan(), case.settings | {"shard_mb": 0.07}
    else:
        case.source = ZarrSource(case.voxels, CHUNK, box=Box((16, 16, 32), (40, 70, 80)))
        plan, settings = case.source.plan(), case.settings
    other = a_job(plan, case.source.reader(), **settings)
    assert other.fingerprint != case.job.fingerprint
    assert other.final_key == case.job.final_key
    ledger = Ledger(case.store, other)
    assert ledger.open() is False
    assert ledger.entries() == {}
    made: list[LedgerEntry] = []
    make(other, case.source.reader(), case.store, on_shard=made.append, limits=ONE)
    assert sum(entry.level == 0 for entry in made) == len(other.grid)
    fresh = LocalStore(Path(case.store.root) / "../fresh")
    make(other, case.source.reader(), fresh, limits=ONE)
    assert _tree(Path(case.store.root)) == _tree(Path(fresh.root))


def test_what_an_archive_says_about_a_volume_does_not_discard_its_half(case: Case) -> None:
    plan = case.job.plan
    told = plan.model_copy(
        update={
            "about": plan.about.model_copy(update={"title": "another"}),
            "notes": ("a doubt",),
            "download_bytes": 5,
        }
    )
    again = case.job.model_copy(update={"plan": told})
    assert VolumeJob.model_validate(again.model_dump()).fingerprint == case.job.fingerprint


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b'{"fingerprint": 1}', b"\xff\xfe"])
def test_a_job_file_that_cannot_be_read_starts_from_nothing(case: Case, rubbish: bytes) -> None:
    with pytest.raises(Killed):
        case.run(on_shard=Countdown(2, Killed()))
    case.store.put(f"{case.job.state_key}/job.json", rubbish)
    assert Ledger(case.store, case.job).open() is False
    assert Ledger(case.store, case.job).entries() == {}
    case.run()
    case.assert_as_undisturbed()


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b"null"])
def test_an_entry_that_cannot_be_read_is_made_again(case: Case, rubbish: bytes) -> None:
    with pytest.raises(Killed):
        case.run(on_shard=Countdown(3, Killed()))
    ledger = Ledger(case.store, case.job)
    first = case.units[0]
    key = f"{case.job.state_key}/ledger/0/{'.'.join(map(str, first))}.json"
    assert case.store.size(key)
    case.store.put(key, rubbish)
    assert first in ledger.pending(0, case.units)
    case.run()
    case.assert_as_undisturbed()


def test_entries_of_another_job_count_for_nothing(case: Case) -> None:
    with pytest.raises(Killed):
        case.run(on_shard=Countdown(3, Killed()))
    ledger = Ledger(case.store, case.job)
    entry = next(iter(ledger.entries(0).values()))
    ledger.add(entry.model_copy(update={"fingerprint": "of another"}))
    assert entry.index_zyx in ledger.pending(0, case.units)


def test_an_entry_under_the_name_of_another_shard_counts_for_nothing(case: Case) -> None:
    with pytest.raises(Killed):
        case.run(on_shard=Countdown(0, Killed()))
    folder = f"{case.job.state_key}/ledger/0"
    (item,) = case.store.list(folder)
    case.store.put(f"{folder}/9.9.9.json", case.store.get(item.key))
    case.store.delete(item.key)
    assert Ledger(case.store, case.job).pending(0, case.units) == case.units


def test_a_staged_volume_that_somebody_deleted_is_made_again_as_a_whole(case: Case) -> None:
    """Else a run killed afterwards would believe the old entries about a file of zeros."""
    with pytest.raises(Killed):
        case.run(on_shard=Countdown(4, Killed()))
    staged = Path(case.store.root, case.store.staging_key(case.job.final_key))
    shutil.rmtree(staged) if staged.is_dir() else staged.unlink()
    with pytest.raises(Killed):
        case.run(on_shard=Countdown(0, Killed()))
    assert len(Ledger(case.store, case.job).entries(0)) == 1
    case.run()
    case.assert_as_undisturbed()


def test_the_published_volume_stays_until_its_successor_is_whole(case: Case) -> None:
    case.run()
    before = digests(case.store, case.job)
    newer = ZarrSource(random_voxels(SHAPE, "uint8", 12), CHUNK)
    job = a_job(newer.plan(etag="2"), newer.reader(), **case.settings)
    with pytest.raises(Killed):
        make(job, newer.reader(), case.store, on_shard=Countdown(3, Killed()), limits=ONE)
    assert digests(case.store, case.job) == before
    make(job, newer.reader(), case.store, limits=ONE)
    assert digests(case.store, job) != before


# --- stopping --------------------------------------------------------------------------------


def test_a_stop_ends_a_run_with_its_ledger_intact(case: Case) -> None:
    began, release = threading.Event(), threading.Event()

    def slow(key: str) -> None:
        if key.startswith("s0/1"):
            began.set()
            release.wait(240)  # until it is to stop: it must not end before

    case.source.objects.on_get = slow
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            case.run(limits=ConcurrencyLimits(2, 2, 2))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert began.wait(60)
    stopping.request_stop()
    release.set()
    thread.join(240)
    assert not thread.is_alive()
    assert [type(error) for error in outcome] == [StoppedError]
    ours = [t for t in threading.enumerate() if t.name.startswith(("chunks", "shards", "encode"))]
    for one in ours:  # a stop leaves them two seconds, which a busy machine may exceed
        one.join(60)
    assert not [one for one in ours if one.is_alive()]
    assert not volume_path(case.store, case.job).exists()
    done = Ledger(case.store, case.job).entries(0)
    stopping.reset()
    case.source.objects.on_get = lambda key: None
    made: list[LedgerEntry] = []
    case.run(on_shard=made.append)
    assert sum(entry.level == 0 for entry in made) == len(case.units) - len(done)
    case.assert_as_undisturbed()


def test_a_stop_before_the_first_shard_makes_nothing(case: Case) -> None:
    stopping.request_stop()
    with pytest.raises(StoppedError):
        case.run()
    assert Ledger(case.store, case.job).entries() == {}
    stopping.reset()
    case.run()
    case.assert_as_undisturbed()


# --- two at once -----------------------------------------------------------------------------

HOLD = """
import sys
from lib.storage.local import LocalStore
with LocalStore(sys.argv[1]).lock(sys.argv[2], "night run"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_the_volume(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    key = "openorganelle/volume"
    command = [sys.executable, "-c", HOLD, str(tmp_path), key]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(DestinationBusyError) as caught, store.lock(key, "day run"):
            pytest.fail("two runs hold one volume")
        assert "night run" in str(caught.value)
        assert str(other.pid) in str(caught.value)
        other.kill()
    with store.lock(key, "day run"):
        pass  # a killed holder holds nothing


def test_two_workers_share_a_volume_without_harm(tmp_path: Path) -> None:
    """Batches of one volume, in two threads that share nothing but the store."""
    voxels = random_voxels(SHAPE, "uint16", 3)
    for output_format in ("zarr", "npy"):
        store, quiet = LocalStore(tmp_path / "two"), LocalStore(tmp_path / "one")
        reader: VolumeReader = ArrayReader(voxels, CHUNK)
        job = a_job(
            a_plan(SHAPE, "uint16"),
            reader,
            output_format=output_format,
            chunk_zyx=CHUNK,
            shard_mb=0.04,
        )
        make(job, reader, quiet)
        Ledger(store, job).open()
        units = list(job.grid.shards())
        failed: list[BaseException] = []

        def part(
            units: list[ShapeZYX],
            job: VolumeJob = job,
            store: LocalStore = store,
            failed: list[BaseException] = failed,
        ) -> None:
            own = VolumeJob.model_validate_json(job.model_dump_json())
            try:
                convert(own, ArrayReader(voxels, CHUNK), LocalStore(store.root), units)
            except BaseException as error:
                failed.append(error)

        # the middle is made twice, as after a worker that was given up too early
        third = len(units) // 3
        threads = [
            threading.Thread(target=part, args=(some,))
            for some in (units[: 2 * third], units[third:])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        make_coarse_levels(job, store, limits=ONE)
        finish(job, store, max_missing_fraction=0)
        assert digests(store, job) == digests(quiet, job)


def test_a_job_is_the_same_after_it_travelled(tmp_path: Path) -> None:
    case = Case("through", tmp_path)
    travelled = VolumeJob.model_validate_json(json.dumps(case.job.model_dump(mode="json")))
    assert travelled.fingerprint == case.job.fingerprint
    assert travelled.grid == case.job.grid


def test_a_ledger_without_its_files_finishes_nothing(tmp_path: Path) -> None:
    case = Case("zarr", tmp_path)
    with pytest.raises(Killed):
        case.run(on_shard=Countdown(len(case.units) - 1, Killed()))
    shutil.rmtree(Path(case.store.root, case.store.staging_key(case.job.final_key)))
    with pytest.raises(IntegrityError):
        finish(case.job, case.store, max_missing_fraction=0)
    np.testing.assert_array_equal(case.source.truth, case.voxels)
