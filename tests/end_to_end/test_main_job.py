"""One command brings in all five archives, voxel by voxel, and recognises them the next time."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image

from lib.loader_config import OPENORGANELLE_EM_PATHS
from lib.records import schema_errors
from lib.samples.catalogue import dvid_voxels, truth
from lib.samples.control import Control
from tests.end_to_end.conftest import Command, volumes

SOURCES = {"ebi", "epfl", "flyem", "idr", "openorganelle"}


def expected(source: str, record: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The voxels that a source's default volume must hold."""
    if source == "flyem":
        where = record["additional_metadata"]
        origin, size = where["crop_origin_xyz"][::-1], where["crop_size_xyz"][::-1]
        return dvid_voxels(tuple(origin), tuple(size))
    key = {
        "ebi": "ebi/EMPIAR-11759",
        "epfl": "epfl/volumedata.tif",
        "idr": "idr/9846137",
        "openorganelle": "openorganelle/jrc_mus-nacc-2/"
        f"{OPENORGANELLE_EM_PATHS['jrc_mus-nacc-2']}/fibsem-int16/s1",
    }[source]
    return truth(key)


@pytest.mark.parametrize("output_format", ["zarr", "npy"])
def test_all_five_sources_end_as_voxel_exact_volumes_with_valid_records(
    macroscope: Command, tmp_path: Path, output_format: str
) -> None:
    # once with the server that a run without one brings along, once with one that is there
    alone: dict[str, str | None] = {"PREFECT_API_URL": None} if output_format == "zarr" else {}
    first = macroscope("run", "--json", "--format", output_format, **alone)
    assert first.returncode == 0, first.stderr
    made = volumes(first.stdout)
    assert set(made) == SOURCES
    for source, volume in made.items():
        record = json.loads(Path(volume["metadata_path"]).read_text())
        assert schema_errors(record) == []
        assert record["status"] == "complete"
        path = tmp_path / "data" / record["files"]["volume"]
        if output_format == "zarr":
            group = zarr.open_group(path, mode="r")
            voxels = group["0"][:]
            Image.from_zarr(group)
        else:
            voxels = np.load(path)
        np.testing.assert_array_equal(voxels, expected(source, record))
        sums = tmp_path / "data" / record["files"]["sums"]
        check = ["sha256sum", "--quiet", "--check", sums.name]
        assert subprocess.run(check, cwd=sums.parent, check=False).returncode == 0

    assert len(list((tmp_path / "metadata").glob("metadata_catalog_*.json"))) == 1
    assert len(list((tmp_path / "metadata").glob("validation_report_*.log"))) == 1

    again = macroscope("run", "--json", "--format", output_format)
    assert again.returncode == 0, again.stderr
    kept = volumes(again.stdout)
    assert {source for source, volume in kept.items() if not volume["made"]} == SOURCES

    proof = macroscope("verify", "--json")
    assert proof.returncode == 0, proof.stdout
    assert all(not row["problems"] for row in json.loads(proof.stdout)["records"])


def test_one_source_failing_stops_no_other_and_the_run_says_which_and_why(
    macroscope: Command, faults: Control
) -> None:
    faults.add("status_404", "epfl")
    run = macroscope("run", "--json", "--mode", "parallel")
    assert run.returncode == 1
    results = {result["source"]: result for result in json.loads(run.stdout)}
    assert {source for source, result in results.items() if result["success"]} == SOURCES - {"epfl"}
    assert "404" in results["epfl"]["errors"][0] or "not" in results["epfl"]["errors"][0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--mode", "fastest"], "staged, background, parallel, sequential"),
        (["--source", "flickr"], "ebi, epfl, flyem, idr, openorganelle"),
        (["--box", "q=1:2"], "box"),
        (["--format", "jpeg"], "output_format"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_starts(
    macroscope: Command, tmp_path: Path, arguments: list[str], says: str
) -> None:
    run = macroscope("run", *arguments)
    assert run.returncode == 2
    assert says in run.stderr
    assert not (tmp_path / "data").exists()


def test_config_shows_each_value_and_where_it_came_from(macroscope: Command) -> None:
    secret = {"OPENORGANELLE_S3_KEY": "who", "OPENORGANELLE_S3_SECRET": "hush"}
    run = macroscope("config", "--json", FLYEM_CROP_SIZE="32,16,8", **secret)
    assert run.returncode == 0, run.stderr
    rows = {row["key"]: row for row in json.loads(run.stdout)}
    assert rows["sources.flyem.crop_size"]["value"] == "32,16,8"
    assert rows["sources.flyem.crop_size"]["origin"] == "environment FLYEM_CROP_SIZE"
    assert "hush" not in run.stdout


def test_what_people_and_machines_look_at_stands_beside_the_volumes(
    macroscope: Command, tmp_path: Path
) -> None:
    run = macroscope("run", "--json", "-s", "epfl", "-s", "idr")
    assert run.returncode == 0, run.stderr
    for source in ("epfl", "idr"):
        folder = tmp_path / "data" / source
        assert next(folder.glob("*.preview.png")).read_bytes().startswith(b"\x89PNG")
        crate = json.loads(next(folder.glob("*-ro-crate-metadata.json")).read_text())
        assert crate["@context"]
    report = next((tmp_path / "metadata").glob("report_*.html")).read_text()
    assert "CC-BY-4.0" in report
    assert report.count("data:image/") >= 2
    index = json.loads((tmp_path / "metadata" / "croissant.json").read_text())
    assert len(index["distribution"]) >= 2
