"""`macroscope.open`: the voxels, places and words of a finished volume, and nothing unfinished."""

from __future__ import annotations

import doctest
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

import macroscope
from emulators.tissue import tissue
from emulators.volumes import make_recorded_volume, plan_of
from lib.config.loader_base import AddressConfig
from lib.ingest.context import VolumeRequest
from lib.ingest.life import make_volume
from lib.ingest.repair.volume import repair_volume
from lib.ingest.stages import plan_source
from lib.storage.as_zarr import ReadOnlyZarrStore
from lib.storage.base import StoreSettings
from lib.storage.local import LocalStore
from lib.storage.open import open_store
from lib.verify.volume import verify_store
from lib.volumes import ome
from macroscope import _open, _verify
from macroscope.errors import (
    ConfigError,
    IntegrityError,
    NotFoundError,
    NothingThereError,
)

SHAPE, VOXEL = (24, 48, 64), (30.0, 8.0, 8.0)
VOXELS = tissue((0, 0, 0), SHAPE, seed=3)
TITLE = "<script>alert(1)</script> & tissue"


def ingest_tiff(folder: Path, uri: str, access: StoreSettings) -> None:
    """A TIFF of this machine, through the whole of the pipeline but Prefect."""
    tifffile.imwrite(folder / "em.tif", VOXELS)
    config = AddressConfig(
        addresses=[str(folder / "em.tif")], voxel_size_nm=VOXEL, title=TITLE, licence="CC-BY-4.0"
    )
    (plan,) = plan_source("address", config, folder).plans
    scratch = folder / "scratch"
    made = make_volume(VolumeRequest(plan, config, uri, access, scratch, "a test"), "a test")
    assert (made.name, made.status, made.error) == ("em", "complete", None)


def fill(store: Any) -> None:
    make_recorded_volume(store, VOXELS, plan_of(VOXELS, "idr", "twin", VOXEL))
    make_recorded_volume(store, VOXELS, plan_of(VOXELS, "ebi", "twin", VOXEL))
    flat = plan_of(VOXELS, "ebi", "flat", VOXEL)
    make_recorded_volume(store, VOXELS, flat, output_format="npy")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opened")
    ingest_tiff(folder, str(folder / "data"), StoreSettings())
    fill(open_store(str(folder / "data")))
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with the store as ``data``."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "place",
    [
        "em",
        "address/em",
        "em.ome.zarr",
        "data/address/em.ome.zarr",
        "./data/address/em.ome.zarr/",
        "data/address/metadata_em.json",
        Path("data") / "address" / "em.ome.zarr",
    ],
)
def test_a_volume_is_found_by_its_name_its_place_and_its_record(here: Path, place: Any) -> None:
    volume = macroscope.open(place)
    assert (volume.name, volume.kind, volume.shape, volume.dtype) == ("em", "image", SHAPE, "uint8")
    np.testing.assert_array_equal(volume.levels[0][:], VOXELS)


def test_levels_are_zarr_arrays_with_axes_units_and_places(here: Path) -> None:
    volume = macroscope.open("em", data_dir=here / "data")
    level = volume.levels[0]
    assert isinstance(level.array, zarr.Array)
    assert (volume.axes, volume.unit) == (("z", "y", "x"), "nanometer")
    assert level.scale_nm == volume.voxel_size_nm == {"z": 30, "y": 8, "x": 8}
    assert level.translation_nm == {"z": 0, "y": 0, "x": 0}
    assert volume.record is not None
    assert volume.record["metadata"]["core"]["title"] == TITLE
    with pytest.raises(ValueError, match="read-only"):
        level.array[0, 0, 0] = 1


def test_dask_views_are_lazy_whole_shards_and_travel_to_workers(here: Path) -> None:
    level = macroscope.open("em").levels[0]
    view = level.dask()
    assert view.chunksize == tuple(map(min, level.array.shards, SHAPE))
    sent = pickle.loads(pickle.dumps(view))
    np.testing.assert_array_equal(sent[3:9, ::5].compute(scheduler="sync"), VOXELS[3:9, ::5])
    assert level.dask(chunks=(8, 16, 16)).chunksize == (8, 16, 16)


def test_a_shard_that_is_gone_is_an_error_and_not_the_fill_value(here: Path) -> None:
    (here / "data/address/em.ome.zarr/0/c/0/0/0").unlink()
    with pytest.raises(IntegrityError, match="absent"):
        macroscope.open("em").levels[0][0, 0, 0]


@pytest.mark.parametrize("status", ["processing", "failed"])
def test_a_volume_whose_record_is_not_complete_is_not_opened(here: Path, status: str) -> None:
    path = here / "data/address/metadata_em.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status}))
    with pytest.raises(IntegrityError, match=f"not complete: its record says {status}"):
        macroscope.open("em")


def test_a_volume_without_a_record_says_that_nothing_vouches_for_it(here: Path) -> None:
    (here / "data/address/metadata_em.json").unlink()
    assert macroscope.open("em").record is None


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("s3://x", "'x' is no name of a bucket"),
        ("s3://Bad_Name/ebi", "'Bad_Name' is no name of a bucket"),
        ("s3://", "names no bucket"),
        ("gs://bucket/em", "gs://"),
    ],
)
def test_an_address_that_is_no_bucket_s_is_not_looked_up_as_a_name(
    here: Path, address: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        macroscope.open(address)


def test_npy_is_one_level_of_its_file(here: Path) -> None:
    volume = macroscope.open("flat")
    (level,) = volume.levels
    assert isinstance(level.array, np.memmap)
    assert level.scale_nm == {"z": 30, "y": 8, "x": 8}
    np.testing.assert_array_equal(level.dask()[2:4].compute(scheduler="sync"), VOXELS[2:4])


def test_what_is_not_there_is_named(here: Path) -> None:
    with pytest.raises(NotFoundError, match=r"address/em\.ome\.zarr"):
        macroscope.open("else")
    with pytest.raises(NotFoundError, match=r"ebi/twin\.ome\.zarr, idr/twin\.ome\.zarr"):
        macroscope.open("twin")
    with pytest.raises(NothingThereError, match="no such folder"):
        macroscope.open("em", data_dir="nowhere")
    with pytest.raises(ConfigError):
        macroscope.open("em", data_dir="ftp://host/data")


def test_jupyter_shows_the_preview_and_escapes_what_archives_say(here: Path) -> None:
    shown = macroscope.open("em")._repr_html_()
    assert "data:image/jpeg;base64," in shown
    assert "z 30, y 8, x 8" in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; tissue" in shown
    assert "<script>" not in shown
    (here / "data/address/em.preview.png").write_bytes(b"no picture")
    assert "<img" not in macroscope.open("em")._repr_html_()


def test_a_bucket_is_read_alike(
    destination: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = f"s3://{destination.bucket}/opened"
    ingest_tiff(tmp_path, uri, destination.settings())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EM_DEST_ENDPOINT_URL", destination.server.endpoint_url)
    monkeypatch.setenv("EM_DEST_KEY", destination.key)
    monkeypatch.setenv("EM_DEST_SECRET", destination.secret)
    # by its address and its record's, and as the only one of its store
    for place in (f"{uri}/address/em.ome.zarr", f"{uri}/address/metadata_em.json", uri, f"{uri}/"):
        np.testing.assert_array_equal(macroscope.open(place).levels[0][5:9], VOXELS[5:9])
    view = macroscope.open("em", data_dir=uri).dask()
    np.testing.assert_array_equal(view[:, 3].compute(scheduler="threads"), VOXELS[:, 3])
    with pytest.raises(NothingThereError, match="no object lies below"):
        macroscope.open(f"{uri}/elsewhere")
    (verdict,) = macroscope.verify(uri)
    assert (verdict.status, verdict.problems) == ("complete", ())


def test_zarr_sees_the_documents_and_the_shards(here: Path) -> None:
    found = ReadOnlyZarrStore(open_store("data"), "address/em.ome.zarr")
    group = zarr.open_group(found, mode="r", use_consolidated=False)
    assert "0" in [name for name, _ in group.arrays()]
    assert group["0"].nchunks_initialized >= group["0"].nchunks > 0
    assert found == pickle.loads(pickle.dumps(found))


def test_verify_finds_what_is_damaged(here: Path) -> None:
    (right,) = macroscope.verify("data", sources=["address"])
    assert right.problems == ()
    shard = here / "data/address/em.ome.zarr/0/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    (wrong,) = macroscope.verify("data", sources=["address"])
    assert list(wrong.damaged) == ["address/em.ome.zarr/0/c/0/0/0"]
    with pytest.raises(NothingThereError):
        macroscope.verify("nowhere")


@pytest.mark.parametrize("module", [_open, _verify])
def test_the_examples_run(here: Path, module: Any) -> None:
    shutil.rmtree(here / "data/idr")
    shutil.rmtree(here / "data/ebi")
    ran = doctest.testmod(module)
    assert (ran.failed, ran.attempted > 1) == (0, True)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_length_that_nobody_states_is_no_nanometre(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    """Viewers showed 1 nm, and a copy of the volume called it stated; earlier ones are mended."""
    tifffile.imwrite(tmp_path / "em.tif", VOXELS)
    config = AddressConfig(addresses=[str(tmp_path / "em.tif")])
    (plan,) = plan_source("address", config, tmp_path).plans
    uri, access = str(tmp_path / "data"), StoreSettings(durable=False)
    request = VolumeRequest(plan, config, uri, access, tmp_path / "scratch", "a test")
    with monkeypatch.context() as patch:
        if earlier:
            united = ome._axes("")
            patch.setattr(ome, "_axes", lambda assumed: united)
        assert make_volume(request, "a test").status == "complete"
    document = tmp_path / "data/address/em.ome.zarr/zarr.json"
    (multiscale,) = json.loads(document.read_text())["attributes"]["ome"]["multiscales"]
    unit = "nanometer" if earlier else None
    assert [axis.get("unit") for axis in multiscale["axes"]] == [unit] * 3
    volume = macroscope.open("em", data_dir=tmp_path / "data")
    assert (volume.voxel_size_nm, volume.levels[0].translation_nm) == ({}, {})
    store = LocalStore(tmp_path / "data", durable=False)
    (verdict,) = verify_store(store)
    assert not verdict.problems
    whole = document.read_bytes()
    document.write_bytes(whole.replace(b"space", b"spice"))
    repair_volume(
        store, "address/metadata_em.json", lambda: request, by="a test", volume_key="address/em"
    )
    assert document.read_bytes() == whole
    again = AddressConfig(addresses=[str(document.parent)])
    (plan,) = plan_source("address", again, tmp_path).plans
    assert plan.assumed_axes == ("" if earlier else "zyx")
