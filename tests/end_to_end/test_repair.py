"""`macroscope verify --repair`, and a run after verify, make right what is damaged, no more."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from emulators.serving import Samples
from lib.storage.base import Store, StoreSettings
from lib.storage.local import LocalStore
from tests.end_to_end.bucket import Bucket
from tests.end_to_end.conftest import Command
from tests.faults.bench import Bench, Ended
from tests.kit.restored import restored

Damage = Callable[[Store, str], None]

ORGANELLE = "openorganelle"  # four shards of level 0, each with one of level 1; nothing is kept raw
WHOLE = "idr"  # one raw file, which is kept
STACK = "ebi"  # three raw files


@dataclass
class Place:
    """A volume in a folder or a bucket, and how a command finds it."""

    bench: Bench
    store: Store
    environment: dict[str, str]
    bucket: Bucket | None

    def files(self) -> dict[str, str]:
        """Key -> sha256 of everything but records and the notes beside raw files."""
        return {
            item.key: hashlib.sha256(self.store.get(item.key)).hexdigest()
            for item in self.store.list()
            if "/metadata_" not in item.key and "/.fetched/" not in item.key
        }

    def one(self, pattern: str) -> str:
        (key,) = (key for key in self.files() if Path(key).match(pattern))
        return key

    def record(self) -> dict[str, Any]:
        (key,) = (i.key for i in self.store.list() if "/metadata_" in i.key)
        return dict(json.loads(self.store.get(key)))

    @contextmanager
    def touching_only(self, keys: set[str]) -> Iterator[None]:
        """No other file than these, the record, a lease and notes is written in the block."""
        if self.bucket is not None:
            self.bucket.forget()
            yield
            lines = self.bucket.control.counters.log("destination")
            start = f"/{self.bucket.server.bucket}/{self.bucket.prefix}/"
            written = {
                unquote(line.path.partition("?")[0]).removeprefix(start)
                for line in lines
                if line.method in ("PUT", "POST", "DELETE")
            } - {f"/{self.bucket.server.bucket}/"}  # a lease that ends
        else:
            before = self._states()
            yield
            after = self._states()
            written = {key for key in before | after if before.get(key) != after.get(key)}
        others = ("/metadata_", "/.locks/", "/.fetched/", "/.partial/")
        assert {key for key in written if not any(part in key for part in others)} == keys

    def _states(self) -> dict[str, tuple[int, int]]:
        states = {}
        for item in self.store.list():
            state = os.stat(self.store.local_path(item.key) or "")
            states[item.key] = (state.st_ino, state.st_mtime_ns)
        return states


# Each case is several commands; buckets, and what is damaged in a further way, are tried after.
@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.long)])
def place_of(
    request: pytest.FixtureRequest, samples: Samples, tmp_path: Path
) -> Callable[..., Place]:
    """Makes a volume of a source, with settings."""

    def make(source: str, **settings: Any) -> Place:
        kept = {k: v for k, v in settings.items() if k != "at"}
        if request.param == "folder" or settings.get("at") == "folder":
            bench = Bench(samples, tmp_path, source, **kept)
            place = Place(bench, bench.store(), {}, None)
        else:
            bucket: Bucket = request.getfixturevalue("bucket")
            quick = bucket.settings()
            bench = Bench(samples, tmp_path, source, uri=bucket.uri, store_settings=quick, **kept)
            place = Place(bench, bench.store(), bucket.environment(), bucket)
        ended = bench.run()
        assert ended.complete, ended.errors
        return place

    return make


def flip(store: Store, key: str) -> None:
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 0x80
    store.put(key, bytes(data))


def remove(store: Store, key: str) -> None:
    store.delete(key)


def cut(store: Store, key: str) -> None:
    store.put(key, store.get(key)[:-1])


def zeros(store: Store, key: str) -> None:
    store.put(key, bytes(len(store.get(key))))


CASES = [
    (ORGANELLE, "*.ome.zarr/0/c/0/1/0", flip, "source"),
    (ORGANELLE, "*.ome.zarr/1/c/0/1/0", zeros, "finer level"),
    (ORGANELLE, "*.ome.zarr/zarr.json", flip, "record"),
    (ORGANELLE, "*.SHA256SUMS", remove, "volume"),
    (WHOLE, "downloads/*/*.tif", flip, "source"),
]
FURTHER_CASES = [
    (ORGANELLE, "*.ome.zarr/0/c/0/0/1", remove, "source"),
    (ORGANELLE, "*.ome.zarr/0/c/0/1/1", cut, "source"),
    (ORGANELLE, "*.ome.zarr/1/zarr.json", flip, "record"),
    (ORGANELLE, "*.ome.zarr/0/zarr.json", remove, "record"),
    (ORGANELLE, "*.ome.zarr/thumbnails/xy.jpg", flip, "volume"),
    (ORGANELLE, "*.SHA256SUMS", flip, "volume"),
    (ORGANELLE, "*.preview.png", remove, "volume"),
    (STACK, "downloads/*/*_slice_0001.dm3", remove, "source"),
    (STACK, "*.ome.zarr/0/c/0/0/0", flip, "source"),
]


@pytest.mark.parametrize(
    ("source", "pattern", "damage", "origin"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.long) for case in FURTHER_CASES)],
)
def test_one_damaged_file_is_made_anew_and_no_other(
    macroscope_here: Command,
    place_of: Callable[..., Place],
    source: str,
    pattern: str,
    damage: Damage,
    origin: str,
) -> None:
    place = place_of(source)
    before, key = place.files(), place.one(pattern)
    damage(place.store, key)
    assert place.files() != before
    with place.touching_only({key}):
        done = macroscope_here("verify", "--repair", **place.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 file made anew" in done.stdout and f"{key} (from: {origin})" in done.stdout
    assert place.files() == before
    record = place.record()
    (repair,) = record["metadata"]["provenance"]["repairs"]
    assert repair["files"] == {key: origin}
    assert repair["by"] == "macroscope verify --repair"
    assert (record["status"], record["metadata"]["quality"]["damaged"]) == ("complete", [])
    assert macroscope_here("verify", "--deep", **place.environment).returncode == 0


def test_everything_at_once_is_made_right(
    macroscope_here: Command, place_of: Callable[..., Place]
) -> None:
    place = place_of(STACK)
    before = place.files()
    for key in before:
        if not key.endswith(".SHA256SUMS"):
            flip(place.store, key)
    done = macroscope_here("verify", "--repair", "--json", **place.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(done.stdout)["records"]
    assert set(row["repaired"]) == {key for key in before if not key.endswith(".SHA256SUMS")}
    assert place.files() == before


@pytest.mark.parametrize("source", [WHOLE, STACK])
def test_an_npy_is_made_anew(
    macroscope_here: Command, place_of: Callable[..., Place], source: str
) -> None:
    place = place_of(source, at="folder", output_format="npy")
    before = place.files()
    flip(place.store, place.one("*.npy"))
    with place.touching_only({place.one("*.npy")}):
        done = macroscope_here("verify", "--repair", str(place.store.uri))
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.files() == before


def test_a_coarse_level_needs_no_archive(
    macroscope_here: Command, place_of: Callable[..., Place], samples: Samples
) -> None:
    place = place_of(ORGANELLE)
    before = place.files()
    for key in before:
        if "/1/c/" in key:
            remove(place.store, key)
    samples.control.clear()
    done = macroscope_here("verify", "--repair", **place.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 files made anew: 4 from a finer level" in done.stdout
    assert place.files() == before
    assert samples.control.counters.log("s3") == []


def test_a_box_and_other_settings_of_the_run_are_the_record_s_own(
    macroscope_here: Command, place_of: Callable[..., Place]
) -> None:
    """Nothing in today's environment says which part of which image the volume is."""
    place = place_of(WHOLE, box="z=2:9,y=5:60,x=0:64", codec="blosc", chunk_zyx=(4, 16, 32))
    before = place.files()
    flip(place.store, place.one("*.ome.zarr/0/c/0/0/0"))
    done = macroscope_here("verify", "--repair", **place.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.files() == before


# --- a run after verify -----------------------------------------------------------------------


def test_a_run_after_verify_makes_only_what_is_damaged(
    macroscope_here: Command, place_of: Callable[..., Place]
) -> None:
    place = place_of(ORGANELLE)
    before, key = place.files(), place.one("*.ome.zarr/0/c/0/1/0")
    flip(place.store, key)
    kept = place.bench.run()
    assert kept.complete and not kept.results[0].made, "a flipped bit is not in a listing"
    done = macroscope_here("verify", "--deep", **place.environment)
    assert done.returncode == 1
    assert place.record()["metadata"]["quality"]["damaged"] == [key]
    quick = macroscope_here("verify", "--quick", **place.environment)
    assert quick.returncode == 1 and "found damaged before" in quick.stdout
    with place.touching_only({key}):
        ended = place.bench.run()
    assert ended.complete, ended.errors
    assert (ended.shards_made, ended.results[0].repaired_files) == (0, 1)
    assert place.files() == before
    assert macroscope_here("verify", "--deep", **place.environment).returncode == 0
    again = place.bench.run()
    assert again.complete and not again.results[0].made


def test_a_run_makes_an_absent_shard_anew_and_keeps_the_others(
    place_of: Callable[..., Place],
) -> None:
    place = place_of(ORGANELLE)
    before, key = place.files(), place.one("*.ome.zarr/0/c/0/1/0")
    remove(place.store, key)
    with place.touching_only({key}):
        ended = place.bench.run()
    assert ended.complete, ended.errors
    assert (ended.shards_made, ended.results[0].repaired_files) == (0, 1)
    assert place.files() == before


def test_what_cannot_be_repaired_is_made_anew_by_a_run(
    macroscope_here: Command, place_of: Callable[..., Place]
) -> None:
    """Without its list nothing says which file is damaged, nor whether one is."""
    place = place_of(ORGANELLE)
    before = place.files()
    remove(place.store, place.one("*.SHA256SUMS"))
    flip(place.store, place.one("*.ome.zarr/0/c/0/1/0"))
    damaged = place.files()
    done = macroscope_here("verify", "--repair", **place.environment)
    assert done.returncode == 1
    assert "the list of digests is lost" in done.stdout and "Run again" in done.stdout
    assert place.files() == damaged
    ended = place.bench.run()
    assert ended.complete and ended.shards_made == 4
    assert place.files() == before


def test_a_damaged_staged_shard_does_not_fail_every_further_run(
    samples: Samples, tmp_path: Path
) -> None:
    bench = Bench(samples, tmp_path, ORGANELLE)
    samples.control.clear()
    samples.control.add(service="s3", match=r"s1/0/1/1", kind="status_403")
    half = bench.run(max_workers=1)
    samples.control.clear()
    assert half.errors and half.shards_made > 0
    staged = sorted(tmp_path.glob("data/openorganelle/.partial/*/*.ome.zarr/0/c/*/*/*"))
    data = bytearray(staged[0].read_bytes())
    data[len(data) // 2] ^= 0x80
    staged[0].write_bytes(bytes(data))
    ended = bench.run()
    assert ended.complete, ended.errors
    assert ended.shards_made == 4 - half.shards_made + 1
    (plan,) = ended.plans
    assert bench.problems(plan) == []
    notes = bench.record(plan)["metadata"]["quality"]["notes"]
    assert "1 shards of an earlier run were damaged and made again" in notes


# --- sources that are others now --------------------------------------------------------------


@contextmanager
def changed(samples: Samples, pattern: str, *, secretly: bool = False) -> Iterator[None]:
    """A file of the archive with other voxels; ``secretly``: of the same size and date."""
    (path,) = samples.root.rglob(pattern)
    modified = path.stat().st_mtime
    with restored(path) as content:
        data = bytearray(content)
        data[len(data) // 2] ^= 0x55
        path.write_bytes(bytes(data))
        if secretly:
            os.utime(path, (modified, modified))
        yield


@pytest.mark.parametrize(
    ("secretly", "says"),
    [(False, "is not the one that the volume was made from"), (True, "is not byte for byte")],
)
@pytest.mark.parametrize("pattern", ["*.ome.zarr/0/c/0/0/0", "downloads/*/*.tif"])
def test_a_source_that_changed_meanwhile_is_named_and_nothing_is_touched(
    macroscope_here: Command,
    place_of: Callable[..., Place],
    samples: Samples,
    secretly: bool,
    says: str,
    pattern: str,
) -> None:
    place = place_of(WHOLE)
    before = place.files()
    flip(place.store, place.one("downloads/*/*.tif"))
    key = place.one(pattern)
    if "downloads" not in pattern:
        flip(place.store, key)
    damaged = place.files()
    with changed(samples, Path(place.one("downloads/*/*.tif")).name, secretly=secretly):
        with place.touching_only(set()):
            done = macroscope_here("verify", "--repair", **place.environment)
        assert done.returncode == 1
        assert "not repaired" in done.stdout and says in done.stdout
        assert place.files() == damaged
    done = macroscope_here("verify", "--repair", **place.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.files() == before


def test_an_archive_that_is_away_costs_nothing(
    macroscope_here: Command, place_of: Callable[..., Place], samples: Samples
) -> None:
    place = place_of(WHOLE)
    before = place.files()
    flip(place.store, place.one("downloads/*/*.tif"))
    flip(place.store, place.one("*.ome.zarr/0/c/0/0/0"))
    damaged = place.files()
    samples.control.add(service="omero", match="", kind="status_403")
    done = macroscope_here("verify", "--repair", **place.environment)
    samples.control.clear()
    assert done.returncode == 1 and "not repaired" in done.stdout
    assert place.files() == damaged
    assert macroscope_here("verify", "--repair", **place.environment).returncode == 0
    assert place.files() == before


# --- the rest ---------------------------------------------------------------------------------


def test_a_file_that_does_not_belong_is_left_alone_and_named(
    macroscope_here: Command, place_of: Callable[..., Place]
) -> None:
    place = place_of(ORGANELLE)
    root = place.one("*.ome.zarr/zarr.json").rpartition("/")[0]
    place.store.put(f"{root}/0/mine.txt", b"somebody's own")
    flip(place.store, f"{root}/0/c/0/0/0")
    done = macroscope_here("verify", "--repair", **place.environment)
    assert done.returncode == 1
    assert "1 file made anew" in done.stdout and "do not belong there" in done.stdout
    assert place.store.get(f"{root}/0/mine.txt") == b"somebody's own"


def test_damage_that_somebody_mended_is_forgotten(
    macroscope_here: Command, place_of: Callable[..., Place]
) -> None:
    place = place_of(ORGANELLE)
    key = place.one("*.ome.zarr/0/c/0/0/0")
    good = place.store.get(key)
    flip(place.store, key)
    assert macroscope_here("verify", "--deep", **place.environment).returncode == 1
    place.store.put(key, good)
    assert macroscope_here("verify", "--deep", **place.environment).returncode == 1
    with place.touching_only(set()):
        done = macroscope_here("verify", "--repair", **place.environment)
    assert done.returncode == 0 and "nothing made anew" in done.stdout
    assert macroscope_here("verify", "--quick", **place.environment).returncode == 0


def test_a_volume_that_a_run_works_on_is_left_to_it(
    macroscope_here: Command, place_of: Callable[..., Place]
) -> None:
    place = place_of(ORGANELLE)
    key = place.one("*.ome.zarr/0/c/0/0/0")
    flip(place.store, key)
    damaged, record = place.files(), place.record()
    name = f"{record['source']}/{record['name']}"
    with place.bench.store().lock(name, "another run"):
        noted = macroscope_here("verify", "--deep", **place.environment)
        mended = macroscope_here("verify", "--repair", **place.environment)
    assert noted.returncode == mended.returncode == 1
    assert "could not be noted" in noted.stdout and "another run" in noted.stdout
    assert "not repaired" in mended.stdout and "another run" in mended.stdout
    assert (place.files(), place.record()) == (damaged, record)


def test_one_volume_that_cannot_be_repaired_keeps_no_other_from_it(
    macroscope_here: Command, samples: Samples, tmp_path: Path
) -> None:
    made: list[Ended] = [
        Bench(samples, tmp_path, source, store_settings=StoreSettings(durable=False)).run()
        for source in (WHOLE, ORGANELLE)
    ]
    assert all(ended.complete for ended in made)
    store = LocalStore(tmp_path / "data", durable=False)
    (lost,) = tmp_path.glob("data/idr/*.SHA256SUMS")
    lost.unlink()
    (shard,) = tmp_path.glob("data/idr/*.ome.zarr/0/c/0/0/0")
    flip(store, str(shard.relative_to(store.root)))
    (other,) = tmp_path.glob("data/openorganelle/*.ome.zarr/0/c/0/0/0")
    flip(store, str(other.relative_to(store.root)))
    done = macroscope_here("verify", "--repair")
    assert done.returncode == 1
    assert "2 records, 1 with problems" in done.stdout
    assert macroscope_here("verify", "--source", "openorganelle").returncode == 0


def test_repair_reads_every_byte(macroscope_here: Command, tmp_path: Path) -> None:
    done = macroscope_here("verify", "--repair", "--quick")
    assert done.returncode == 2 and "--quick" in done.stderr


def test_a_damaged_volume_is_not_catalogued(
    macroscope_here: Command, samples: Samples, tmp_path: Path
) -> None:
    from lib.records.catalogue import consolidate

    assert Bench(samples, tmp_path, WHOLE).run().complete
    store = LocalStore(tmp_path / "data", durable=False)
    assert consolidate(store, LocalStore(tmp_path / "a")).invalid == 0
    (shard,) = tmp_path.glob("data/idr/*.ome.zarr/0/c/0/0/0")
    flip(store, str(shard.relative_to(store.root)))
    assert macroscope_here("verify").returncode == 1
    found = consolidate(store, LocalStore(tmp_path / "b"))
    assert (found.valid, found.invalid) == (0, 1)
    shutil.rmtree(tmp_path / "a")
