"""A run on addresses: a path of one's own, beside a named archive's volume."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from emulators.serving import Samples
from flows.commands.options import Wanted
from flows.commands.run import run_command
from lib.errors import ConfigError
from tests.end_to_end.bucket import Bucket
from tests.end_to_end.conftest import Command, volumes
from tests.end_to_end.test_object_store_run import filesystem
from tests.formats import (
    cases_hdf5,
    cases_n5,
    cases_precomputed,
    cases_single_files,
    cases_tiff,
    cases_zarr2,
    cases_zarr3,
)


@pytest.fixture
def home(samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of one's own, from which relative addresses are counted."""
    before = dict(os.environ)
    os.environ.update(
        EM_ARCHIVES="samples",
        EM_SERVICES=json.dumps(samples.endpoints),
        EM_DATA_DIR=str(tmp_path / "data"),
        EM_METADATA_DIR=str(tmp_path / "metadata"),
    )
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


def run(*addresses: str, **more: object) -> int:
    return run_command(Wanted(addresses=[*addresses], **more), as_json=True)  # type: ignore[arg-type]


OWN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "zarr2": (cases_zarr2.multiscale, "x.zarr"),
    "zarr3": (cases_zarr3.two_levels, "x.zarr"),
    "n5": (cases_n5.pyramid, "x.n5"),
    "precomputed": (partial(cases_precomputed.raw, "uint16"), "em"),
    "hdf5": (partial(cases_hdf5.filtered, "uint16", {"compression": "gzip"}), "x.h5"),
    "stack": (cases_tiff.imagej, "stack.tif"),
    "sections": (cases_tiff.sections, "sections"),
    "png": (partial(cases_single_files.png_sections, "uint16"), ""),
    "zip": (cases_tiff.sections, "a.zip"),
    "nrrd": (partial(cases_single_files.by_pynrrd, "uint16"), "a.nrrd"),
}


@pytest.mark.long
def test_every_format_of_ones_own_disk_ends_complete_and_exact(
    home: Path, prefect_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses, truths = [], {}
    for name, (write, inside) in OWN.items():
        folder = home / name
        folder.mkdir()
        truths[name] = write(folder)
        if name == "zip":
            shutil.make_archive(str(folder / "a"), "zip", folder, "sections")
            shutil.rmtree(folder / "sections")
        addresses.append(f"{name}/{inside}")
    assert run(*addresses) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert {one["status"] for one in result["volumes"]} == {"complete"}
    found = {}
    for one in result["volumes"]:
        record = json.loads(Path(one["metadata_path"]).read_text())
        stored = home / "data" / record["files"]["volume"]
        (first, *_) = record["metadata"]["provenance"]["source_files"]
        (name,) = [key for key in OWN if f"{home}/{key}/" in first["url"]]
        found[name] = zarr.open_group(stored, mode="r")["0"][:]  # type: ignore[index]
    assert found.keys() == truths.keys()
    for name, voxels in truths.items():
        np.testing.assert_array_equal(found[name], voxels, name)


@pytest.mark.long
def test_paths_and_a_named_archive_in_one_run_where_one_that_is_wrong_costs_no_other(
    home: Path, prefect_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    voxels = np.arange(7 * 20 * 30, dtype=np.uint16).reshape(7, 20, 30)
    tifffile.imwrite(home / "mine.tif", voxels)
    about = {"licence": "CC0-1.0", "title": "Mine", "voxel_size_nm": "30,4,4"}
    (home / "cut.tif").write_bytes((home / "mine.tif").read_bytes()[:100])
    assert run("gone.tif", "mine.tif", "cut.tif", "empiar:11759", about=about) == 1
    results = {one["source"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(results) == {"address", "ebi"}
    (mine,) = results["address"]["volumes"]
    gone, cut = results["address"]["errors"]
    assert "gone.tif" in gone and "cut.tif" in cut
    assert results["ebi"]["success"] and not results["address"]["success"]
    assert mine["status"] == "complete"
    assert mine["voxel_nm_zyx"] == [30.0, 4.0, 4.0]
    record = json.loads(Path(mine["metadata_path"]).read_text())
    core = record["metadata"]["core"]
    assert (core["licence"], core["title"]) == ("CC0-1.0", "Mine")
    stored = home / "data" / record["files"]["volume"]
    np.testing.assert_array_equal(zarr.open_group(stored, mode="r")["0"][:], voxels)  # type: ignore[index]


@pytest.mark.long
def test_dask_workers_make_a_volume_by_its_address_in_a_bucket(
    macroscope: Command, bucket: Bucket, tmp_path: Path
) -> None:
    voxels = np.random.default_rng(1).integers(0, 255, (64, 128, 128), dtype=np.uint8)
    array = zarr.create_array(
        str(tmp_path / "x.zarr"),
        shape=voxels.shape,
        shards=(64, 64, 64),
        chunks=(32, 32, 32),
        dtype="uint8",
    )
    array[...] = voxels
    run = macroscope(
        "run", str(tmp_path / "x.zarr"), "--json",
        **bucket.environment(), EM_DASK="local", EM_DASK_MIN_MB="0.1", ADDRESS_SHARD_MB="0.3",
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="240",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (volume,) = volumes(run.stdout).values()
    store = bucket.store()
    record = json.loads(store.get(volume["metadata_path"].removeprefix(f"{store.uri}/")))
    place = f"{store.uri}/{record['files']['volume']}"
    group = zarr.open_group(filesystem(bucket).get_mapper(place), mode="r")
    np.testing.assert_array_equal(group["0"][:], voxels)  # type: ignore[index]
    assert len([*store.list(f"{record['files']['volume']}/0/c")]) > 1


def test_what_is_wrong_is_said_before_anything_starts(home: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'empiar'"):
        run("empir:11759")
    with pytest.raises(ConfigError, match="an archive says this of its own volumes"):
        run("empiar:11759", about={"licence": "CC0-1.0"})
