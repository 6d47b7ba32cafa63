"""Whatever the volume, what comes out is voxel-exact, whole, valid, and made in bounded memory."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image import Image

from lib.concurrency.bounded_map import InOrderGate
from lib.errors import (
    DestinationError,
    EmptyVolumeError,
    FormatError,
    IntegrityError,
    MissingChunksError,
)
from lib.formats.base import Block
from lib.geometry import Box, ShapeZYX
from lib.ingest.coarse import CoarseReader, coarser
from lib.ingest.stages import MAX_BATCHES, in_batches
from lib.storage.local import LocalStore
from lib.volumes import rechunk
from lib.volumes.downsample import make_coarse_levels
from lib.volumes.engine import convert
from lib.volumes.finish import finish
from lib.volumes.job import ConcurrencyLimits, VolumeJob
from lib.volumes.ledger import Ledger
from lib.volumes.shardfile import StoredLevel
from tests.kit.volume_kit import (
    DTYPES,
    ArrayReader,
    ZarrSource,
    a_job,
    a_plan,
    assert_pyramid,
    digests,
    make,
    pooled,
    random_voxels,
    read_levels,
    volume_path,
)

# shards of 2 x 2 x 2 chunks: large enough for every kind of edge
SMALL: dict[str, Any] = {"chunk_zyx": (16, 16, 16), "shard_mb": 0.033}
WIDE: dict[str, Any] = {"chunk_zyx": (32, 32, 32), "shard_mb": 0.14}
SHAPES: list[ShapeZYX] = [(33, 47, 70), (1, 80, 65), (5, 7, 3), (1, 1, 1)]
FORMATS = ["zarr", "npy"]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "data", durable=False)


def assert_proven(store: LocalStore, job: VolumeJob) -> None:
    """The standard tool agrees with the list of digests, and the list names every file."""
    path = volume_path(store, job)
    sums = Path(f"{path}.SHA256SUMS")
    command = ["sha256sum", "-c", "--strict", "--quiet", sums.name]
    subprocess.run(command, cwd=path.parent, check=True, capture_output=True)
    listed = {line.split("  ", 1)[1] for line in sums.read_text().splitlines()}
    there = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    assert listed == {str(file.relative_to(path.parent)) for file in there}


def assert_nothing_left(store: LocalStore) -> None:
    left = list(Path(store.root).rglob(".*"))
    assert left == []


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_volume_comes_out_voxel_for_voxel(
    store: LocalStore, dtype: str, shape: ShapeZYX, output_format: str
) -> None:
    for random_access, kind in itertools.product((True, False), ("image", "labels")):
        voxels = random_voxels(shape, dtype, labels=kind == "labels")
        chunk = (16, 16, 16) if random_access else (1, *shape[1:])
        reader = ArrayReader(voxels, chunk, random_access=random_access)
        plan = a_plan(shape, dtype, kind=kind, name=f"{kind}_{random_access}")
        job = a_job(plan, reader, output_format=output_format, **WIDE)
        finished = make(job, reader, store, allow_empty=True)
        assert finished.missing_chunks == ()
        assert finished.completeness == 1.0
        assert finished.statistics.minimum == voxels.min()
        assert finished.statistics.maximum == voxels.max()
        path = volume_path(store, job)
        if output_format == "npy":
            np.testing.assert_array_equal(np.load(path), voxels)
            assert np.load(path).dtype == voxels.dtype
        else:
            levels = read_levels(path)
            np.testing.assert_array_equal(levels[0], voxels)
            assert_pyramid(levels, job)
            Image.from_zarr(zarr.open_group(path, mode="r"))
        assert_proven(store, job)
    assert_nothing_left(store)


@pytest.mark.parametrize(
    ("shape", "voxel", "codec"),
    [
        ((66, 200, 150), (8.0, 8.0, 8.0), "auto"),
        ((20, 200, 270), (40.0, 4.0, 4.0), "blosc"),
        ((20, 33, 280), (4.0, 4.0, 4.0), "zstd"),
        ((1, 520, 300), (4.0, 4.0, 4.0), "none"),
    ],
)
def test_levels_made_with_the_shards_and_afterwards_are_both_exact(
    store: LocalStore, shape: ShapeZYX, voxel: tuple[float, float, float], codec: str
) -> None:
    voxels = random_voxels(shape, "int16", 4)
    reader = ArrayReader(voxels, (32, 32, 32))
    plan = a_plan(shape, "int16", voxel_nm_zyx=voxel)
    job = a_job(plan, reader, codec=codec, chunk_zyx=(min(32, shape[0]), 32, 32), shard_mb=0.14)
    assert {level.in_pass for level in job.levels} == {True, False} or shape[0] == 1
    make(job, reader, store)
    levels = read_levels(volume_path(store, job))
    np.testing.assert_array_equal(levels[0], voxels)
    assert_pyramid(levels, job)


@pytest.mark.parametrize("chunk", [(1, 32, 32), (25, 25, 25), (3, 8, 32), (7, 16, 48)])
def test_chunks_of_odd_edges_give_the_same_pyramid(store: LocalStore, chunk: ShapeZYX) -> None:
    voxels = random_voxels((60, 90, 100), "uint8", 2)
    reader = ArrayReader(voxels)
    job = a_job(a_plan(voxels.shape), reader, chunk_zyx=chunk, shard_mb=0.2)
    make(job, reader, store)
    levels = read_levels(volume_path(store, job))
    np.testing.assert_array_equal(levels[0], voxels)
    assert_pyramid(levels, job)


def test_64_bit_labels_keep_their_numbers(store: LocalStore) -> None:
    numbers = np.array([0, 5, 2**53 + 1, 2**63 + 1, 2**64 - 1], np.uint64)
    voxels = numbers[random_voxels((40, 70, 66), "uint8") % 5]
    reader = ArrayReader(voxels)
    job = a_job(a_plan(voxels.shape, "uint64", kind="labels"), reader, **SMALL)
    finished = make(job, reader, store)
    levels = read_levels(volume_path(store, job))
    np.testing.assert_array_equal(levels[0], voxels)
    assert_pyramid(levels, job)
    assert finished.statistics.maximum == 2**64 - 1
    assert finished.statistics.total == sum(voxels.reshape(-1).tolist())


@pytest.mark.parametrize("kind", ["image", "labels"])
def test_the_documents_say_where_each_level_lies(store: LocalStore, kind: str) -> None:
    voxels = random_voxels((20, 130, 140), "uint8", labels=kind == "labels")
    plan = a_plan(
        voxels.shape, kind=kind, voxel_nm_zyx=(16.0, 4.0, 4.0), origin_nm_zyx=(1.5, 2.5, 3.5)
    )
    job = a_job(plan, ArrayReader(voxels), **SMALL)
    make(job, ArrayReader(voxels), store)
    group = zarr.open_group(volume_path(store, job), mode="r")
    image = Image.from_zarr(group)
    (multiscale,) = image.attributes.ome.multiscales
    assert [axis.name for axis in multiscale.axes] == ["z", "y", "x"]
    assert {axis.unit for axis in multiscale.axes} == {"nanometer"}
    scale, shift = (d.coordinateTransformations for d in multiscale.datasets[:2])
    assert scale[0].scale == [16.0, 4.0, 4.0]
    assert scale[1].translation == [1.5, 2.5, 3.5]
    assert shift[0].scale == [16.0, 8.0, 8.0]
    assert shift[1].translation == [1.5, 4.5, 5.5]
    raw = json.loads((volume_path(store, job) / "zarr.json").read_text())
    assert ("image-label" in raw["attributes"]["ome"]) == (kind == "labels")
    assert set(raw["consolidated_metadata"]["metadata"]) == {str(n.index) for n in job.levels}
    for level in job.levels:
        own = json.loads((volume_path(store, job) / f"{level.index}/zarr.json").read_text())
        assert own == raw["consolidated_metadata"]["metadata"][str(level.index)]


def test_the_display_window_comes_from_the_data(store: LocalStore) -> None:
    voxels = np.full((20, 20, 50), 100, np.uint8)
    voxels[0, 0, :10], voxels[0, 0, 10:20], voxels[:, :, 25:] = 0, 255, 180
    job = a_job(a_plan(voxels.shape), ArrayReader(voxels), **SMALL)
    make(job, ArrayReader(voxels), store)
    raw = json.loads((volume_path(store, job) / "zarr.json").read_text())
    (channel,) = raw["attributes"]["ome"]["omero"]["channels"]
    window = channel["window"]
    assert (window["min"], window["max"]) == (0, 255)
    assert 100 <= window["start"] <= 101
    assert 180 <= window["end"] <= 181


# --- what is refused -------------------------------------------------------------------------


class Wrong(ArrayReader):
    """A reader that does not keep its promise."""

    def __init__(self, voxels: Any, change: Any) -> None:
        super().__init__(voxels)
        self._change = change

    def blocks(self, box: Box) -> Any:
        return iter(self._change(list(super().blocks(box))))


@pytest.mark.parametrize(
    "change",
    [
        lambda blocks: blocks[:-1],
        lambda blocks: [*blocks, blocks[0]],
        lambda blocks: [*blocks[:-1], blocks[0]],  # as many voxels, not the same ones
        lambda blocks: [Block(b.box.shifted((1, 0, 0)), b.data) for b in blocks],
        lambda blocks: [Block(b.box, b.data[:1]) for b in blocks],
    ],
    ids=["lost", "repeated", "repeated-for-lost", "shifted", "cut"],
)
@pytest.mark.parametrize("output_format", FORMATS)
def test_blocks_that_do_not_tile_their_box_are_an_error(
    store: LocalStore, change: Any, output_format: str
) -> None:
    voxels = random_voxels((32, 32, 64), "uint8")
    reader = Wrong(voxels, change)
    job = a_job(a_plan(voxels.shape), reader, output_format=output_format, **SMALL)
    with pytest.raises(FormatError):
        make(job, reader, store)
    assert not volume_path(store, job).exists()
    assert Ledger(store, job).entries() == {}


@pytest.mark.parametrize("value", [0, np.nan])
def test_a_volume_of_nothing_is_refused_unless_allowed(store: LocalStore, value: float) -> None:
    voxels = np.full((20, 20, 20), value, np.float32)
    reader = ArrayReader(voxels)
    job = a_job(a_plan(voxels.shape, "float32"), reader, **SMALL)
    with pytest.raises(EmptyVolumeError):
        make(job, reader, store)
    assert not volume_path(store, job).exists()
    finished = make(job, reader, store, allow_empty=True)
    assert finished.volume_key == job.final_key
    assert volume_path(store, job).exists()


def test_empty_labels_are_a_finding_and_not_a_failure(store: LocalStore) -> None:
    voxels = np.zeros((20, 20, 20), np.uint32)
    job = a_job(a_plan(voxels.shape, "uint32", kind="labels"), ArrayReader(voxels), **SMALL)
    make(job, ArrayReader(voxels), store)
    assert volume_path(store, job).exists()


def test_a_volume_that_lacks_a_shard_is_not_published(store: LocalStore) -> None:
    voxels = random_voxels((40, 40, 40), "uint8")
    reader = ArrayReader(voxels)
    job = a_job(a_plan(voxels.shape), reader, **SMALL)
    Ledger(store, job).open()
    convert(job, reader, store, list(job.grid.shards())[:-1])
    with pytest.raises(IntegrityError, match="was not made") as caught:
        finish(job, store, max_missing_fraction=0)
    assert caught.value.unit == "0/c/1/1/1"
    assert not volume_path(store, job).exists()


@pytest.mark.parametrize("damage", ["delete", "cut", "foreign"])
def test_a_staged_volume_that_was_tampered_with_is_not_published(
    store: LocalStore, damage: str
) -> None:
    voxels = random_voxels((40, 40, 40), "uint8")
    reader = ArrayReader(voxels)
    job = a_job(a_plan(voxels.shape), reader, **SMALL)
    Ledger(store, job).open()
    convert(job, reader, store, job.grid.shards())
    staged = Path(store.root, store.staging_key(job.final_key))
    shard = staged / "0/c/0/1/0"
    if damage == "delete":
        shard.unlink()
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        # a shard of another grid would be a late writer's, and is cleared away (test_finish)
        (staged / "0/c/0/1/foreign").write_bytes(b"?")
    with pytest.raises(IntegrityError):
        finish(job, store, max_missing_fraction=0)
    assert not volume_path(store, job).exists()
    if damage != "foreign":  # the next run makes that one again, and only that one
        assert Ledger(store, job).pending(0, job.grid.shards()) == [(0, 1, 0)]
        make(job, reader, store)
        np.testing.assert_array_equal(read_levels(volume_path(store, job))[0], voxels)


def test_damage_below_a_coarse_level_is_noticed_when_it_is_made(store: LocalStore) -> None:
    voxels = random_voxels((70, 70, 70), "uint8")
    reader = ArrayReader(voxels)
    job = a_job(a_plan(voxels.shape), reader, chunk_zyx=(17, 17, 17), shard_mb=0.05)
    assert not job.levels[1].in_pass
    Ledger(store, job).open()
    convert(job, reader, store, job.grid.shards())
    shard = next(Path(store.root, store.staging_key(job.final_key)).rglob("0/c/0/0/0"))
    data = bytearray(shard.read_bytes())
    data[0] ^= 0xFF  # the magic number of the first chunk
    shard.write_bytes(data)
    with pytest.raises(IntegrityError, match="cannot be read"):
        make_coarse_levels(job, store, limits=ConcurrencyLimits())
    assert not volume_path(store, job).exists()


def test_a_level_is_read_back_by_few_requests(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks that are neighbours in their shard come together, and its index comes once."""
    voxels = random_voxels((32, 48, 64), "uint8")
    job = a_job(a_plan(voxels.shape), ArrayReader(voxels), chunk_zyx=(16, 16, 16))
    Ledger(store, job).open()
    convert(job, ArrayReader(voxels), store, job.grid.shards())
    level = StoredLevel(
        store, store.staging_key(job.final_key), 0, job.grid, job.dtype, job.codec, job.fill_value
    )
    asked = []
    get_range = store.get_range

    def counted(key: str, offset: int, length: int) -> bytes:
        asked.append(length)
        return get_range(key, offset, length)

    monkeypatch.setattr(store, "get_range", counted)
    np.testing.assert_array_equal(level.read(Box.whole(voxels.shape)), voxels)
    assert len(job.grid) == 1
    assert len(asked) == 2
    inside = Box((3, 17, 5), (20, 30, 50))  # four neighbours in each of two rows of chunks
    np.testing.assert_array_equal(level.read(inside), voxels[inside.slices()])
    assert len(asked) == 4


def test_npy_is_refused_where_nothing_can_be_written_in_place(store: LocalStore) -> None:
    class Bucket(LocalStore):
        def local_path(self, key: str) -> None:
            return None

    voxels = random_voxels((4, 4, 4), "uint8")
    job = a_job(a_plan(voxels.shape), ArrayReader(voxels), output_format="npy", **SMALL)
    with pytest.raises(DestinationError, match="in place"):
        make(job, ArrayReader(voxels), Bucket(store.root))


# --- holes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [(8, 8, 8), (16, 16, 16), (32, 32, 32), (20, 24, 40)])
def test_completeness_counts_the_chunks_of_the_archive(store: LocalStore, chunk: ShapeZYX) -> None:
    """Whatever the chunks of the destination, and however many shards a hole reaches into."""
    voxels = random_voxels((64, 48, 80), "uint8") | 1
    source = ZarrSource(voxels, chunk, codec="gzip", holes=[(0, 0, 1), (1, 0, 0)])
    reader = source.reader()
    job = a_job(source.plan(), reader, **SMALL)
    total = int(np.prod([-(-n // c) for n, c in zip(voxels.shape, chunk, strict=True)]))
    with pytest.raises(MissingChunksError, match=f"lacks 2 of {total} chunks"):
        make(job, reader, store, max_missing_fraction=1.9 / total)
    assert not volume_path(store, job).exists()
    finished = make(job, reader, store, max_missing_fraction=2 / total)
    assert finished.missing_chunks == ("0/0/1", "1/0/0")
    assert finished.completeness == pytest.approx(1 - 2 / total)
    np.testing.assert_array_equal(read_levels(volume_path(store, job))[0], source.truth)


# --- bounds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1), (1000, 1000, 1000), (20000, 20000, 20000)])
def test_a_volume_of_any_size_is_made_in_a_bounded_number_of_batches(
    shape: ShapeZYX,
) -> None:
    voxels = np.broadcast_to(np.uint8(1), shape)
    for shard_mb in (None, 16):
        job = a_job(a_plan(shape), ArrayReader(voxels, (64, 64, 64)), shard_mb=shard_mb)
        made = in_batches(job, list(job.grid.shards()), 2)
        assert 1 <= len(made) <= MAX_BATCHES == 128
        assert [unit for batch in made for unit in batch] == list(job.grid.shards())


@pytest.mark.parametrize("random_access", [True, False])
def test_the_next_shard_is_read_while_one_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_access: bool
) -> None:
    voxels = random_voxels((64, 16, 16), "uint8")
    second, encode = threading.Event(), rechunk._encode

    def on_block(box: Box) -> None:
        if box.start_zyx[0] == 16:
            second.set()

    def patient(*arguments: Any) -> Any:
        assert second.wait(120), "nothing was read while the first shard was encoded"
        return encode(*arguments)

    monkeypatch.setattr(rechunk, "_encode", patient)
    reader = ArrayReader(voxels, random_access=random_access, on_block=on_block)
    job = a_job(a_plan(voxels.shape), reader, chunk_zyx=(16, 16, 16), shard_mb=0.004)
    assert len(job.grid) == 4
    make(job, reader, LocalStore(tmp_path, durable=False), limits=ConcurrencyLimits(1, 1, 1))


@pytest.mark.parametrize("overlapping", [True, False])
def test_a_unit_asks_for_its_first_bytes_while_the_last_of_the_one_before_travel(
    overlapping: bool,
) -> None:
    first, second = (0, 0, 0), (1, 0, 0)
    line, steps = InOrderGate([first, second], overlapping=overlapping), list[str]()
    begun = threading.Event()

    def read_second() -> None:
        with line.turn(second) as arrived:
            steps.append("second begins")
            begun.set()
            arrived(0.1)
            steps.append("second reads on")

    other = threading.Thread(target=read_second)
    with line.turn(first) as arrived:
        other.start()
        arrived(0.4)
        assert not begun.wait(0.3), "before half of the first has arrived"
        arrived(0.5)
        assert begun.wait(120 if overlapping else 0.3) == overlapping
        time.sleep(0.3)
        steps.append("first ends")
    other.join()
    expected = ["second begins", "first ends"] if overlapping else ["first ends", "second begins"]
    assert steps == [*expected, "second reads on"]


def test_a_unit_begins_where_connections_idle_however_late_the_one_before_is() -> None:
    idle, begun = threading.Event(), [threading.Event() for _ in range(3)]
    line = InOrderGate(range(3), overlapping=True, idle=idle.is_set)
    ended = list[int]()

    def read(unit: int) -> None:
        with line.turn(unit) as arrived:
            begun[unit].set()
            arrived(0.1)  # waits for all units before it
            ended.append(unit)

    others = [threading.Thread(target=read, args=(unit,)) for unit in (1, 2)]
    with line.turn(0) as arrived:
        for other in others:
            other.start()
        idle.set()
        assert not begun[1].wait(0.3), "before anything of the first has come"
        arrived(0.1)
        assert begun[1].wait(60)
        assert begun[2].wait(60)
        ended.append(0)
    for other in others:
        other.join()
    assert ended == [0, 1, 2]


@pytest.mark.parametrize(
    ("shards", "workers", "sizes"),
    [
        (0, 2, []),
        (1, 2, [1]),
        (3, 2, [3]),  # 24 MiB are not worth two tasks
        (8, 2, [4, 4]),
        (63, 2, [32, 31]),
        (65, 2, [17, 17, 17, 14]),
        (65, 1, [22, 22, 21]),
        (100, 4, [25, 25, 25, 25]),
    ],
)
def test_batches_are_alike_and_as_many_for_each_worker(
    shards: int, workers: int, sizes: list[int]
) -> None:
    voxels = np.broadcast_to(np.uint8(1), (256, 256, 256))
    job = a_job(a_plan(voxels.shape), ArrayReader(voxels, (64, 64, 64)), shard_mb=9)
    assert np.prod(job.shard_zyx) == 8 * 2**20
    pending = [(0, 0, n) for n in range(shards)]
    made = in_batches(job, pending, workers)
    assert [len(batch) for batch in made] == sizes
    assert [unit for batch in made for unit in batch] == pending


MEASURE = """
import resource, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from tests.kit.volume_kit import ArrayReader, a_job, a_plan, make
from lib.storage.local import LocalStore
from lib.volumes.downsample import make_coarse_levels
from lib.volumes.job import ConcurrencyLimits
from lib.geometry import Box
from lib.formats.base import Block

class Endless(ArrayReader):
    def blocks(self, box):
        for tile in box.tiles((64, 64, 64)):
            yield Block(tile, self.voxels[Box.whole(tile.shape_zyx).slices()])

def run(depth, name, output_format):
    block = (np.arange(64**3) // 50).astype("uint8").reshape(64, 64, 64)
    reader = Endless(block)
    reader.shape_zyx = (depth, 512, 512)
    plan = a_plan(reader.shape_zyx, name=name)
    job = a_job(plan, reader, shard_mb=8, output_format=output_format)
    make(job, reader, LocalStore(sys.argv[2]), limits=ConcurrencyLimits(2, 4, 2))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

for form in ("zarr", "npy"):
    run(64, "warm-up", form)
small = max(run(256, f"small-{n}", form) for n in range(4) for form in ("zarr", "npy"))
large = max(run(1024, "large", form) for form in ("zarr", "npy"))
print(small, large)
"""


def test_memory_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    """64 MB and 256 MB, both formats, with shards of 8 MB, two at a time.

    Four of the small ones: how high the peak rises by chance depends on how many shards are made.
    By chance it still rises up to 17 MB higher; what is held of a volume would add 192 MB.
    """
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", MEASURE, root, str(tmp_path)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    small, large = (int(n) for n in answer.stdout.split())
    assert large <= small + 64, f"{small} MB for 64 MB of voxels, {large} MB for 256 MB"


def test_levels_made_afterwards_read_a_little_at_a_time(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their shards are made from eight times as many voxels, which never lie in memory at once."""
    voxels = random_voxels((66, 260, 260), "uint8")
    reader = ArrayReader(voxels)
    job = a_job(a_plan(voxels.shape), reader, chunk_zyx=(33, 33, 33), shard_mb=0.04)
    assert not job.levels[1].in_pass
    largest = 0

    def watch(blocks: Any, box: Box, target: Any) -> Any:
        nonlocal largest
        largest = max(largest, box.voxels)
        return gather(blocks, box, target)

    from lib.volumes.rechunk import gather

    monkeypatch.setattr("lib.volumes.downsample.gather", watch)
    make(job, reader, store)
    assert 0 < largest <= 8 * 33 * 33 * max(job.levels[1].grid.shard_zyx)
    assert_pyramid(read_levels(volume_path(store, job)), job)


@pytest.mark.parametrize("more", [False, True])
def test_a_block_that_is_a_whole_shard_is_taken_as_it_is(store: LocalStore, more: bool) -> None:
    class InOneBuffer(ArrayReader):
        """Gives each shard in the one buffer that it has; what it gave before is gone then."""

        def blocks(self, box: Box) -> Any:
            buffer = self.voxels[box.slices()].copy()
            yield Block(box, buffer, ("a/b",))
            buffer[...] = 0
            if more:
                yield Block(box, buffer)

    voxels = random_voxels((32, 32, 64), "uint8")
    reader = InOneBuffer(voxels)
    job = a_job(a_plan(voxels.shape), reader, **SMALL)
    indices = list(job.grid.shards())
    if more:
        with pytest.raises(FormatError, match="more than"):
            convert(job, reader, store, indices)
        assert Ledger(store, job).known() == []
        return
    entries = convert(job, reader, store, indices)
    assert {entry.missing_chunks for entry in entries} == {("a/b",)}
    finish(job, store, max_missing_fraction=1.0)
    assert np.array_equal(read_levels(volume_path(store, job))[0], voxels)


def test_chunks_that_lie_one_behind_another_are_read_together(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = random_voxels((32, 32, 128), "uint8")
    reader = ArrayReader(voxels)
    job = a_job(a_plan(voxels.shape), reader, chunk_zyx=(16, 16, 16), shard_mb=1.0)
    make(job, reader, store)
    asked: list[tuple[int, int]] = []
    get_range = store.get_range

    def watch(key: str, start: int, length: int) -> Any:
        asked.append((start, length))
        return get_range(key, start, length)

    monkeypatch.setattr(store, "get_range", watch)
    grid = job.levels[0].grid
    assert len(grid) == 1
    level = StoredLevel(store, job.final_key, 0, grid, job.dtype, job.codec)
    part = Box((0, 0, 5), (16, 16, 100))
    assert np.array_equal(level.read(part), voxels[part.slices()])
    assert len(asked) == 2  # the index, and a row of seven chunks
    assert np.array_equal(level.read(Box.whole(voxels.shape)), voxels)
    assert len(asked) == 3


# --- starting coarser ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image", "labels"])
@pytest.mark.parametrize(
    ("shape", "voxel"),
    [
        ((70, 90, 110), (8.0, 8.0, 8.0)),
        ((33, 90, 110), (16.0, 8.0, 8.0)),
        ((2, 90, 110), (8.0, 8.0, 8.0)),
        ((40, 70, 300), (10.0, 20.0, 5.0)),
    ],
)
def test_a_coarser_start_gives_the_levels_of_the_whole_pyramid(
    store: LocalStore, shape: ShapeZYX, voxel: tuple[float, float, float], kind: str
) -> None:
    voxels = random_voxels(shape, "uint8", 7, labels=kind == "labels")
    reader = ArrayReader(voxels, (16, 16, 16))
    whole = a_plan(shape, kind=kind, voxel_nm_zyx=voxel, origin_nm_zyx=(1.0, 2.0, 3.0))
    plan = coarser(whole, 4)
    job = a_job(plan, CoarseReader(reader, plan), **SMALL)
    make(job, CoarseReader(reader, plan), store)
    from lib.volumes.grid import ShardGrid, plan_levels

    grid = ShardGrid(shape, (16, 16, 16), (32, 32, 32))
    steps = plan_levels(grid, voxel, (1.0, 2.0, 3.0), small_enough=1)[:3]
    expected = voxels
    for step in steps[1:]:
        expected = pooled(expected, step.factor_zyx, labels=kind == "labels")
    levels = read_levels(volume_path(store, job))
    np.testing.assert_array_equal(levels[0], expected)
    assert plan.voxel_nm_zyx == steps[2].scale_nm_zyx
    assert plan.origin_nm_zyx == steps[2].translation_nm_zyx


def test_two_formats_of_one_volume_have_the_same_statistics(store: LocalStore) -> None:
    voxels = random_voxels((50, 60, 70), "int32")
    found = []
    for output_format in FORMATS:
        reader = ArrayReader(voxels)
        job = a_job(a_plan(voxels.shape, "int32"), reader, output_format=output_format, **SMALL)
        found.append(make(job, reader, store).statistics)
        assert digests(store, job)
    assert found[0].total == found[1].total == int(voxels.sum(dtype=np.int64))
    assert (found[0].minimum, found[0].maximum) == (found[1].minimum, found[1].maximum)


@pytest.mark.parametrize("limits", [ConcurrencyLimits(1, 1, 1), ConcurrencyLimits(4, 8, 3)])
def test_bytes_do_not_depend_on_how_many_work(store: LocalStore, limits: ConcurrencyLimits) -> None:
    voxels = random_voxels((70, 80, 90), "float32")
    reader = ArrayReader(voxels)
    job = a_job(a_plan(voxels.shape, "float32"), reader, **SMALL)
    make(job, reader, store)
    first = digests(store, job)
    other = LocalStore(Path(store.root) / "other", durable=False)
    make(job, reader, other, limits=limits)
    assert digests(other, job) == first
