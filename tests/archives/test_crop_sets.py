"""A crop of ground truth with the EM around it: every class on the EM's grid, in one volume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from emulators.s3 import S3Server
from lib.archives.openorganelle.crops import box_around, fitting_level
from lib.archives.pairs import Grid
from lib.errors import ConfigError, GridMismatchError
from lib.geometry import Box
from lib.ingest.stages import plan_source
from lib.plan import VolumePlan
from lib.verify.volume import verify_store

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


def test_all_classes_and_the_em_around_them_make_one_volume(
    bench: Any, bucket: S3Server, tmp_path: Path
) -> None:
    one = bench_of(bench, bucket, padding=3)
    em, *labels = planned(one, tmp_path)
    box = Box((12 - 3, 10 - 3, 8 - 3), (12 + 8 + 3, 10 + 12 + 3, 8 + 10 + 3))
    assert (em.kind, em.scale_level, em.box_zyx) == ("image", "s0", box)
    assert [plan.kind for plan in labels] == ["labels"] * 2
    records = [one.complete_record(plan) for plan in (em, *labels)]
    volume = tmp_path / "data" / records[0]["files"]["volume"]
    np.testing.assert_array_equal(zarr.open_array(volume / "0", mode="r")[:], EM[box.slices()])
    listed = json.loads((volume / "labels/zarr.json").read_text())["attributes"]["ome"]["labels"]
    assert len(listed) == 2
    for record, (name, voxels) in zip(records[1:], sorted(classes().items()), strict=True):
        assert f"_{name}_" in record["name"]
        inside = tmp_path / "data" / record["files"]["volume"]
        assert inside.parent.parent == volume
        np.testing.assert_array_equal(zarr.open_array(inside / "0", mode="r")[:], voxels)
        more = record["additional_metadata"]
        assert (more["crop"], more["padding"]) == (CROP, 3)
        inner = str(Box((3, 3, 3), (11, 15, 13)))
        assert more["pair"]["overlap_voxels_of_image"] == inner
    assert [verdict.problems for verdict in verify_store(one.store, digests=True)] == [()] * 3


def test_padding_ends_where_the_em_does(bench: Any, bucket: S3Server, tmp_path: Path) -> None:
    em, *_ = planned(bench_of(bench, bucket, padding=1000), tmp_path)
    assert em.shape_zyx == EM.shape


def test_what_is_no_label_is_refused(bench: Any, bucket: S3Server, tmp_path: Path) -> None:
    one = bench_of(bench, bucket, zarr_path="recon-1/em/fibsem-uint8")
    with pytest.raises(ConfigError, match="is no labels"):
        planned(one, tmp_path)
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
