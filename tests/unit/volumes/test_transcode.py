"""Chunks that are passed through give the same volume as chunks that are decoded and encoded."""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from emulators import catalogue
from emulators.control import Control
from emulators.serving import Samples
from lib.archives.openorganelle.archive import OpenOrganelle
from lib.compression import DEFLATED, read_by_all
from lib.errors import FormatError, TransportError
from lib.geometry import Box
from lib.rawfiles.files import RawFiles
from lib.storage.local import LocalStore
from lib.transport.limits import Limits
from lib.transport.session import Session
from lib.volumes.finish import PublishedVolume
from lib.volumes.job import ConcurrencyLimits, VolumeJob
from lib.volumes.ledger import Ledger
from tests.kit.volume_kit import (
    ZarrSource,
    a_job,
    assert_pyramid,
    make,
    random_voxels,
    read_levels,
    volume_path,
)

CHUNK = (16, 24, 32)
SHAPE = (40, 70, 80)
HTML = b"<!DOCTYPE html><html><body>Service Unavailable</body></html>"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "data", durable=False)


def both_ways(
    source: ZarrSource, store: LocalStore, **plan: Any
) -> tuple[tuple[VolumeJob, PublishedVolume], tuple[VolumeJob, PublishedVolume]]:
    """Convert through the chunk pass, and through the block pass on the same grid."""
    made = []
    through = {"codec": "source"} if source.reader().codec.config["id"] in DEFLATED else {}
    for name, settings in (("through", through), ("blocks", {"codec": "zstd", "chunk_zyx": CHUNK})):
        reader = source.reader()
        job = a_job(source.plan(name=name, **plan), reader, shard_mb=0.3, **settings)
        assert job.pass_through == (name == "through")
        made.append((job, make(job, reader, store, max_missing_fraction=1.0)))
    return made[0], made[1]


@pytest.mark.parametrize("codec", ["zstd", "blosc", "gzip", "zlib"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "uint64"])
def test_both_ways_lead_to_the_same_volume(store: LocalStore, codec: str, dtype: str) -> None:
    source = ZarrSource(random_voxels(SHAPE, dtype), CHUNK, codec=codec)
    (through, one), (blocks, other) = both_ways(source, store)
    first, second = (read_levels(volume_path(store, job)) for job in (through, blocks))
    np.testing.assert_array_equal(first[0], source.truth)
    assert_pyramid(first, through)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.statistics == other.statistics
    assert one.completeness == other.completeness == 1.0


def test_the_stored_chunks_are_the_archives_own_bytes(store: LocalStore) -> None:
    source = ZarrSource(random_voxels(SHAPE, "uint8"), CHUNK, codec="blosc")
    (job, _), _ = both_ways(source, store)
    shards = b"".join(f.read_bytes() for f in volume_path(store, job).glob("0/c/*/*/*"))
    assert len(source.objects.data) == 3 * 3 * 3
    assert all(data in shards for data in source.objects.data.values())


@pytest.mark.parametrize("codec", ["gzip", "zlib"])
def test_deflated_chunks_stay_where_that_is_asked_for(store: LocalStore, codec: str) -> None:
    source = ZarrSource(random_voxels(SHAPE, "uint8"), CHUNK, codec=codec)
    reader = source.reader()
    assert not a_job(source.plan(), reader).pass_through, "they are slow to read"
    job = a_job(source.plan(), reader, codec="source")
    make(job, reader, store)
    shards = b"".join(f.read_bytes() for f in volume_path(store, job).glob("0/c/*/*/*"))
    streams = [
        data[10:-8] if codec == "gzip" else data[2:-4] for data in source.objects.data.values()
    ]
    assert len(streams) == 27
    assert all(stream in shards for stream in streams)


@pytest.mark.parametrize("rest", [b"\0", b"more"])
def test_a_deflated_chunk_that_goes_on_after_its_stream_is_damaged(
    store: LocalStore, rest: bytes
) -> None:
    """Readers of gzip differ over what follows."""
    source = ZarrSource(random_voxels(SHAPE, "uint8"), CHUNK, codec="gzip")
    key = sorted(source.objects.data)[5]
    source.objects.data[key] += rest
    job = a_job(source.plan(), source.reader(), codec="source")
    with pytest.raises(FormatError, match="does not end with its stream"):
        make(job, source.reader(), store)
    assert_nothing_made(store, job)


def test_the_next_shard_is_asked_for_while_the_last_chunk_of_one_travels(
    store: LocalStore,
) -> None:
    """And no shard more: what is begun is held in memory."""
    source = ZarrSource(random_voxels(SHAPE, "uint8"), CHUNK)
    job = a_job(source.plan(), source.reader(), shard_mb=0.1)
    shards = [*job.grid.shards()]
    shard_of = {
        "/".join(map(str, index)): number
        for number, shard in enumerate(shards)
        for _, index in job.grid.chunks_of(shard)
    }
    left, next_asked, ended = Counter(shard_of.values()), threading.Event(), list[bool]()
    lock, begun = threading.Lock(), set[int]()

    def on_get(key: str) -> None:
        number = shard_of[key.removeprefix("s0/")]
        with lock:
            left[number] -= 1
            begun.add(number)
            # this one is not written, so that one beside it may be
            assert len({one for one in begun if left[one]} | {number}) <= 2
            last_of_first = (number, left[number]) == (0, 0)
        if number == 1:
            next_asked.set()
        if last_of_first:
            ended.append(next_asked.wait(60))

    source.objects.on_get = on_get
    limits = ConcurrencyLimits(workers=2, connections=4, shards=1)
    assert len(shards) > 2
    make(job, source.reader(), store, limits=limits)
    assert ended == [True]
    np.testing.assert_array_equal(read_levels(volume_path(store, job))[0], source.truth)


@pytest.mark.parametrize("fill", [0, 7])
@pytest.mark.parametrize("kind", ["image", "labels"])
def test_holes_are_named_and_read_as_fill_value_both_ways(
    store: LocalStore, fill: int, kind: str
) -> None:
    holes = [(0, 0, 0), (1, 2, 1), (2, 2, 2)]
    voxels = random_voxels(SHAPE, "uint16", labels=kind == "labels")
    source = ZarrSource(voxels, CHUNK, holes=holes, fill=fill)
    (through, one), (blocks, other) = both_ways(source, store, kind=kind)
    assert one.missing_chunks == other.missing_chunks == ("0/0/0", "1/2/1", "2/2/2")
    assert one.completeness == other.completeness == pytest.approx(1 - 3 / 27)
    assert one.statistics == other.statistics
    first, second = (read_levels(volume_path(store, job)) for job in (through, blocks))
    np.testing.assert_array_equal(first[0], source.truth)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    array = zarr.open_array(volume_path(store, through) / "0", mode="r")
    assert array.fill_value == fill


@pytest.mark.parametrize(
    ("box", "aligned"),
    [
        (Box((16, 24, 32), (40, 70, 80)), True),
        (Box((16, 0, 32), (31, 50, 79)), True),  # only where it begins matters
        (Box((15, 24, 32), (40, 70, 80)), False),
        (Box((0, 0, 1), (40, 70, 2)), False),
    ],
)
def test_a_box_is_cut_out_exactly_whether_or_not_it_lies_on_the_chunks(
    store: LocalStore, box: Box, aligned: bool
) -> None:
    source = ZarrSource(random_voxels(SHAPE, "uint8"), CHUNK, holes=[(1, 1, 1)], box=box)
    reader = source.reader()
    assert reader.pass_through == aligned
    job = a_job(source.plan(), reader, shard_mb=0.3)
    assert job.pass_through == aligned
    finished = make(job, reader, store, max_missing_fraction=1.0)
    levels = read_levels(volume_path(store, job))
    np.testing.assert_array_equal(levels[0], source.truth)
    assert_pyramid(levels, job)
    assert finished.statistics.minimum == source.truth.min()
    assert finished.missing_chunks == (("1/1/1",) if box.stop_zyx[2] > 32 else ())


@pytest.mark.parametrize(
    "habits",
    [
        {"codec": "gzip"},
        {"codec": "zlib"},
        {"codec": "lz4"},
        {"codec": "none"},
        {"big_endian": True},
        {"big_endian": True, "codec": "blosc"},
        {"order": "F"},
        {"order": "F", "codec": "gzip", "big_endian": True},
        {"separator": "."},
        {"separator": ".", "codec": "blosc"},
    ],
    ids=str,
)
@pytest.mark.parametrize("axes", [2, 3])
def test_every_habit_of_zarr_v2_is_read(
    store: LocalStore, habits: dict[str, Any], axes: int
) -> None:
    source = ZarrSource(
        random_voxels(SHAPE, "int16")[0 if axes == 2 else ...], CHUNK[3 - axes :], **habits
    )
    reader = source.reader()
    fits = (
        axes == 3
        and set(habits) <= {"separator", "codec"}
        and habits.get("codec") in (None, "blosc", *DEFLATED)
    )
    assert reader.pass_through == fits
    job = a_job(source.plan(), reader, shard_mb=0.3)
    make(job, reader, store)
    levels = read_levels(volume_path(store, job))
    np.testing.assert_array_equal(levels[0], source.truth)
    assert_pyramid(levels, job)


@pytest.mark.parametrize("codec", ["zstd", "blosc"])
def test_an_array_smaller_than_its_chunk_is_passed_through(store: LocalStore, codec: str) -> None:
    for number, shape in enumerate([(1, 1, 1), (5, 24, 31), (1, 70, 80)]):
        source = ZarrSource(random_voxels(shape, "uint8"), CHUNK, codec=codec)
        reader = source.reader()
        job = a_job(source.plan(name=f"v{number}"), reader, shard_mb=0.3)
        assert job.pass_through
        make(job, reader, store, allow_empty=True)
        levels = read_levels(volume_path(store, job))
        np.testing.assert_array_equal(levels[0], source.truth)
        assert_pyramid(levels, job)


@pytest.mark.parametrize("chunk", [(1, 32, 32), (9, 32, 32)])
def test_chunks_of_odd_edges_are_passed_through_with_a_right_pyramid(
    store: LocalStore, chunk: tuple[int, int, int]
) -> None:
    source = ZarrSource(random_voxels((36, 70, 80), "uint8"), chunk)
    reader = source.reader()
    job = a_job(source.plan(), reader, shard_mb=0.3)
    assert job.pass_through
    make(job, reader, store)
    levels = read_levels(volume_path(store, job))
    np.testing.assert_array_equal(levels[0], source.truth)
    assert_pyramid(levels, job)


# --- damage ----------------------------------------------------------------------------------


def _half_as_many(data: bytes, codec: str) -> bytes:
    made = numcodecs.get_codec({"id": codec})
    voxels = np.zeros(int(np.prod(CHUNK)) // 2, np.uint8)
    return bytes(made.encode(voxels))


def _twice_as_many(data: bytes, codec: str) -> bytes:
    made = numcodecs.get_codec({"id": codec})
    return bytes(made.encode(np.zeros(int(np.prod(CHUNK)) * 2, np.uint8)))


DAMAGE: dict[str, Callable[[bytes, str], bytes]] = {
    "cut": lambda data, codec: data[: len(data) // 2],
    "one byte short": lambda data, codec: data[:-1],
    "header only": lambda data, codec: data[:16],
    "one byte": lambda data, codec: data[:1],
    "empty": lambda data, codec: b"",
    "garbage": lambda data, codec: bytes(range(256)) * 40,
    "html": lambda data, codec: HTML,
    "html as long": lambda data, codec: (HTML * 1000)[: len(data)],
    "too few voxels": _half_as_many,
    "too many voxels": _twice_as_many,
}


def _without_size(frame: bytes) -> bytes:
    """The same frame as a stream's: a window of 16 MB and no content size (RFC 8878, 3.1.1.1)."""
    descriptor = frame[4]
    assert descriptor >> 5 & 1, "one segment, without a window"
    width = (1, 2, 4, 8)[descriptor >> 6]
    return frame[:4] + bytes([descriptor & 0b100, 14 << 3]) + frame[5 + width :]


def assert_nothing_made(store: LocalStore, job: VolumeJob) -> None:
    assert not volume_path(store, job).exists()
    assert not Path(f"{volume_path(store, job)}.SHA256SUMS").exists()


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("codec", ["zstd", "blosc", "gzip", "zlib", "lz4"])
def test_a_damaged_chunk_is_named_and_nothing_is_published(
    store: LocalStore, codec: str, damage: str
) -> None:
    source = ZarrSource(random_voxels((16, 30, 60), "uint8"), CHUNK, codec=codec)
    key = "s0/0/1/0"
    source.objects.data[key] = DAMAGE[damage](source.objects.data[key], codec)
    for way, settings in enumerate(({}, {"codec": "none"}, {"codec": "source"})):
        reader = source.reader()
        job = a_job(source.plan(name=f"way{way}"), reader, shard_mb=0.03, **settings)
        with pytest.raises(FormatError) as caught:
            make(job, reader, store)
        assert caught.value.unit == "chunk 0/1/0"
        assert_nothing_made(store, job)


@pytest.mark.parametrize("length", [0, 1, 2, 100, 16 * 24 * 32 - 1, 16 * 24 * 32 + 1])
def test_an_uncompressed_chunk_of_another_length_is_damaged(store: LocalStore, length: int) -> None:
    source = ZarrSource(random_voxels((16, 30, 60), "uint8"), CHUNK, codec="none")
    source.objects.data["s0/0/1/0"] = b"\x07" * length
    job = a_job(source.plan(), source.reader())
    with pytest.raises(FormatError) as caught:
        make(job, source.reader(), store)
    assert caught.value.unit == "chunk 0/1/0"
    assert_nothing_made(store, job)


def test_a_declared_size_is_not_believed_before_memory_is_taken(store: LocalStore) -> None:
    """A frame that says it holds a terabyte costs an error, not a terabyte."""
    source = ZarrSource(random_voxels((16, 30, 60), "uint8"), CHUNK)
    frame = bytearray(b"\x28\xb5\x2f\xfd\xe0") + (2**40).to_bytes(8, "little") + b"\x01\x00\x00"
    source.objects.data["s0/0/0/0"] = bytes(frame)
    job = a_job(source.plan(), source.reader())
    with pytest.raises(FormatError, match=str(2**40)):
        make(job, source.reader(), store)


def test_a_gzip_bomb_is_cut_off(store: LocalStore) -> None:
    source = ZarrSource(random_voxels((16, 30, 60), "uint8"), CHUNK, codec="gzip")
    source.objects.data["s0/0/0/0"] = gzip.compress(bytes(64 * 2**20))
    job = a_job(source.plan(), source.reader())
    with pytest.raises(FormatError):
        make(job, source.reader(), store)


def test_a_zstd_frame_that_hides_its_size_is_read_all_the_same(store: LocalStore) -> None:
    source = ZarrSource(random_voxels(SHAPE, "uint8"), CHUNK)
    for key, data in source.objects.data.items():
        source.objects.data[key] = _without_size(data)
    (through, _), _ = both_ways(source, store)
    np.testing.assert_array_equal(read_levels(volume_path(store, through))[0], source.truth)
    # zarr 3.0 with numcodecs 0.15 takes the size from the frame: such frames are made anew
    shards = b"".join(f.read_bytes() for f in volume_path(store, through).glob("0/c/*/*/*"))
    assert not any(data in shards for data in source.objects.data.values())
    for number in range(len(through.levels)):
        for frame in _frames(volume_path(store, through) / str(number)):
            assert read_by_all({"id": "zstd"}, frame)


def _frames(level: Path) -> list[bytes]:
    """The stored chunks of all shards of a level, found by their magic number."""
    shards = (file.read_bytes() for file in level.glob("c/*/*/*"))
    return [MAGIC + part for shard in shards for part in shard.split(MAGIC)[1:]]


MAGIC = b"\x28\xb5\x2f\xfd"


@pytest.mark.parametrize("fill", [float("nan"), float("inf"), float("-inf")])
def test_a_fill_value_that_is_no_number_stays_what_it_is(store: LocalStore, fill: float) -> None:
    holes = [(0, 0, 0), (2, 2, 2)]
    source = ZarrSource(random_voxels(SHAPE, "float32"), CHUNK, holes=holes, fill=fill)
    (through, one), (blocks, other) = both_ways(source, store)
    assert one.missing_chunks == other.missing_chunks == ("0/0/0", "2/2/2")
    first, second = (read_levels(volume_path(store, job)) for job in (through, blocks))
    np.testing.assert_array_equal(first[0], source.truth)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    array = zarr.open_array(volume_path(store, through) / "0", mode="r")
    np.testing.assert_equal(float(array.fill_value), fill)
    again = VolumeJob.model_validate_json(through.model_dump_json())
    assert again.fingerprint == through.fingerprint
    np.testing.assert_equal(again.fill_value, fill)


@pytest.mark.parametrize("codec", ["zstd", "blosc", "none"])
def test_half_floats_of_chunks_are_widened_exactly(store: LocalStore, codec: str) -> None:
    bits = np.random.default_rng(3).integers(0, 0x7C00, SHAPE).astype(np.uint16)
    source = ZarrSource(bits.view(np.float16), CHUNK, codec=codec)
    reader = source.reader()
    job = a_job(source.plan(), reader, shard_mb=0.3)
    assert not job.pass_through
    make(job, reader, store)
    (found, *_) = read_levels(volume_path(store, job))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, source.truth.astype(np.float32))


@pytest.mark.parametrize("settings", [{}, {"codec": "zstd"}])
def test_a_listed_chunk_that_is_gone_is_an_error_and_no_hole(
    store: LocalStore, settings: dict[str, Any]
) -> None:
    source = ZarrSource(random_voxels(SHAPE, "uint8"), CHUNK)
    del source.objects.data["s0/1/1/1"]
    job = a_job(source.plan(), source.reader(), **settings)
    with pytest.raises(TransportError) as caught:
        make(job, source.reader(), store, max_missing_fraction=1.0)
    assert caught.value.unit == "chunk 1/1/1"
    assert_nothing_made(store, job)


# --- a real server ---------------------------------------------------------------------------


class Archive:
    """The archive's own plan and reader, against the running S3 server."""

    def __init__(self, samples: Samples, tmp_path: Path, dataset: str, **settings: Any) -> None:
        self.archive = OpenOrganelle()
        self.config = self.archive.config_model(
            dataset_id=dataset,
            scale_level="s0",
            **({"zarr_path": "recon-1/em"} | settings),
            **samples.endpoints["OPENORGANELLE"],
        )
        self.session = Session("openorganelle", limits={"s3": Limits(4, None, 60.0, 60.0, 2, 0.01)})
        self.raw = RawFiles(
            LocalStore(tmp_path), "openorganelle", "x", keep=False, scratch_dir=tmp_path
        )

    def run(self, store: LocalStore, **settings: Any) -> tuple[VolumeJob, PublishedVolume]:
        (plan,) = self.archive.plan(self.config, self.session)
        reader = self.archive.open(plan, self.config, self.session, self.raw)
        job = a_job(plan, reader, **settings)
        finished = make(job, reader, store, max_missing_fraction=0.5)
        self.archive.verify_source_unchanged(plan, self.config, self.session, self.raw)
        return job, finished


@pytest.mark.parametrize(
    ("dataset", "through"),
    [
        ("jrc_hela-2", True),
        ("jrc_macrophage-2", True),  # blosc
        ("jrc_jurkat-1", False),  # gzip
        ("jrc_cos7-1", False),  # no compression, "." between
        ("jrc_sample-separator", True),  # nested keys that the document does not admit
    ],
)
def test_the_servers_arrays_come_out_voxel_for_voxel(
    samples: Samples,
    faults: Control,
    store: LocalStore,
    tmp_path: Path,
    dataset: str,
    through: bool,
) -> None:
    job, finished = Archive(samples, tmp_path, dataset).run(store)
    assert job.pass_through == through
    truth = catalogue.truth(f"openorganelle/{dataset}/recon-1/em/fibsem-uint8/s0")
    levels = read_levels(volume_path(store, job))
    np.testing.assert_array_equal(levels[0], truth)
    assert_pyramid(levels, job)
    assert finished.completeness == 1.0


def test_a_real_hole_is_named_with_both_ways(
    samples: Samples, faults: Control, store: LocalStore, tmp_path: Path
) -> None:
    truth = catalogue.truth("openorganelle/jrc_sample-holes/recon-1/em/fibsem-uint8/s0").copy()
    truth[:, 64:, :64] = 0
    for settings in ({}, {"codec": "blosc", "output_dir": None}):
        job, finished = Archive(samples, tmp_path, "jrc_sample-holes").run(store, **settings)
        assert finished.missing_chunks == ("0/1/0",)
        assert finished.completeness == 0.75
        np.testing.assert_array_equal(read_levels(volume_path(store, job))[0], truth)


@pytest.mark.parametrize("kind", ["wrong_bytes", "html_200"])
@pytest.mark.parametrize("settings", [{}, {"codec": "blosc"}])
def test_wrong_bytes_from_the_server_publish_nothing(
    samples: Samples,
    faults: Control,
    store: LocalStore,
    tmp_path: Path,
    kind: str,
    settings: dict[str, Any],
) -> None:
    place = Archive(samples, tmp_path, "jrc_hela-2")
    (plan,) = place.archive.plan(place.config, place.session)
    reader = place.archive.open(plan, place.config, place.session, place.raw)
    job = a_job(plan, reader, **settings)
    faults.add(kind, "s3", "s0/0/1/1$", after_bytes=0)
    with pytest.raises((FormatError, TransportError)) as caught:
        make(job, reader, store)
    assert "0/1/1" in str(caught.value)
    assert_nothing_made(store, job)
    faults.clear()
    make(job, reader, store)
    truth = catalogue.truth("openorganelle/jrc_hela-2/recon-1/em/fibsem-uint8/s0")
    np.testing.assert_array_equal(read_levels(volume_path(store, job))[0], truth)
    assert Ledger(store, job).entries() == {}
