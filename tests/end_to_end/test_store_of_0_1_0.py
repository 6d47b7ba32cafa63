"""A store that version 0.1.0 wrote is proven, recognised and continued by this one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from emulators.catalogue import dvid_voxels
from emulators.serving import Samples
from tests.end_to_end.conftest import Command, command_in, environment_in, volumes

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "store_0_1_0" / "store.tar.xz"
BOX = "z=0:10,y=0:40,x=0:40"
HALF = {"EM_SHARD_MB": "0.04", "EM_CHUNK_ZYX": "16,16,16", "EM_MAX_WORKERS": "1"}


@pytest.fixture(scope="module")
def old_store(
    samples: Samples, prefect_api: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Command]:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder / "data", filter="data")
    return folder / "data", command_in(folder, environment_in(folder, samples, prefect_api))


def test_it_verifies(old_store: tuple[Path, Command]) -> None:
    _, macroscope = old_store
    done = macroscope("verify", "--json")
    rows = json.loads(done.stdout)["records"]
    assert [row["problems"] for row in rows if row["status"] == "complete"] == [[]] * 5
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_what_is_complete_is_recognised(old_store: tuple[Path, Command]) -> None:
    data, macroscope = old_store
    before = {path: path.stat().st_mtime_ns for path in data.rglob("c/**/*") if path.is_file()}
    assert before
    whole = macroscope("run", "--json", "--source", "ebi")
    sources = [f"--source={name}" for name in ("epfl", "idr", "openorganelle")]
    parts = macroscope("run", "--json", "--box", BOX, *sources)
    # a box of FlyEM counts from the volume's first voxel now; records have always told it so
    (record,) = data.glob("flyem/metadata_*40x40x10.json")
    own = json.loads(record.read_text())["metadata"]["provenance"]["box"]
    crop = macroscope("run", "--json", "--box", own, "--source", "flyem")
    runs = [whole, parts, crop]
    assert [run.returncode for run in runs] == [0, 0, 0], "".join(run.stderr for run in runs)
    made = [volume for run in runs for volume in volumes(run.stdout).values()]
    assert len(made) == 5
    assert not any(volume["made"] for volume in made), made
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_damaged_is_repaired(old_store: tuple[Path, Command]) -> None:
    """Its record holds no settings: today's stand for them. Its bytes are what they were."""
    data, macroscope = old_store
    shards = sorted(data.glob("ebi/*.ome.zarr/*/c/0/0/0"))
    before = [shard.read_bytes() for shard in shards]
    for shard, content in zip(shards, before, strict=True):
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = macroscope("verify", "--repair", "--source", "ebi")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "made anew" in done.stdout
    assert [shard.read_bytes() for shard in shards] == before


@pytest.mark.long
def test_a_half_is_continued_with_the_shards_that_it_has(old_store: tuple[Path, Command]) -> None:
    data, macroscope = old_store
    (shard,) = data.glob("flyem/.partial/**/c/0/0/0")
    (begun,) = data.glob("flyem/metadata_*64x32x64.json")
    box = json.loads(begun.read_text())["metadata"]["provenance"]["box"]
    bytes_of_first = shard.read_bytes()
    done = macroscope("run", "--json", "--source", "flyem", "--box", box, **HALF)
    assert done.returncode == 0, done.stderr
    (volume,) = volumes(done.stdout).values()
    record = json.loads(Path(volume["metadata_path"]).read_text())
    tree = data / "flyem" / f"{volume['name']}.ome.zarr"
    assert (tree / "0" / "c" / "0" / "0" / "0").read_bytes() == bytes_of_first
    origin = record["additional_metadata"]["crop_origin_xyz"][::-1]
    voxels = zarr.open_array(tree / "0", mode="r")[:]
    np.testing.assert_array_equal(voxels, dvid_voxels(tuple(origin), (64, 32, 64)))
