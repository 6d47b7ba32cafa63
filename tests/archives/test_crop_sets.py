"""A crop of ground truth with the EM around it: every class on the EM's grid, in one volume."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import macroscope
from emulators.s3 import S3Server
from lib.archives.openorganelle.crops import box_around, fitting_level
from lib.archives.pairs import Grid
from lib.errors import ConfigError, FormatError, GridMismatchError, TransportError
from lib.formats.zarr.array import parse_array
from lib.formats.zarr.hierarchy import survey_array
from lib.geometry import Box
from lib.ingest import stages
from lib.ingest.context import VolumeRequest
from lib.ingest.costs import cost_of
from lib.ingest.life import make_volume
from lib.ingest.record_tracker import RecordTracker
from lib.ingest.repair.volume import note_damage
from lib.ingest.result import ProgressEvent, subscribe
from lib.ingest.stages import plan_source
from lib.plan import VolumePlan
from lib.records.catalogue import consolidate
from lib.records.lifecycle import stored_bytes
from lib.records.model import Record
from lib.storage.base import StoreSettings
from lib.storage.keys import contents
from lib.storage.local import LocalStore
from lib.storage.open import open_store
from lib.verify.volume import verify_store
from lib.volumes.finish import finish
from tests.kit.memory_tree import MemoryObjects

EM = np.random.default_rng(2).integers(1, 255, (40, 48, 56)).astype(np.uint8)
CROP = "recon-1/labels/groundtruth/crop7"


def lay(
    server: S3Server, folder: Path, path: str, levels: list[tuple[NDArray[Any], Any, Any]]
) -> None:
    """A multiscale of Zarr v2 at a path of the data set: voxels, scale and centre of each level."""
    for number, (voxels, _, _) in enumerate(levels):
        zarr.create_array(
            folder / path / f"s{number}", data=voxels, chunks=(16, 16, 16), zarr_format=2
        )
    attributes = {
        "multiscales": [
            {
                "version": "0.4",
                "axes": [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"],
                "datasets": [
                    {
                        "path": f"s{number}",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [*scale]},
                            {"type": "translation", "translation": [*at]},
                        ],
                    }
                    for number, (_, scale, at) in enumerate(levels)
                ],
            }
        ]
    }
    (folder / path / ".zattrs").write_text(json.dumps(attributes))
    (folder / path / ".zgroup").write_text('{"zarr_format": 2}')
    store = server.store()
    for file in (folder / path).rglob("*"):
        if file.is_file():
            store.put(f"cells/cells.zarr/{file.relative_to(folder)}", file.read_bytes())


def classes() -> dict[str, NDArray[Any]]:
    """Drawn at twice the EM's resolution, as CellMap's crops are."""
    shape = (16, 24, 20)
    z, y, x = np.indices(shape)
    return {
        "mito": ((z // 5 + y // 7) % 3).astype(np.uint8),
        "nuc": ((x // 6) % 2).astype(np.uint8),
    }


def lay_data_set(server: S3Server, folder: Path) -> None:
    """EM of two levels, and a crop of two classes."""
    levels = [(EM, (8.0,) * 3, (0.0,) * 3), (EM[::2, ::2, ::2], (16.0,) * 3, (4.0,) * 3)]
    lay(server, folder, "recon-1/em/fibsem-uint8", levels)
    for name, voxels in classes().items():
        # centres at half a voxel of the labels: their edges lie on the EM's
        at = (96.0 - 2.0, 80.0 - 2.0, 64.0 - 2.0)
        lay(server, folder, f"{CROP}/{name}", [(voxels, (4.0,) * 3, at)])


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server("crop-sets") as server:
        lay_data_set(server, tmp_path_factory.mktemp("crops"))
        yield server


def bench_of(bench: Any, bucket: S3Server, **settings: Any) -> Any:
    place = {"s3_uri": f"s3://{bucket.bucket}", "s3_endpoint_url": bucket.endpoint_url}
    chosen = {"dataset_id": "cells", "zarr_path": CROP, "with_em": True}
    return bench("openorganelle", **{**place, **chosen, **settings})


def planned(one: Any, tmp_path: Path) -> list[VolumePlan]:
    return [*plan_source("openorganelle", one.config, tmp_path / "plan", one.store).plans]


def test_all_classes_and_the_em_around_them_make_one_volume_and_one_record(
    bench: Any, bucket: S3Server, tmp_path: Path
) -> None:
    one = bench_of(bench, bucket, padding=3)
    (group,) = planned(one, tmp_path)
    box = Box((12 - 3, 10 - 3, 8 - 3), (12 + 8 + 3, 10 + 12 + 3, 8 + 10 + 3))
    assert (group.kind, group.scale_level, group.box_zyx) == ("image", "s0", box)
    assert group.name == "cells_recon-1_crop7_pad3"
    assert [plan.kind for plan in group.members] == ["labels"] * 2
    record = one.complete_record(group)
    # chunks and the last look at every array; planning asks apart, and is told apart
    made = record["metadata"]["provenance"]["requests"]
    assert made == cost_of(group, one.config, 1.5).download_requests
    assert len([*contents(one.store).records]) == 1
    volume = tmp_path / "data" / record["files"]["volume"]
    np.testing.assert_array_equal(zarr.open_array(volume / "0", mode="r")[:], EM[box.slices()])
    listed = json.loads((volume / "labels/zarr.json").read_text())["attributes"]["ome"]["labels"]
    names = [f"cells_recon-1_crop7_pad3.{name}" for name in sorted(classes())]
    assert listed == [f"{name}.ome.zarr" for name in names]
    assert record["metadata"]["technical"]["label_images"] == names
    assert record["additional_metadata"]["crop"] == CROP
    for member, (name, voxels) in zip(record["members"], sorted(classes().items()), strict=True):
        inside = tmp_path / "data" / member["files"]["volume"]
        assert inside.parent.parent == volume
        np.testing.assert_array_equal(zarr.open_array(inside / "0", mode="r")[:], voxels)
        more, technical = member["additional_metadata"], member["metadata"]["technical"]
        assert (more["crop"], more["class"]) == (CROP, name)
        assert more["pair"]["overlap_voxels_of_image"] == str(Box((3, 3, 3), (11, 15, 13)))
        assert technical["labels"]["ids"] == len(set(np.unique(voxels)) - {0})
    (verdict,) = verify_store(one.store, digests=True)
    assert verdict.problems == ()
    assert not verdict.facts.unread
    unproven = {fact for fact in verdict.facts.not_provable if fact.startswith("members")}
    assert "technical.label_images" in verdict.facts.proven
    assert unproven == {"members[].source_id", "members[].additional_metadata"}
    state = tmp_path / "data/openorganelle/.partial"
    assert not state.exists() or not [*state.iterdir()]


def test_progress_counts_the_classes_too(bench: Any, bucket: S3Server, tmp_path: Path) -> None:
    """The EM is a few shards; a bar that was full with it stood still for forty classes."""
    one = bench_of(bench, bucket)
    (plan,) = planned(one, tmp_path)
    seen: list[ProgressEvent] = []
    with subscribe(seen.append):
        one.complete_record(plan)
    counts = [(event.done_shards, event.total_shards) for event in seen if event.total_shards]
    assert {total for _, total in counts} == {3}
    assert counts[-1] == (3, 3)
    assert (1, 3) in counts


def test_a_group_opens_with_each_class_and_the_record_that_they_share(
    bench: Any, bucket: S3Server, tmp_path: Path
) -> None:
    one = bench_of(bench, bucket)
    (group,) = planned(one, tmp_path)
    one.complete_record(group)
    opened = macroscope.open("cells_recon-1_crop7", data_dir=tmp_path / "data")
    assert sorted(opened.labels) == [f"cells_recon-1_crop7.{name}" for name in sorted(classes())]
    for name, voxels in classes().items():
        inside = opened.labels[f"cells_recon-1_crop7.{name}"]
        np.testing.assert_array_equal(inside.levels[0][:], voxels)
        assert inside.record is not None
        assert inside.record["additional_metadata"]["class"] == name


def before_each_class_ends(patch: pytest.MonkeyPatch, told: Callable[[str], None]) -> None:
    """Tell the name of each label image of a group before it is proven and published."""

    def tells(job: Any, *rest: Any, **more: Any) -> Any:
        if job.plan.within is not None:
            told(job.plan.name)
        return finish(job, *rest, **more)

    patch.setattr(stages, "finish", tells)


def test_a_run_that_ended_among_the_classes_goes_on_there(
    bench: Any, bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench_of(bench, bucket)
    (group,) = planned(one, tmp_path)
    made: list[str] = []

    def dies(name: str) -> None:
        if len(made) == 1:
            raise TransportError("the line is cut")
        made.append(name)

    before_each_class_ends(monkeypatch, dies)
    assert one.make(group).status == "failed"
    assert one.store.size(f"openorganelle/{group.name}.ome.zarr/zarr.json") is not None
    shards: list[str] = []
    before_each_class_ends(monkeypatch, shards.append)
    record = one.complete_record(group)
    assert shards == [member.name for member in group.members]
    assert record["metadata"]["provenance"]["bytes"] < sum(
        plan.download_bytes for plan in (group, *group.members)
    )
    assert one.make(group).made is False


def test_classes_of_an_earlier_choice_do_not_stay(
    bench: Any, bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that failed after its classes, then one of fewer classes on the same image."""
    one = bench_of(bench, bucket)
    (group,) = planned(one, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(RecordTracker, "complete", lambda *_: 1 / 0)
        assert one.make(group).status == "failed"
    fewer = bench_of(bench, bucket, exclude=["*/mito/*"])
    (group,) = planned(fewer, tmp_path)
    record = fewer.complete_record(group)
    inside = {path.name for path in (tmp_path / "data/openorganelle").glob("*/labels/*.ome.zarr")}
    assert inside == {"cells_recon-1_crop7.nuc.ome.zarr"}
    assert record["metadata"]["technical"]["label_images"] == ["cells_recon-1_crop7.nuc"]
    (verdict,) = verify_store(one.store, digests=True)
    assert verdict.problems == ()


@pytest.mark.parametrize("file", ["0/c/0/0/0", "0/zarr.json", "zarr.json"])
def test_what_is_damaged_of_a_class_is_found_and_made_anew(
    bench: Any, bucket: S3Server, tmp_path: Path, file: str
) -> None:
    one = bench_of(bench, bucket)
    (group,) = planned(one, tmp_path)
    record = one.complete_record(group)
    whole = tmp_path / "data" / record["members"][1]["files"]["volume"] / file
    good = whole.read_bytes()
    whole.write_bytes(b"?" * len(good))
    (verdict,) = verify_store(one.store, digests=True)
    assert [*verdict.damaged] == [f"{record['members'][1]['files']['volume']}/{file}"]
    key = f"openorganelle/metadata_{group.name}.json"
    note_damage(one.store, key, verdict.damaged)
    repaired = one.make(group)
    assert (repaired.status, repaired.repaired_files) == ("complete", 1), repaired
    assert whole.read_bytes() == good
    (verdict,) = verify_store(one.store, digests=True)
    assert verdict.problems == ()


def test_a_group_in_a_bucket_goes_on_among_its_classes_and_is_proven(
    bench: Any, bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the EM lies under its final name from the first, and its classes below it."""
    one = bench_of(bench, bucket, padding=2)
    access = StoreSettings(endpoint_url=bucket.endpoint_url, key=bucket.key, secret=bucket.secret)
    uri = f"s3://{bucket.bucket}/made"
    store = open_store(uri, access)
    (group,) = plan_source("openorganelle", one.config, tmp_path / "plan", store).plans
    request = VolumeRequest(group, one.config, uri, access, tmp_path / "scratch", "a test")
    made = list[str]()

    def dies(name: str) -> None:
        if made:
            raise TransportError("the line is cut")
        made.append(name)

    with monkeypatch.context() as patch:
        before_each_class_ends(patch, dies)
        assert make_volume(request, "a test").status == "failed"
    for status in ("made", "there"):
        again = make_volume(request, "a test")
        assert (again.status, again.made) == ("complete", status == "made"), again.error
    (verdict,) = verify_store(store, digests=True)
    assert verdict.problems == ()
    volume = f"openorganelle/{group.name}.ome.zarr"
    store.delete_tree(f"{volume}/labels/{group.name}.nuc.ome.zarr")
    again = make_volume(request, "a test")
    assert again.status == "complete", again.error
    (verdict,) = verify_store(store, digests=True)
    assert verdict.problems == ()


def test_a_class_that_is_gone_is_no_complete_volume(
    bench: Any, bucket: S3Server, tmp_path: Path
) -> None:
    one = bench_of(bench, bucket)
    (group,) = planned(one, tmp_path)
    record = one.complete_record(group)
    one.store.delete_tree(record["members"][0]["files"]["volume"])
    (verdict,) = verify_store(one.store, digests=False)
    assert verdict.problems
    assert verdict.damaged
    again = one.make(group)
    assert (again.status, again.error) == ("complete", None)
    (verdict,) = verify_store(one.store, digests=True)
    assert verdict.problems == ()


MANY = "recon-1/labels/groundtruth"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Three crops of forty classes, as the CellMap challenge has 289."""
    with S3Server("many-crops") as server:
        folder = tmp_path_factory.mktemp("many")
        lay(server, folder, "recon-1/em/fibsem-uint8", [(EM, (8.0,) * 3, (0.0,) * 3)])
        name = "class0"
        lay(server, folder, f"{MANY}/crop1/{name}", [(drawn(0), (8.0,) * 3, (64.0,) * 3)])
        store, prefix = server.store(), "cells/cells.zarr"
        first = folder / MANY / "crop1" / name
        documents = {key: (first / key).read_bytes() for key in (".zgroup", ".zattrs")}
        array = (first / "s0/.zarray").read_bytes()
        codec = numcodecs.get_codec(json.loads(array)["compressor"])
        for crop in (1, 2, 3):
            for number in range(40):
                key = f"{prefix}/{MANY}/crop{crop}/class{number}"
                for document, data in documents.items():
                    store.put(f"{key}/{document}", data)
                store.put(f"{key}/s0/.zarray", array)
                store.put(f"{key}/s0/0.0.0", bytes(codec.encode(drawn(number + 100 * crop))))
        yield server


def drawn(number: int) -> NDArray[np.uint8]:
    """Ground truth of a class: 16 voxels along each axis, one chunk."""
    return np.random.default_rng(number).integers(0, 3, (16, 16, 16)).astype(np.uint8)


def test_crops_of_forty_classes_are_a_record_each_and_planned_by_few_requests(
    bench: Any, many: S3Server, tmp_path: Path
) -> None:
    one = bench_of(bench, many, zarr_path=MANY)
    groups = one.plan()
    asked = sum(seen["requests"] for seen in one.session.counters.snapshot().values())
    assert [group.name for group in groups] == [f"cells_recon-1_crop{n}" for n in (1, 2, 3)]
    assert [len(group.members) for group in groups] == [40] * 3
    # two documents of each class, side by side; a page of the listing for each thousand objects
    assert asked <= 2 * 120 + 40, asked
    found = plan_source("openorganelle", one.config, tmp_path / "plan", one.store)
    assert found.requests == asked
    groups = [*found.plans]
    cost = cost_of(groups[1], one.config, 2.0)
    assert cost.download_requests == groups[1].download_requests + 3 * 40
    record = one.complete_record(groups[1])
    records = [*contents(one.store).records]
    assert len(records) == 1
    assert records[0].size < 40 * 8192
    for number, member in enumerate(
        sorted(record["members"], key=lambda m: int(m["name"].rpartition("class")[2]))
    ):
        inside = tmp_path / "data" / member["files"]["volume"]
        np.testing.assert_array_equal(
            zarr.open_array(inside / "0", mode="r")[:], drawn(number + 200)
        )
    catalogued = consolidate(one.store, LocalStore(tmp_path / "metadata")).catalog["records"]
    assert len(json.dumps(catalogued[0]["record"])) < records[0].size / 4
    assert Record.read(catalogued[0]["record"]).stored_bytes == stored_bytes(record)
    there = [item for item in one.store.list() if ".ome.zarr/" in item.key]
    mine = [one for one in there if not one.key.endswith((".SHA256SUMS", "labels/zarr.json"))]
    assert stored_bytes(record) == sum(item.size for item in mine)
    assert len(catalogued[0]["record"]["metadata"]["technical"]["label_images"]) == 40


def test_a_small_part_of_wide_planes_is_listed_by_rows() -> None:
    """A plane of the whole EM is thousands of chunks, of which a crop wants some."""
    document = json.dumps(
        {
            "zarr_format": 2,
            "shape": [8, 80, 80],
            "chunks": [1, 1, 1],
            "dtype": "|u1",
            "compressor": None,
            "filters": None,
            "order": "C",
            "fill_value": 0,
            "dimension_separator": "/",
        }
    ).encode()
    holes = {(3, 5, 6), (4, 6, 4)}
    chunks = {i: bytes(1) for i in np.ndindex(8, 80, 80) if i not in holes and i[:2] != (3, 7)}
    objects = {f"s0/{z}/{y}/{x}": data for (z, y, x), data in chunks.items()}
    tree = MemoryObjects({"s0/.zarray": document, **objects})
    listed: list[str] = []
    real = tree.list_all
    tree.list_all = lambda prefix="": listed.append(prefix) or real(prefix)  # type: ignore[method-assign,func-returns-value]
    box = Box((3, 5, 4), (5, 8, 7))
    found = survey_array(tree, "s0", parse_array(document, "s0"), box)
    assert listed == ["s0/3/5", "s0/3/6", "s0/4/5", "s0/4/6", "s0/4/7"]
    assert found.grid is not None
    assert found.grid.missing() == holes | {(3, 7, x) for x in (4, 5, 6)}
    listed.clear()
    survey_array(tree, "s0", parse_array(document, "s0"), Box((3, 0, 0), (5, 80, 80)))
    assert listed == ["s0/3", "s0/4"]


def test_padding_ends_where_the_em_does(bench: Any, bucket: S3Server, tmp_path: Path) -> None:
    (em,) = planned(bench_of(bench, bucket, padding=1000), tmp_path)
    assert em.shape_zyx == EM.shape


@pytest.mark.parametrize("where", ["", "/s0"], ids=["group", "array"])
@pytest.mark.parametrize("short", [0, 1])
def test_a_class_that_is_in_no_voxel_is_background_where_its_metadata_say_so(
    bench: Any, tmp_path: Path, where: str, short: int
) -> None:
    """Its writer left every chunk out; so does an upload that never was."""
    with S3Server("crops-empty") as server:
        lay_data_set(server, tmp_path / "tree")
        at = (96.0 - 2.0, 80.0 - 2.0, 64.0 - 2.0)
        empty = np.zeros_like(classes()["mito"])
        lay(server, tmp_path / "tree", f"{CROP}/er", [(empty, (4.0,) * 3, at)])
        path = tmp_path / "tree" / CROP / f"er{where}/.zattrs"
        counts = {"absent": empty.size - short}
        own = {"annotation": {"class_name": "er", "complement_counts": counts}}
        said = {**json.loads(path.read_text()), "cellmap": own}
        server.store().put(f"cells/cells.zarr/{CROP}/er{where}/.zattrs", json.dumps(said).encode())
        one = bench_of(bench, server)
        (group,) = planned(one, tmp_path)
        if short:
            result = one.make(group)
            assert "none of the 4 chunks of these labels" in str(result.error)
            assert f"{CROP}/er/s0" in str(result.error)
            return
        record = one.complete_record(group)
        (er,) = [m for m in record["members"] if m["files"]["volume"].endswith(".er.ome.zarr")]
        inside = zarr.open_array(tmp_path / "data" / er["files"]["volume"] / "0", mode="r")[:]
        np.testing.assert_array_equal(inside, empty)
        assert er["metadata"]["technical"]["labels"]["background_fraction"] == 1.0
        notes = er["metadata"]["quality"]["notes"] if "quality" in er["metadata"] else []
        assert any("voxels as absent" in note for note in notes), er
        (verdict,) = verify_store(one.store, digests=True)
        assert verdict.problems == ()


def test_what_a_class_says_of_its_values_is_in_its_part_of_the_record(
    bench: Any, tmp_path: Path
) -> None:
    """Its name and colours, and that a value of it means that nobody looked there."""
    with S3Server("crops-unknown") as server:
        lay_data_set(server, tmp_path / "tree")
        path = tmp_path / "tree" / CROP / "mito/.zattrs"
        encoding = {"absent": 0, "present": 1, "unknown": 2}
        kind = {"type": "semantic_segmentation", "encoding": encoding}
        own = {"annotation": {"class_name": "mito", "annotation_type": kind}}
        said = {**json.loads(path.read_text()), "cellmap": own}
        server.store().put(f"cells/cells.zarr/{CROP}/mito/.zattrs", json.dumps(said).encode())
        one = bench_of(bench, server)
        record = one.complete_record(planned(one, tmp_path)[0])
        members = {m["files"]["volume"].split(".")[-3]: m for m in record["members"]}
        doubts = {
            name: [n for n in member["metadata"]["quality"]["notes"] if "nothing is annotated" in n]
            for name, member in members.items()
        }
        assert [note.split()[0] for note in doubts["mito"]] == ["2"]
        assert doubts["nuc"] == []
        root = json.loads(one.store.get(f"{members['mito']['files']['volume']}/zarr.json"))
        assert root["attributes"]["ome"]["image-label"]["properties"] == [
            {"label-value": 1, "class": "mito"},
            {"label-value": 2, "class": "unknown"},
        ]


def test_what_is_no_label_is_refused(bench: Any, bucket: S3Server, tmp_path: Path) -> None:
    one = bench_of(bench, bucket, zarr_path="recon-1/em/fibsem-uint8")
    with pytest.raises(ConfigError, match="is no labels"):
        planned(one, tmp_path)
    with pytest.raises(ConfigError, match="no label images"):
        planned(bench_of(bench, bucket, output_format="npy"), tmp_path)
    with pytest.raises(ConfigError, match="0 multiscales of EM"):
        planned(bench_of(bench, bucket, em_path="recon-1/other"), tmp_path)


@pytest.mark.parametrize(
    ("voxel", "at", "level"),
    [(8.0, 96.0, "s0"), (4.0, 94.0, "s0"), (16.0, 100.0, "s1"), (32.0, 108.0, "s1")],
)
def test_the_level_is_that_of_the_labels_grid(voxel: float, at: float, level: str) -> None:
    """By the rule of CellMap's translations: (voxel - base) / 2 modulo the voxel."""
    levels = [
        Grid("s0", (40, 40, 40), (8.0,) * 3, (0.0,) * 3),
        Grid("s1", (20, 20, 20), (16.0,) * 3, (4.0,) * 3),
    ]
    labels = Grid("crop", (4, 4, 4), (voxel,) * 3, (at,) * 3)
    chosen = fitting_level(levels, [labels])
    assert chosen.path_in_source == level
    assert box_around(chosen, [labels], 0).shape_zyx[0] == round(4 * voxel / chosen.voxel_nm_zyx[0])
    shifted = Grid("crop", (4, 4, 4), (voxel,) * 3, (at + min(voxel, 8.0) / 4,) * 3)
    with pytest.raises(GridMismatchError, match="beside the grid"):
        fitting_level(levels, [shifted])


def test_a_crop_that_cannot_be_had_costs_no_other(bench: Any, tmp_path: Path) -> None:
    """One off the EM's grid, one beyond the EM, one with a class whose document is damaged."""
    with S3Server("crops-bad") as server:
        lay_data_set(server, tmp_path / "tree")
        voxels, folder = classes()["mito"], CROP.rpartition("/")[0]
        for name, at in (("crop8", 83.0), ("crop9", 8002.0), ("crop10", 78.0)):
            lay(
                server,
                tmp_path / "tree",
                f"{folder}/{name}/mito",
                [(voxels, (4.0,) * 3, (at,) * 3)],
            )
        place = f"cells/cells.zarr/{folder}"
        server.store().put(f"{place}/crop10/er/.zattrs", b'{"multiscales": [{}]}')
        server.store().put(f"{place}/crop10/er/.zgroup", b'{"zarr_format": 2}')
        one = bench_of(bench, server, zarr_path=folder)
        (plan,) = planned(one, tmp_path)
        assert plan.name == "cells_recon-1_crop7"
        told = {note.partition(" was left out: ")[0]: note for note in plan.notes if "left" in note}
        assert "beside the grid" in told[f"{folder}/crop8"]
        assert "nothing in common" in told[f"{folder}/crop9"]
        assert "er: " in told[f"{folder}/crop10"]
        for name, error in (("crop8", GridMismatchError), ("crop10", FormatError)):
            with pytest.raises(error):
                planned(bench_of(bench, server, zarr_path=f"{folder}/{name}"), tmp_path)
        both = [CROP, f"{folder}/crop9"]
        with pytest.raises(GridMismatchError):
            planned(bench_of(bench, server, zarr_path=both), tmp_path)
