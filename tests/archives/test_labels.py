"""Label stacks of every archive that may hold them: each level is that of a slow, obvious count."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from lib.errors import ConfigError
from lib.ingest.repair.volume import note_damage
from lib.ingest.stages import plan_source
from lib.plan import VolumePlan
from lib.verify.volume import verify_store
from lib.volumes.label_ids import MOST_IDS
from tests.formats import cases_n5, cases_precomputed

SHAPE = (9, 100, 110)


def cells(dtype: str = "uint8", *, most: int = 250) -> NDArray[Any]:
    """Ids in boxes of odd sizes, ids 1 and 3 side by side, some voxels alone in background."""
    random = np.random.default_rng(3)
    voxels = np.zeros(SHAPE, dtype)
    for number in range(60):
        z, y, x = (int(random.integers(0, n - 3)) for n in SHAPE)
        depth, height, width = random.integers(1, 12, 3)
        voxels[z : z + depth, y : y + height, x : x + width] = 1 + number * 7919 % most
    voxels[:, 20:41, 30:51], voxels[:, 20:41, 51:72] = 1, 3
    return voxels


def slowly_pooled(voxels: NDArray[Any], factor: tuple[int, int, int]) -> NDArray[Any]:
    """The most frequent of the children that exist, the smallest of those that are as frequent."""
    shape = [-(-n // f) for n, f in zip(voxels.shape, factor, strict=True)]
    pooled = np.zeros(shape, voxels.dtype)
    for at in itertools.product(*map(range, shape)):
        children = voxels[tuple(slice(i * f, i * f + f) for i, f in zip(at, factor, strict=True))]
        votes = Counter(children.reshape(-1).tolist())
        most = max(votes.values())
        pooled[at] = min(one for one, count in votes.items() if count == most)
    return pooled


def assert_levels(path: Path, truth: NDArray[Any]) -> None:
    group = zarr.open_group(path, mode="r")
    levels = [group[str(number)][:] for number in range(len(list(group.array_keys())))]
    np.testing.assert_array_equal(levels[0], truth)
    assert len(levels) > 1
    for finer, level in itertools.pairwise(levels):
        factor = tuple(-(-a // b) for a, b in zip(finer.shape, level.shape, strict=True))
        np.testing.assert_array_equal(level, slowly_pooled(finer, factor))  # type: ignore[arg-type]
        assert set(np.unique(level).tolist()) <= set(np.unique(finer).tolist())


def planned(bench: Any, tmp_path: Path) -> VolumePlan:
    (plan,) = plan_source(bench.archive.name, bench.config, tmp_path / "plan").plans
    return plan


def made(bench: Any, tmp_path: Path, truth: NDArray[Any]) -> dict[str, Any]:
    plan = planned(bench, tmp_path)
    record: dict[str, Any] = bench.complete_record(plan)
    assert record["metadata"]["core"]["kind"] == "labels"
    assert record["metadata"]["technical"]["labels"]["ties"] == "smallest"
    assert_levels(tmp_path / "data" / record["files"]["volume"], truth)
    said = record["metadata"]["technical"]["labels"]
    assert said["ids"] == len(np.unique(truth[truth != 0])) == said["ids_of_levels"][0]
    assert said["largest"] == int(truth.max())
    assert said["background_fraction"] == pytest.approx((truth == 0).mean())
    assert len(said["ids_of_levels"]) == len(record["metadata"]["technical"]["levels"])
    return record


def test_label_sections_of_empiar(bench: Any, empiar_entry: Any, tmp_path: Path) -> None:
    voxels = cells("uint16", most=60000)
    files = {}
    for z, plane in enumerate(voxels):
        tifffile.imwrite(tmp_path / f"{z}.tif", plane)
        files[f"seg_{z:03d}.tif"] = tmp_path / f"{z}.tif"
    record = made(bench("ebi", entry_id=empiar_entry(files)), tmp_path, voxels)
    by = record["metadata"]["provenance"]["stated"]["kind"]
    assert by == {"source": "name", "where": "'seg_#.tif' speaks of 'seg'"}


@pytest.mark.parametrize("name", ["training_groundtruth.tif", "cells.tif"])
def test_a_label_stack_of_epfl(
    bench: Any, samples: Any, published: Any, tmp_path: Path, name: str
) -> None:
    voxels, beside = cells(), published("volumedata.tif").with_name(name)
    tifffile.imwrite(beside, voxels, photometric="minisblack")
    url = bench("epfl").config.download_url.replace("volumedata.tif", name)
    settings = {} if "truth" in name else {"kind": "labels"}
    try:
        made(bench("epfl", download_url=url, source_id="L", **settings), tmp_path, voxels)
    finally:
        beside.unlink()


def test_a_label_stack_of_idr(bench: Any, idr_image: Any, tmp_path: Path) -> None:
    voxels = cells()
    tifffile.imwrite(tmp_path / "x.tif", voxels, photometric="minisblack")
    one = bench("idr", image_ids=[idr_image(tmp_path / "x.tif", SHAPE)], kind="labels")
    made(one, tmp_path, voxels)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "uint64"])
def test_labels_by_address(bench: Any, tmp_path: Path, dtype: str) -> None:
    """Of every width, negative and beyond what floats hold exactly."""
    voxels = cells(dtype)
    if dtype == "int16":
        voxels[voxels == 3] = -1
    if np.dtype(dtype).itemsize == 8:
        voxels[voxels == 3] = 2**53 + 1
        voxels[voxels == 1] = np.iinfo(dtype).max
    zarr.create_array(tmp_path / "cells.zarr", data=voxels, chunks=(9, 50, 55), zarr_format=2)
    one = bench("address", addresses=[str(tmp_path / "cells.zarr")], kind="labels")
    record = made(one, tmp_path, voxels)
    technical = record["metadata"]["technical"]
    assert technical["global_max"] == int(voxels.max())
    assert technical["histogram"]["first"] <= int(voxels.min())
    (verdict,) = verify_store(one.store, digests=True)
    assert not verdict.problems
    assert {"technical.histogram", "technical.global_max"} <= {*verdict.facts.proven}


@pytest.mark.parametrize("way", ["zarr2", "zarr3", "hdf5"])
def test_booleans_are_a_mask(bench: Any, tmp_path: Path, way: str) -> None:
    """Half true is true or false, whatever their place is called: never an average."""
    voxels = cells() > 100
    if way == "hdf5":
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["volume"] = voxels
        address = f"{tmp_path / 'x.h5'}|hdf5:volume"
    else:
        address, version = str(tmp_path / "x.zarr"), 2 if way == "zarr2" else 3
        zarr.create_array(address, data=voxels, chunks=(9, 50, 55), zarr_format=version)
    record = made(bench("address", addresses=[address]), tmp_path, voxels.astype("u1"))
    assert record["metadata"]["provenance"]["stated"]["kind"]["where"] == "data type bool"


def big() -> NDArray[Any]:
    """Ids beyond what a float holds exactly."""
    voxels = cells("uint64")
    voxels[voxels > 0] += np.uint64(2**60)
    return voxels


def by_zarr3(folder: Path) -> tuple[str, NDArray[Any]]:
    zarr.create_array(
        folder / "x.zarr", data=big(), chunks=(9, 25, 55), shards=(9, 50, 55), zarr_format=3
    )
    return "x.zarr", big()


def by_n5(folder: Path) -> tuple[str, NDArray[Any]]:
    cases_n5.dataset(folder / "x.n5/seg", big(), {"type": "gzip"}, contentType="segmentation")
    return "x.n5|n5:seg", big()


def by_precomputed(folder: Path) -> tuple[str, NDArray[Any]]:
    cases_precomputed.volume(
        folder / "seg",
        big(),
        encoding="compressed_segmentation",
        kind="segmentation",
        compressed_segmentation_block_size=[8, 8, 8],
    )
    return "seg|neuroglancer-precomputed:", big()


def by_hdf5(folder: Path) -> tuple[str, NDArray[Any]]:
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("volumes/labels/ids", data=big(), chunks=(4, 50, 55))
    return "x.h5|hdf5:volumes/labels/ids", big()


def by_nrrd(folder: Path) -> tuple[str, NDArray[Any]]:
    voxels = cells("uint16")
    head = "NRRD0004\ntype: uint16\ndimension: 3\nsizes: 110 100 9\nendian: little\nencoding: raw"
    (folder / "mask.nrrd").write_bytes(f"{head}\n\n".encode() + voxels.tobytes())
    return "mask.nrrd", voxels


def by_png(folder: Path) -> tuple[str, NDArray[Any]]:
    """Sections of a palette: its indices are the ids."""
    (folder / "labels").mkdir()
    for number, plane in enumerate(cells()):
        picture = Image.fromarray(plane, "P")
        picture.putpalette([7, 9, 11] * 256)
        picture.save(folder / f"labels/mask_{number:03d}.png")
    return "labels|png:", cells()


@pytest.mark.parametrize("written", [by_zarr3, by_n5, by_precomputed, by_hdf5, by_nrrd, by_png])
def test_every_level_is_right_whatever_the_format(bench: Any, tmp_path: Path, written: Any) -> None:
    address, voxels = written(tmp_path)
    place = bench("address", addresses=[f"{tmp_path}/{address}"], kind="labels")
    made(place, tmp_path, voxels)


def annotated(folder: Path, version: int, group: dict[str, Any], voxels: NDArray[Any]) -> str:
    """A multiscale of one level whose group has further attributes, outside of ``labels``."""
    root = zarr.open_group(folder / f"x{version}.zarr", mode="w", zarr_format=version)  # type: ignore[arg-type]
    names = {} if version == 2 else {"dimension_names": [*"zyx"]}
    root.create_array("s0", data=voxels, chunks=(9, 50, 55), **names)
    scale = [{"type": "scale", "scale": [5.24, 4.0, 4.0]}]
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    block = {"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": scale}]}
    if version == 2:
        root.attrs.update({"multiscales": [{"version": "0.4", **block}], **group})
    else:
        drawn = {key: group.pop(key) for key in [*group] if key == "image-label"}
        root.attrs.update({"ome": {"version": "0.5", "multiscales": [block], **drawn}, **group})
    return str(folder / f"x{version}.zarr")


@pytest.mark.parametrize("version", [2, 3])
def test_colours_and_names_of_a_sources_ids_are_carried_over(
    bench: Any, tmp_path: Path, version: int
) -> None:
    voxels = (cells() % 3).astype("u1")
    said = {
        "colors": [
            {"label-value": 2, "rgba": [9, 8, 7, 128]},
            {"label-value": 1, "rgba": [1, 2, 300, 4]},
            {"label-value": 77, "rgba": [1, 2, 3, 4]},
        ],
        "properties": [
            {"label-value": 1, "class": "mito", "area (pixels)": 5, "deep": {"a": 1}},
            {"label-value": 77, "class": "not there"},
            {"label-value": "1", "class": "no id"},
        ],
    }
    address = annotated(tmp_path, version, {"image-label": said}, voxels)
    one = bench("address", addresses=[address])
    record = made(one, tmp_path, voxels)
    key = f"{record['files']['volume']}/zarr.json"
    root = json.loads(one.store.get(key))
    shown = root["attributes"]["ome"]["image-label"]
    assert shown["properties"] == [{"label-value": 1, "class": "mito", "area (pixels)": 5}]
    assert [row["label-value"] for row in shown["colors"]] == [0, 1, 2]
    assert shown["colors"][2]["rgba"] == [9, 8, 7, 128]
    assert shown["colors"][1]["rgba"][3] == 255, "one that cannot be read is ours"
    (verdict,) = verify_store(one.store, digests=True)
    assert not verdict.problems
    # and a repair writes the document as it was
    one.store.put(key, b"{}")
    (verdict,) = verify_store(one.store, digests=True)
    note_damage(one.store, f"address/metadata_{planned(one, tmp_path).name}.json", verdict.damaged)
    repaired = one.make(planned(one, tmp_path))
    assert repaired.status == "complete", repaired.error
    assert json.loads(one.store.get(key)) == root


@pytest.mark.parametrize("way", [2, 3, "n5"])
def test_an_annotation_of_cellmap_is_labels_and_names_its_class(
    bench: Any, tmp_path: Path, way: Any
) -> None:
    """Wherever it lies: nothing in its address speaks of labels."""
    voxels = (cells() % 2).astype("u1")
    encoding = {"absent": 0, "present": 1, "unknown": 255}
    kind = {"type": "semantic_segmentation", "encoding": encoding}
    group = {"cellmap": {"annotation": {"class_name": "mito", "annotation_type": kind}}}
    if way == "n5":
        cases_n5.dataset(tmp_path / "x.n5/mito/s0", voxels, {"type": "gzip"}, **group)
        address = f"{tmp_path}/x.n5|n5:mito/s0"
    else:
        address = annotated(tmp_path, way, group, voxels)
    one = bench("address", addresses=[address])
    record = made(one, tmp_path, voxels)
    by = record["metadata"]["provenance"]["stated"]["kind"]
    assert by == {"source": "file", "where": "cellmap's annotation"}
    if way != "n5":
        root = json.loads(one.store.get(f"{record['files']['volume']}/zarr.json"))
        shown = root["attributes"]["ome"]["image-label"]
        assert shown["properties"] == [{"label-value": 1, "class": "mito"}]


def test_the_largest_ids_are_exact_in_the_record(bench: Any, tmp_path: Path) -> None:
    """Where a float of 64 bits would round: JSON as it is written, bins included."""
    voxels = cells("uint64") + np.uint64(2**63 + 1)
    zarr.create_array(tmp_path / "cells.zarr", data=voxels, chunks=(9, 50, 55), zarr_format=2)
    record = made(bench("address", addresses=[str(tmp_path / "cells.zarr")]), tmp_path, voxels)
    assert record["metadata"]["technical"]["global_min"] == 2**63 + 1
    assert record["metadata"]["technical"]["histogram"]["first"] == 2**63 + 1


def test_floats_are_no_labels_whatever_is_asked(bench: Any, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", np.zeros((5, 20, 30), np.float32))
    with pytest.raises(ConfigError, match="labels are integers"):
        planned(bench("address", addresses=[str(tmp_path / "mask.tif")], kind="labels"), tmp_path)


def test_ids_of_an_npy_are_counted(bench: Any, tmp_path: Path) -> None:
    voxels = cells()
    tifffile.imwrite(tmp_path / "mask.tif", voxels, photometric="minisblack")
    one = bench("address", addresses=[str(tmp_path / "mask.tif")], output_format="npy")
    record = one.complete_record(planned(one, tmp_path))
    said = record["metadata"]["technical"]["labels"]
    assert said["ids"] == len(np.unique(voxels[voxels != 0]))
    assert said["largest"] == voxels.max()
    assert said["background_fraction"] == pytest.approx((voxels == 0).mean())
    (verdict,) = verify_store(one.store, digests=True)
    assert verdict.problems == ()
    assert {"technical.labels.ids", "technical.labels.largest"} <= {*verdict.facts.proven}
    record["metadata"]["technical"]["labels"]["ids"] -= 1
    one.store.put(record["files"]["record"], json.dumps(record).encode())
    (verdict,) = verify_store(one.store, digests=True)
    assert any("ids of the labels is" in problem for problem in verdict.problems)


def test_more_ids_than_are_counted_are_said_to_be_more(bench: Any, tmp_path: Path) -> None:
    """A million and some: the bound stands in the record, and what does not need them is right."""
    voxels = np.arange(9 * 360 * 360, dtype=np.uint32).reshape(9, 360, 360)
    tifffile.imwrite(tmp_path / "mask.tif", voxels, photometric="minisblack")
    one = bench("address", addresses=[str(tmp_path / "mask.tif")])
    record = one.complete_record(planned(one, tmp_path))
    said = record["metadata"]["technical"]["labels"]
    assert "ids" not in said
    assert "values" not in said
    assert said["ids_above"] == MOST_IDS < voxels.size
    assert said["largest"] == voxels.size - 1
    assert said["background_fraction"] == pytest.approx(1 / voxels.size)
    assert said["ids_of_levels"][0] is None
    assert said["ids_of_levels"][-1] is not None
    (verdict,) = verify_store(one.store, digests=True)
    assert verdict.problems == ()
    assert "technical.labels.ids_above" in verdict.facts.proven


def test_a_volume_of_before_is_complete_as_it_is(bench: Any, tmp_path: Path) -> None:
    """Its coarse levels follow the rule of then; a run neither makes it anew nor mixes rules."""
    voxels = cells()
    tifffile.imwrite(tmp_path / "mask.tif", voxels, photometric="minisblack")
    one = bench("address", addresses=[str(tmp_path / "mask.tif")])
    plan = planned(one, tmp_path)
    before = plan.model_copy(
        update={"label_pooling": plan.label_pooling.model_copy(update={"ties": "largest"})}
    )
    old = one.complete_record(before)
    del old["metadata"]["technical"]["labels"], old["metadata"]["provenance"]["stated"]["kind"]
    key = f"address/metadata_{plan.name}.json"
    one.store.put(key, json.dumps(old).encode())  # as that version wrote it
    again = one.make(plan)
    assert (again.status, again.made) == ("complete", False)
    # a damaged shard is made anew by the rule of then
    volume = tmp_path / "data" / old["files"]["volume"]
    shard = volume / "1/c/0/0/0"
    good = shard.read_bytes()
    shard.write_bytes(bytes(len(good)))
    (verdict,) = verify_store(one.store, digests=True)
    assert [*verdict.damaged] == [f"{old['files']['volume']}/1/c/0/0/0"]
    note_damage(one.store, key, verdict.damaged)
    repaired = one.make(plan)
    assert (repaired.status, repaired.repaired_files) == ("complete", 1), repaired
    assert shard.read_bytes() == good
