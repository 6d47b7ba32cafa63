"""What an earlier run left is proven before it is built on, and damaged shards are made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.errors import DestinationError, IntegrityError
from lib.geometry import ShapeZYX
from lib.storage.base import Store
from lib.storage.local import LocalStore
from lib.storage.s3 import S3Store
from lib.volumes.downsample import make_coarse_levels
from lib.volumes.engine import convert, take_over
from lib.volumes.finish import SUMS_SUFFIX, finish
from lib.volumes.grid import shard_key
from lib.volumes.job import ConcurrencyLimits, VolumeJob
from lib.volumes.ledger import Ledger
from tests.kit.volume_kit import ArrayReader, Countdown, Voxels, ZarrSource, a_job, a_plan, make

SHAPE: ShapeZYX = (140, 30, 30)  # three levels: one made with its shards, one afterwards
ONE = ConcurrencyLimits(1, 1, 1)
WAYS: dict[str, dict[str, Any]] = {
    "zarr": {"chunk_zyx": (8, 8, 8), "shard_mb": 0.01},
    "uncompressed": {"chunk_zyx": (8, 8, 8), "shard_mb": 0.01, "codec": "none"},
    "npy": {"chunk_zyx": (8, 8, 8), "shard_mb": 0.0005, "output_format": "npy"},
}


class Killed(BaseException):
    """Nothing catches this, as nothing catches SIGKILL."""


def voxels() -> Voxels:
    return np.random.default_rng(3).integers(1, 255, SHAPE, np.uint8)


class Half:
    """A volume of which some shards are made, and how it is undisturbed."""

    def __init__(self, store: Store, quiet: LocalStore, way: str, **plan: Any) -> None:
        self.store, self.asked = store, set[ShapeZYX]()
        self.reader = ArrayReader(voxels())
        self.job = a_job(a_plan(SHAPE, **plan), self.reader, **WAYS[way])
        self.units = list(self.job.grid.shards())
        make(self.job, self.reader, quiet, limits=ONE)
        self.expected = {
            item.key.removeprefix(self.job.final_key): quiet.get(item.key)
            for item in quiet.list("openorganelle")
        }

    @property
    def staged(self) -> str:
        return self.store.staging_key(self.job.final_key)

    def begin(self, shards: int) -> None:
        """A run that is killed after some shards."""
        with pytest.raises(Killed):
            make(
                self.job, self.reader, self.store, limits=ONE, on_shard=Countdown(shards, Killed())
            )

    def go_on(self) -> list[tuple[int, ShapeZYX]]:
        made: list[tuple[int, ShapeZYX]] = []
        make(
            self.job,
            self.reader,
            self.store,
            limits=ONE,
            on_shard=lambda entry: made.append((entry.level, entry.index_zyx)),
        )
        return made

    def assert_as_undisturbed(self) -> None:
        there = {
            item.key.removeprefix(self.job.final_key): self.store.get(item.key)
            for item in self.store.list("openorganelle")
        }
        assert there == self.expected


def change(store: Store, key: str, how: Callable[[bytearray], bytes | bytearray]) -> None:
    store.put(key, bytes(how(bytearray(store.get(key)))))


def flipped(data: bytearray) -> bytearray:
    data[len(data) // 2] ^= 0x80
    return data


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return LocalStore(tmp_path / "data", durable=False)
    destination = request.getfixturevalue("destination")
    return S3Store(f"s3://{destination.bucket}/{tmp_path.name}", destination.settings())


@pytest.fixture
def quiet(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "undisturbed", durable=False)


@pytest.mark.parametrize("way", ["zarr", "uncompressed"])
@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("how", [flipped, lambda data: bytes(len(data)), lambda data: data[:-1]])
def test_a_damaged_staged_shard_is_made_again_and_no_other(
    store: Store, quiet: LocalStore, way: str, level: int, how: Any
) -> None:
    half = Half(store, quiet, way)
    half.begin(5)
    done = {unit for _, unit in Ledger(store, half.job).entries(0)}
    damaged = min(done)
    change(store, f"{half.staged}/{shard_key(level, damaged)}", how)
    made = [unit for number, unit in half.go_on() if number == 0]
    assert sorted(made) == sorted({*half.units} - done | {damaged})
    half.assert_as_undisturbed()


def test_a_shard_that_was_damaged_below_a_coarse_level_takes_that_level_with_it(
    store: Store, quiet: LocalStore
) -> None:
    """The coarse shard's own digest is right: it was made from the damaged voxels."""
    half = Half(store, quiet, "uncompressed")
    take_over(half.job, store)
    convert(half.job, half.reader, store, half.units, limits=ONE)
    change(store, f"{half.staged}/{shard_key(1, half.units[2])}", flipped)
    make_coarse_levels(half.job, store, limits=ONE)
    half.go_on()
    half.assert_as_undisturbed()


@pytest.mark.parametrize("count", [1, 3, 10])
def test_rows_of_an_npy_that_were_lost_are_written_again(
    tmp_path: Path, quiet: LocalStore, count: int
) -> None:
    store = LocalStore(tmp_path / "data", durable=False)
    half = Half(store, quiet, "npy")
    assert half.job.grid.counts_zyx[1] > 1, "units share their planes"
    half.begin(11)
    lose_rows(half, half.units[4 : 4 + count])
    made = half.go_on()
    lost = {(0, unit) for unit in half.units[4 : 4 + count]}
    assert lost <= set(made)
    assert not {(0, unit) for unit in half.units[:4]} & set(made)
    half.assert_as_undisturbed()


def lose_rows(half: Half, units: Iterable[ShapeZYX]) -> None:
    """Zeros where rows were, as a power cut leaves them."""
    path = Path(half.store.local_path(half.staged) or "")
    array = np.load(path, mmap_mode="r+")
    for unit in units:
        array[half.job.box_of(unit).slices()] = 0
    array.flush()


def test_rows_that_are_lost_while_a_run_goes_on_are_not_published(
    tmp_path: Path, quiet: LocalStore
) -> None:
    """The last look: the whole file is read for its digest, and every unit is held against it."""
    store = LocalStore(tmp_path / "data", durable=False)
    half = Half(store, quiet, "npy")
    half.begin(4)
    take_over(half.job, store)
    pending = Ledger(store, half.job).pending(0, half.units)
    convert(half.job, half.reader, store, reversed(pending), limits=ONE)
    lose_rows(half, half.units[7:9])
    with pytest.raises(IntegrityError, match="the rows of 2 units") as caught:
        finish(half.job, store, max_missing_fraction=0)
    assert "Run again" in caught.value.advice
    assert store.size(half.job.final_key) is None
    assert store.size(half.job.final_key + SUMS_SUFFIX) is None
    assert half.go_on() == [(0, unit) for unit in half.units[7:9]]
    half.assert_as_undisturbed()


def test_entries_of_an_npy_without_a_checksum_are_not_believed(
    tmp_path: Path, quiet: LocalStore
) -> None:
    """An earlier version wrote none."""
    store = LocalStore(tmp_path / "data", durable=False)
    half = Half(store, quiet, "npy")
    half.begin(4)
    ledger = Ledger(store, half.job)
    for entry in ledger.known():
        ledger.add(entry.model_copy(update={"crc32": None}))
    assert len(half.go_on()) == len(half.units)
    half.assert_as_undisturbed()


@pytest.mark.parametrize("way", ["zarr", "npy"])
def test_a_volume_that_was_damaged_after_publication_is_mended_where_it_was_made(
    tmp_path: Path, quiet: LocalStore, way: str
) -> None:
    """Killed before its record was complete, so that its ledger is still there."""
    store = LocalStore(tmp_path / "data", durable=False)
    half = Half(store, quiet, way)
    make(half.job, half.reader, store, limits=ONE, forget=False)
    key = half.job.final_key
    change(store, key if way == "npy" else f"{key}/0/c/1/0/0", flipped)
    made = [unit for level, unit in half.go_on() if level == 0]
    assert len(made) == 1
    half.assert_as_undisturbed()


def test_a_volume_of_before_is_not_taken_for_a_half_of_its_successor(
    tmp_path: Path, quiet: LocalStore
) -> None:
    """The half's folder was deleted; what is under the final name stays until it is replaced."""
    store = LocalStore(tmp_path / "data", durable=False)
    before = Half(store, quiet, "zarr", etag="0")
    make(before.job, before.reader, store, limits=ONE)
    half = Half(store, quiet, "zarr")
    half.begin(3)
    store.delete_tree(half.staged)
    take_over(half.job, store)
    assert store.size(f"{half.job.final_key}/zarr.json") is not None
    half.go_on()
    half.assert_as_undisturbed()


def test_a_store_that_is_away_costs_no_finished_shard(tmp_path: Path, quiet: LocalStore) -> None:
    class Away(LocalStore):
        away = False

        def get_range(self, key: str, start: int, length: int) -> bytes:
            if self.away and "/c/" in key:
                raise DestinationError("the server does not answer", location=key)
            return super().get_range(key, start, length)

    store = Away(tmp_path / "data", durable=False)
    half = Half(store, quiet, "zarr")
    half.begin(5)
    store.away = True
    with pytest.raises(DestinationError, match="does not answer"):
        take_over(half.job, store)
    store.away = False
    assert take_over(half.job, store) == []


def test_a_block_of_the_disk_that_cannot_be_read_is_damage(
    tmp_path: Path, quiet: LocalStore
) -> None:
    class Rotten(LocalStore):
        def get_range(self, key: str, start: int, length: int) -> bytes:
            if key.endswith("0/c/1/0/0"):
                raise DestinationError("cannot read", location=key) from OSError(5, "EIO")
            return super().get_range(key, start, length)

    half = Half(LocalStore(tmp_path / "data", durable=False), quiet, "zarr")
    half.begin(5)
    damaged = take_over(half.job, Rotten(tmp_path / "data", durable=False))
    assert [entry.index_zyx for entry in damaged] == [(1, 0, 0)]
    half.go_on()
    half.assert_as_undisturbed()


def test_chunks_that_pass_through_are_proven_alike(tmp_path: Path) -> None:
    source = ZarrSource(voxels(), (16, 16, 32))
    store, quiet = LocalStore(tmp_path / "a", durable=False), LocalStore(tmp_path / "b")
    job: VolumeJob = a_job(source.plan(), source.reader(), shard_mb=0.033)
    assert job.pass_through
    made = make(job, source.reader(), quiet)
    with pytest.raises(Killed):
        make(job, source.reader(), store, limits=ONE, on_shard=Countdown(2, Killed()))
    change(store, f"{store.staging_key(job.final_key)}/0/c/0/0/0", flipped)
    assert make(job, source.reader(), store) == made
