"""A volume is published when every shard of every level is there, nothing else is, and proven."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.errors import EmptyVolumeError, IntegrityError, MissingChunksError, SourceChangedError
from lib.geometry import Box
from lib.plan import SourceGrid
from lib.storage.base import StoredObject
from lib.storage.keys import labels_of
from lib.storage.local import LocalStore
from lib.volumes.downsample import make_coarse_levels
from lib.volumes.engine import convert
from lib.volumes.finish import PublishedVolume, finish, list_labels
from lib.volumes.job import ConcurrencyLimits, VolumeJob
from lib.volumes.label_ids import pack
from lib.volumes.ledger import Ledger, LedgerEntry
from lib.volumes.ome import THUMBNAIL_KEY
from tests.kit.volume_kit import ArrayReader, Voxels, ZarrSource, a_job, a_plan, make, random_voxels

SHAPE = (140, 30, 30)  # three levels: one made with its shards, one afterwards
SMALL: dict[str, Any] = {"chunk_zyx": (8, 8, 8), "shard_mb": 0.01}
VOXELS = random_voxels(SHAPE, "uint8")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, durable=False)


def staged(
    store: LocalStore, voxels: Voxels = VOXELS, *, kind: str = "image", **settings: Any
) -> VolumeJob:
    """A job whose shards are all made, and not yet finished."""
    reader = ArrayReader(voxels)
    plan = a_plan(voxels.shape, voxels.dtype.name, kind=kind)
    job = a_job(plan, reader, **(SMALL | settings))
    Ledger(store, job).open()
    convert(job, reader, store, list(job.grid.shards()))
    make_coarse_levels(job, store, limits=ConcurrencyLimits(2, 2, 2))
    return job


def finished(job: VolumeJob, store: LocalStore, **given: Any) -> PublishedVolume:
    return finish(job, store, **({"max_missing_fraction": 0.0} | given))


def lines(store: LocalStore, made: PublishedVolume) -> dict[str, str]:
    """Name -> sha256 of the published list."""
    pairs = [line.split("  ") for line in store.get(made.sums_key).decode().splitlines()]
    return {name: sha256 for sha256, name in pairs}


def test_the_list_names_every_file_with_its_digest_in_order(store: LocalStore) -> None:
    job = staged(store)
    assert [level.in_pass for level in job.levels] == [True, True, False]
    made = finished(job, store)
    listed = lines(store, made)
    files = {item.key: store.get(item.key) for item in store.list(made.volume_key)}
    assert {
        f"{made.volume_key.rpartition('/')[0]}/{name}": sha256 for name, sha256 in listed.items()
    } == {key: hashlib.sha256(data).hexdigest() for key, data in files.items()}
    assert list(listed) == sorted(listed)
    assert made.files == len(files)
    assert made.stored_bytes == sum(map(len, files.values()))
    assert made.sha256 == hashlib.sha256(store.get(made.sums_key)).hexdigest()
    assert made.sums_key == f"{made.volume_key}.SHA256SUMS"
    assert made.statistics.minimum == VOXELS.min()
    assert made.statistics.mean == pytest.approx(VOXELS.mean())
    assert (made.missing_chunks, made.completeness) == ((), 1.0)
    assert made.expected_chunks == 288, "the volume's own chunks where its source has none"


class InPlace(LocalStore):
    """A folder where trees are written under their final names, as in a bucket."""

    def staging_key(self, final: str) -> str:
        return final


@pytest.mark.parametrize("kind", [LocalStore, InPlace])
@pytest.mark.parametrize("output_format", ["zarr", "npy"])
def test_nothing_can_be_read_before_the_source_is_proven(
    tmp_path: Path, kind: type[LocalStore], output_format: str
) -> None:
    if (kind, output_format) == (InPlace, "npy"):
        pytest.skip("an npy is never written to a bucket")
    store = kind(tmp_path, durable=False)
    job = staged(store, output_format=output_format)
    drawn: list[str] = []

    def draw(key: str, *_: object) -> None:
        drawn.append(key)

    def changed() -> None:
        assert drawn or output_format == "npy", "the picture need not wait for the proof"
        raise SourceChangedError("the array changed while it was read")

    with pytest.raises(SourceChangedError):
        finished(job, store, draw=draw, proven=changed)
    readable = [item.key for item in store.list("") if item.key.endswith("zarr.json")]
    assert readable == []
    assert store.size(f"{job.final_key}.SHA256SUMS") is None
    assert output_format == "zarr" or store.size(job.final_key) is None
    assert finished(job, store).volume_key == job.final_key


def test_the_digest_of_an_npy_is_that_of_the_file(store: LocalStore) -> None:
    job = staged(store, output_format="npy")
    made = finished(job, store)
    data = store.get(made.volume_key)
    assert made.sha256 == hashlib.sha256(data).hexdigest()
    assert store.get(made.sums_key) == f"{made.sha256}  volume.npy\n".encode()
    assert (made.files, made.stored_bytes) == (1, len(data))
    np.testing.assert_array_equal(np.load(Path(store.root, made.volume_key)), VOXELS)


@pytest.mark.parametrize(
    ("batches", "read_again"),
    [
        ([[0, 1], [2, 3]], False),
        ([[0, 1], [3], [2]], True),  # not in the order of the file
        ([[0, 1], [1], [2, 3]], True),  # one made again
        ([[2, 3], [0, 1]], True),
    ],
)
def test_an_npy_is_read_again_unless_it_was_digested_from_its_front_to_its_end(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, batches: list[list[int]], read_again: bool
) -> None:
    reader = ArrayReader(VOXELS)
    job = a_job(a_plan(SHAPE), reader, **SMALL, output_format="npy")
    units = list(job.grid.shards())
    cuts = [0, *sorted(len(units) * part // 4 for part in (1, 2, 3)), len(units)]
    Ledger(store, job).open()
    for batch in batches:
        convert(
            job, reader, store, [u for part in batch for u in units[cuts[part] : cuts[part + 1]]]
        )
    asked: list[str] = []

    def get_range(key: str, start: int, length: int) -> bytes:
        asked.append(key)
        return LocalStore.get_range(store, key, start, length)

    monkeypatch.setattr(store, "get_range", get_range)
    made = finished(job, store)
    assert made.sha256 == hashlib.sha256(store.get(made.volume_key)).hexdigest()
    assert bool(asked) == read_again


def test_finishing_again_after_a_kill_changes_nothing(store: LocalStore) -> None:
    job = staged(store)
    first = finished(job, store)
    before = {item.key: store.get(item.key) for item in store.list()}
    assert finished(job, store) == first
    assert {item.key: store.get(item.key) for item in store.list()} == before


@pytest.mark.parametrize("level", [0, 2])
def test_a_shard_of_any_level_that_was_not_made_is_named(store: LocalStore, level: int) -> None:
    job = staged(store)
    missing = Ledger(store, job).entries(level)
    assert missing
    store.delete(f"{job.state_key}/ledger/{level}/0.0.0.json")
    with pytest.raises(IntegrityError, match="was not made") as caught:
        finished(job, store)
    assert (caught.value.unit, caught.value.location) == (f"{level}/c/0/0/0", job.final_key)
    assert not Path(store.root, job.final_key).exists()


def entry_changed(store: LocalStore, job: VolumeJob, **changes: Any) -> LedgerEntry:
    """Rewrite the entry of shard 0 0 0."""
    ledger = Ledger(store, job)
    entry = ledger.entries(0)[0, (0, 0, 0)].model_copy(update=changes)
    ledger.add(entry)
    return entry


def test_a_file_that_two_entries_name_is_an_error(store: LocalStore) -> None:
    job = staged(store)
    files = Ledger(store, job).entries(0)[0, (0, 0, 0)].files
    entry_changed(store, job, files=(*files, files[0]))
    with pytest.raises(IntegrityError, match="names a file twice") as caught:
        finished(job, store)
    assert caught.value.location == job.final_key


def test_a_coarse_shard_that_no_entry_names_does_not_belong(store: LocalStore) -> None:
    """What lies there must be what was written, for every single file."""
    job = staged(store)
    files = Ledger(store, job).entries(0)[0, (0, 0, 0)].files
    assert len(files) > 1
    entry_changed(store, job, files=files[:1])
    with pytest.raises(IntegrityError, match="do not belong to it, such as 1/c/0/0/0") as caught:
        finished(job, store)
    assert caught.value.location == store.staging_key(job.final_key)
    assert "Delete the unfinished volume" in str(caught.value.as_record()["advice"])


def test_what_a_writer_of_another_grid_left_late_is_cleared_away(store: LocalStore) -> None:
    """A shard of the half before, put just before its lease ended: no ledger will ever name it."""
    job = staged(store)
    root = store.staging_key(job.final_key)
    for key in ("0/c/9/0/0", "1/c/0/9/0", "9/c/0/0/0", "9/zarr.json"):
        store.put(f"{root}/{key}", b"late")
    finished(job, store)
    names = {item.key.removeprefix(f"{job.final_key}/") for item in store.list(job.final_key)}
    assert not {"0/c/9/0/0", "1/c/0/9/0", "9/c/0/0/0", "9/zarr.json"} & names


@pytest.mark.parametrize("key", ["0/c/0/0/x", "notes.txt", "0/c/9/0/0/0", "00000000/c"])
def test_a_file_that_is_no_shard_of_any_grid_is_not_touched(store: LocalStore, key: str) -> None:
    job = staged(store)
    store.put(f"{store.staging_key(job.final_key)}/{key}", b"mine")
    with pytest.raises(IntegrityError, match="do not belong"):
        finished(job, store)
    assert store.get(f"{store.staging_key(job.final_key)}/{key}") == b"mine"


class Racing(LocalStore):
    """A folder from which somebody takes a file after the ledger was read, or cuts it."""

    taken, listings, cut = "", 0, False

    def list(self, prefix: str = "") -> Any:
        self.listings += prefix == self.taken.rpartition("/0/c/")[0]
        for item in super().list(prefix):
            if item.key != self.taken or self.listings <= 3:  # twice where it lies, once its sizes
                yield item
            elif self.cut:
                yield StoredObject(item.key, item.size - 1)


@pytest.mark.parametrize("cut", [True, False])
def test_a_file_that_is_lost_while_a_volume_is_finished_is_named(tmp_path: Path, cut: bool) -> None:
    store = Racing(tmp_path, durable=False)
    job = staged(store)
    store.taken, store.cut = f"{store.staging_key(job.final_key)}/0/c/1/0/0", cut
    store.listings = 0
    with pytest.raises(IntegrityError, match="missing or of the wrong size") as caught:
        finished(job, store)
    assert caught.value.location == store.taken
    assert not Path(store.root, job.final_key).exists()


@pytest.mark.parametrize("name", ["x", "0/x", "thumbnails/other.jpg"])
def test_a_foreign_file_keeps_a_volume_from_being_published(store: LocalStore, name: str) -> None:
    job = staged(store)
    for one in (name, "zz"):
        store.put(f"{store.staging_key(job.final_key)}/{one}", b"?")
    with pytest.raises(IntegrityError, match=f"2 files in the volume .* such as {name}"):
        finished(job, store)
    assert not Path(store.root, job.final_key).exists()
    assert store.size(f"{job.final_key}.SHA256SUMS") is None


# --- nothing but background -------------------------------------------------------------------


def filled(value: float, dtype: str = "float32") -> Voxels:
    return np.full((20, 20, 20), value, dtype)


@pytest.mark.parametrize(
    ("value", "says"), [(0, "is 0"), (np.nan, "is NaN or infinite"), (np.inf, "is NaN or infinite")]
)
def test_an_image_of_nothing_is_refused_by_name(store: LocalStore, value: float, says: str) -> None:
    job = staged(store, filled(value))
    with pytest.raises(EmptyVolumeError, match=f"every voxel {says}") as caught:
        finished(job, store)
    assert (caught.value.archive, caught.value.location) == ("openorganelle", "set/volume")
    assert not Path(store.root, job.final_key).exists()
    assert finished(job, store, allow_empty=True).volume_key == job.final_key


def test_one_value_that_is_not_the_background_is_an_image(store: LocalStore) -> None:
    assert finished(staged(store, filled(7)), store).statistics.maximum == 7


def test_a_single_voxel_of_something_is_an_image(store: LocalStore) -> None:
    voxels = filled(0)
    voxels[3, 3, 3] = -1
    assert finished(staged(store, voxels), store).statistics.minimum == -1


def test_a_single_voxel_that_is_a_number_is_an_image(store: LocalStore) -> None:
    voxels = filled(np.nan)
    voxels[3, 3, 3] = 1
    assert finished(staged(store, voxels), store).statistics.finite == 1


@pytest.mark.parametrize("counted", [True, False])
def test_the_voxels_of_no_label_are_counted_over_all_shards(
    store: LocalStore, counted: bool
) -> None:
    voxels = random_voxels(SHAPE, "uint32") % 5
    job = staged(store, voxels, kind="labels")
    if not counted:  # one shard of a half that was begun before they were
        entry_changed(store, job, label_ids=None)
    made = finished(job, store)
    assert len(list(job.grid.shards())) > 1
    assert made.labels is not None
    assert made.labels.background == (np.count_nonzero(voxels == 0) if counted else None)
    assert made.labels.ids_of_levels[0] == (4 if counted else None)


def test_ids_of_a_coarse_level_that_were_not_counted_leave_the_voxels_of_no_label_known(
    store: LocalStore,
) -> None:
    voxels = random_voxels(SHAPE, "uint32") % 5
    job = staged(store, voxels, kind="labels")
    ledger = Ledger(store, job)
    for entry in ledger.entries(2).values():
        ledger.add(entry.model_copy(update={"label_ids": None}))
    made = finished(job, store).labels
    assert made is not None
    assert made.background == np.count_nonzero(voxels == 0)
    assert made.ids_of_levels == (4, 4, None)


def test_an_id_that_only_a_coarser_level_has_keeps_labels_from_being_published(
    store: LocalStore,
) -> None:
    job = staged(store, random_voxels(SHAPE, "uint32") % 5, kind="labels")
    assert len(job.levels) == 3
    known = Ledger(store, job).entries(0)[0, (0, 0, 0)].label_ids
    assert known is not None
    entry_changed(store, job, label_ids=known | {1: pack(np.array([77], "uint32"))})
    with pytest.raises(IntegrityError, match=r"level 1 holds 1 ids .* such as 77") as caught:
        finished(job, store)
    assert caught.value.location == job.final_key
    assert not Path(store.root, job.final_key).exists()


def test_labels_without_a_label_are_a_finding(store: LocalStore) -> None:
    job = staged(store, filled(0, "uint32"), kind="labels")
    assert finished(job, store).volume_key == job.final_key


def test_the_group_of_an_image_s_labels_lists_those_that_are_there(store: LocalStore) -> None:
    group = labels_of("ebi/x.ome.zarr")
    for name in ("b.ome.zarr", "a.ome.zarr", "notes"):
        store.put(f"{group}/{name}/zarr.json", b"{}")
    list_labels(store, "ebi/x.ome.zarr")
    document = json.loads(store.get(f"{group}/zarr.json"))
    assert document["attributes"]["ome"]["labels"] == ["a.ome.zarr", "b.ome.zarr"]


# --- holes ------------------------------------------------------------------------------------


def holed(store: LocalStore, holes: list[str]) -> VolumeJob:
    """A job with holes, each met by two shards."""
    job = staged(store)
    ledger = Ledger(store, job)
    for entry in list(ledger.entries(0).values())[:2]:
        ledger.add(entry.model_copy(update={"missing_chunks": tuple(holes)}))
    return job


def test_a_hole_counts_once_however_many_shards_meet_it(store: LocalStore) -> None:
    job = holed(store, ["0/0/2", "0/0/1"])
    made = finished(job, store, max_missing_fraction=2 / 288)
    assert made.missing_chunks == ("0/0/1", "0/0/2")
    assert made.completeness == pytest.approx(286 / 288)


@pytest.mark.parametrize(("holes", "rest"), [(3, ""), (5, ""), (6, ", ...")])
def test_more_holes_than_allowed_are_counted_and_the_first_five_are_named(
    store: LocalStore, holes: int, rest: str
) -> None:
    names = [f"0/0/{n}" for n in range(holes)]
    job = holed(store, names)
    says = re.escape(f"lacks {holes} of 288 chunks ({', '.join(names[:5])}{rest})")
    with pytest.raises(MissingChunksError, match=says) as caught:
        finished(job, store, max_missing_fraction=0.01)
    assert f"{holes / 288:.2%} where 1.00% is allowed" in str(caught.value)
    assert (caught.value.archive, caught.value.location) == ("openorganelle", "set/volume")
    assert not Path(store.root, job.final_key).exists()
    with pytest.raises(MissingChunksError, match=r"where 0\.00% is allowed"):
        finished(job, store, max_missing_fraction=None)


def test_fewer_holes_than_allowed_are_borne(store: LocalStore) -> None:
    assert finished(holed(store, ["0/0/1"]), store, max_missing_fraction=0.5).missing_chunks


def test_an_archive_of_one_chunk_without_it_lacks_more_than_most_of_it(store: LocalStore) -> None:
    job = holed(store, ["0/0/0"])
    grid = SourceGrid(chunk_zyx=SHAPE, offset_zyx=(0, 0, 0), cells_zyx=(1, 1, 1))
    one = job.plan.model_copy(update={"source_grid": grid})
    job = job.model_copy(update={"plan": one})
    ledger = Ledger(store, job)
    for entry in Ledger(store, staged(store)).entries().values():
        ledger.add(entry.model_copy(update={"fingerprint": job.fingerprint}))
    entry_changed(store, job, missing_chunks=("0/0/0",))
    with pytest.raises(MissingChunksError, match=r"lacks 1 of 1 chunks \(0/0/0\), 100.00%"):
        finished(job, store, max_missing_fraction=0.9)


def test_an_archive_that_declares_no_chunk_is_no_division_by_nothing(store: LocalStore) -> None:
    reader = ArrayReader(VOXELS)
    grid = SourceGrid(chunk_zyx=(8, 8, 8), offset_zyx=(0, 0, 0), cells_zyx=(0, 0, 0))
    plan = a_plan(SHAPE, source_grid=grid)
    job = a_job(plan, reader, **SMALL)
    made = make(job, reader, store)
    assert (made.expected_chunks, made.completeness) == (0, 1.0)


def test_an_archive_of_one_chunk_that_is_a_hole_lacks_all_of_it() -> None:
    made = PublishedVolume("k", "s", "0", 1, 1, None, ("0/0/0",), 1)  # type: ignore[arg-type]
    assert made.completeness == 0.0


def all_absent(store: LocalStore, *, kind: str, present: int = 0) -> VolumeJob:
    """Eight chunks of a Zarr source, of which the archive holds `present`."""
    grid = [(z, y, x) for z in range(2) for y in range(2) for x in range(2)]
    source = ZarrSource(np.ones((8, 8, 8), "uint32"), (4, 4, 4), holes=grid[present:])
    reader = source.reader()
    job = a_job(source.plan(kind=kind), reader)
    Ledger(store, job).open()
    convert(job, reader, store, list(job.grid.shards()))
    return job


def test_labels_of_which_the_archive_holds_no_chunk_are_refused_by_name(store: LocalStore) -> None:
    job = all_absent(store, kind="labels")
    with pytest.raises(MissingChunksError, match="none of the 8 chunks of these labels") as caught:
        finished(job, store, max_missing_fraction=None)
    assert (caught.value.archive, caught.value.location) == ("openorganelle", "set/volume")
    assert "max_missing_fraction" in caught.value.advice
    assert not Path(store.root, job.final_key).exists()


@pytest.mark.parametrize(
    "given", [{"max_missing_fraction": 1.0}, {"max_missing_fraction": None, "allow_empty": True}]
)
def test_labels_without_a_chunk_are_published_where_that_is_allowed(
    store: LocalStore, given: dict[str, Any]
) -> None:
    made = finished(all_absent(store, kind="labels"), store, **given)
    assert (len(made.missing_chunks), made.completeness) == (8, 0.0)


def test_labels_may_lack_all_chunks_but_one(store: LocalStore) -> None:
    made = finished(all_absent(store, kind="labels", present=1), store, max_missing_fraction=None)
    assert made.completeness == pytest.approx(1 / 8)


def test_an_image_may_lack_no_chunk_unless_that_is_allowed(store: LocalStore) -> None:
    job = all_absent(store, kind="image", present=7)
    with pytest.raises(MissingChunksError, match="lacks 1 of 8 chunks"):
        finished(job, store, max_missing_fraction=None)


@pytest.mark.parametrize("steps", [(), ((1, 2, 2),)], ids=["as-it-is", "pooled"])
@pytest.mark.parametrize("output_format", ["zarr", "npy"])
@pytest.mark.parametrize("edge", [7, 8], ids=["fades", "cut"])
def test_an_absent_chunk_is_background_unless_data_border_on_it(
    store: LocalStore, output_format: str, edge: int, steps: Any
) -> None:
    """Of a source with chunks of 8, whose box begins at voxel 4 of the second chunk along z."""
    factor = np.prod([(1, 1, 1), *steps], axis=0)
    voxels = np.full((12, 16, 16), 3, "uint8")
    voxels[edge - 4 :] = 0  # by the chunk grid: 12 to `edge` + 8 hold data, 16 to 24 none
    voxels = voxels[:: factor[0], :: factor[1], :: factor[2]]
    reader = ArrayReader(voxels)
    grid = SourceGrid(
        chunk_zyx=(8, 8, 8), offset_zyx=(1, 0, 0), cells_zyx=(2, 2, 2), absent="unwritten"
    )
    plan = a_plan(
        voxels.shape,
        source_grid=grid,
        box_zyx=Box((12, 0, 0), (24, 16, 16)),
        downsample_steps=steps,
    )
    job = a_job(plan, reader, chunk_zyx=(4, 4, 4), output_format=output_format)
    Ledger(store, job).open()
    convert(job, reader, store, list(job.grid.shards()))
    make_coarse_levels(job, store, limits=ConcurrencyLimits(2, 2, 2))
    entry_changed(store, job, missing_chunks=("2/0/0", "2/0/1", "2/1/0", "2/1/1"))
    if edge == 7:
        assert len(finished(job, store, max_missing_fraction=None).missing_chunks) == 4
        return
    with pytest.raises(MissingChunksError, match="data border on 2/0/0, 2/0/1, 2/1") as caught:
        finished(job, store, max_missing_fraction=None)
    assert "--set max_missing_fraction=0.5;" in caught.value.advice
    assert finished(job, store, max_missing_fraction=0.5).missing_chunks


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("by", [-1, 1])
def test_data_border_on_an_absent_chunk_only_where_most_of_a_face_is_data(
    store: LocalStore, by: int, axis: int, share: float
) -> None:
    """The chunk amid 27 is absent; the layer that touches it on one side holds data in a share of
    its rows, and what lies behind that layer the other way round."""
    voxels = np.zeros((12, 12, 12), "uint8")
    chunk: list[slice | int] = [slice(4, 8)] * 3
    rows = np.zeros((4, 4), "uint8")
    rows[: int(4 * share)] = 3
    for distance, found in enumerate((rows, 3 - rows, 3 - rows, 3 - rows)):
        chunk[axis] = 8 + distance if by > 0 else 3 - distance
        voxels[tuple(chunk)] = found
    grid = SourceGrid(
        chunk_zyx=(4, 4, 4), offset_zyx=(0, 0, 0), cells_zyx=(3, 3, 3), absent="unwritten"
    )
    reader = ArrayReader(voxels)
    job = a_job(a_plan(voxels.shape, source_grid=grid), reader)
    Ledger(store, job).open()
    convert(job, reader, store, list(job.grid.shards()))
    entry_changed(store, job, missing_chunks=("1/1/1",))
    if share < 0.5:
        assert finished(job, store, max_missing_fraction=None).missing_chunks == ("1/1/1",)
        return
    with pytest.raises(MissingChunksError, match="data border on 1/1/1: such"):
        finished(job, store, max_missing_fraction=None)


@pytest.mark.parametrize(
    ("kind", "absent"), [("labels", "unwritten"), ("image", "background"), ("image", "empty")]
)
def test_a_chunk_amid_others_may_be_absent_from_labels_and_from_formats_that_leave_out_background(
    store: LocalStore, kind: str, absent: Any
) -> None:
    """Of an image in chunks that are written it may have been lost."""
    voxels = np.full((12, 12, 12), 3, "uint32")
    voxels[4:8, 4:8, 4:8] = 0
    grid = SourceGrid(chunk_zyx=(4, 4, 4), offset_zyx=(0, 0, 0), cells_zyx=(3, 3, 3), absent=absent)
    reader = ArrayReader(voxels)
    job = a_job(a_plan(voxels.shape, "uint32", kind=kind, source_grid=grid), reader)
    Ledger(store, job).open()
    convert(job, reader, store, list(job.grid.shards()))
    entry_changed(store, job, missing_chunks=("1/1/1",))
    assert finished(job, store, max_missing_fraction=None).missing_chunks == ("1/1/1",)


def test_an_image_without_a_chunk_stays_an_empty_volume(store: LocalStore) -> None:
    job = all_absent(store, kind="image")
    with pytest.raises(EmptyVolumeError):
        finished(job, store, max_missing_fraction=1.0)


def test_a_stack_counts_its_absent_sections_in_sections(store: LocalStore) -> None:
    """One section of two is half of the volume, however many chunks of ours a section fills."""
    job = holed(store, ["section 3"])
    job = job.model_copy(update={"plan": job.plan.model_copy(update={"sections": 2})})
    ledger = Ledger(store, job)
    for entry in Ledger(store, holed(store, ["section 3"])).entries().values():
        ledger.add(entry.model_copy(update={"fingerprint": job.fingerprint}))
    with pytest.raises(MissingChunksError, match=r"lacks 1 of 2 .* 50.00% where 40.00%"):
        finished(job, store, max_missing_fraction=0.4)


# --- the picture ------------------------------------------------------------------------------


def test_a_thumbnail_is_listed_and_named_in_the_root_document(store: LocalStore) -> None:
    job, seen = staged(store), []

    def draw(root: str, group: dict[str, Any], statistics: Any) -> tuple[bytes, int, int]:
        assert f"{root}/zarr.json" not in [item.key for item in store.list(root)], "drawn before"
        seen.append((root, "multiscales" in group["attributes"]["ome"], statistics.maximum))
        return b"a picture", 12, 34

    made = finished(job, store, draw=draw)
    assert seen == [(store.staging_key(job.final_key), True, VOXELS.max())]
    assert store.get(f"{made.volume_key}/{THUMBNAIL_KEY}") == b"a picture"
    assert lines(store, made)[f"volume.ome.zarr/{THUMBNAIL_KEY}"] == (
        hashlib.sha256(b"a picture").hexdigest()
    )
    (said,) = json.loads(store.get(f"{made.volume_key}/zarr.json"))["attributes"]["thumbnails"]
    assert (said["width"], said["height"]) == (12, 34)


@pytest.mark.parametrize("draw", [None, lambda *_: None])
def test_the_picture_of_a_killed_run_does_not_stay_where_none_is_drawn_now(
    store: LocalStore, draw: Any
) -> None:
    job = staged(store)
    store.put(f"{store.staging_key(job.final_key)}/{THUMBNAIL_KEY}", b"earlier")
    made = finished(job, store, draw=draw)
    assert store.size(f"{made.volume_key}/{THUMBNAIL_KEY}") is None
    assert not any(THUMBNAIL_KEY in name for name in lines(store, made))
