"""One command brings in all five archives, voxel by voxel, and recognises them the next time."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image

from emulators.catalogue import dvid_voxels, truth
from emulators.control import Control
from emulators.serving import Samples
from lib.config.loaders import OPENORGANELLE_EM_PATHS
from lib.records.manager import schema_errors
from tests.end_to_end.conftest import Command, command_in, environment_in, volumes

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


@dataclass(frozen=True)
class WholeRun:
    """A folder into which everything was planned, then brought in, once."""

    folder: Path
    macroscope: Command
    planned: list[dict[str, Any]]
    results: str


@pytest.fixture(scope="module")
def whole(samples: Samples, prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    folder = tmp_path_factory.mktemp("whole")
    macroscope = command_in(folder, environment_in(folder, samples, prefect_api))
    planned = macroscope("plan", "--json")
    assert planned.returncode == 0, planned.stderr
    assert not (folder / "data").exists(), "a plan leaves nothing behind"
    # with the server that a run without one brings along
    run = macroscope("run", "--json", PREFECT_API_URL=None)
    assert run.returncode == 0, run.stderr
    return WholeRun(folder, macroscope, json.loads(planned.stdout)["volumes"], run.stdout)


def check_volumes(folder: Path, printed: str, output_format: str) -> None:
    """All five are complete, voxel by voxel, and prove themselves with tools of others."""
    made = volumes(printed)
    assert set(made) == SOURCES
    for source, volume in made.items():
        record = json.loads(Path(volume["metadata_path"]).read_text())
        assert schema_errors(record) == []
        assert record["status"] == "complete"
        path = folder / "data" / record["files"]["volume"]
        if output_format == "zarr":
            group = zarr.open_group(path, mode="r")
            voxels = group["0"][:]
            Image.from_zarr(group)
        else:
            voxels = np.load(path)
        np.testing.assert_array_equal(voxels, expected(source, record))
        sums = folder / "data" / record["files"]["sums"]
        check = ["sha256sum", "--quiet", "--check", sums.name]
        assert subprocess.run(check, cwd=sums.parent, check=False).returncode == 0
    assert len(list((folder / "metadata").glob("metadata_catalog_*.json"))) == 1
    assert len(list((folder / "metadata").glob("validation_report_*.log"))) == 1


def check_second_run(macroscope: Command, verify: Command, *arguments: str) -> None:
    """Everything is recognised, and proves itself once more."""
    again = macroscope("run", "--json", *arguments)
    assert again.returncode == 0, again.stderr
    kept = volumes(again.stdout)
    assert {source for source, volume in kept.items() if not volume["made"]} == SOURCES
    proof = verify("verify", "--json")
    assert proof.returncode == 0, proof.stdout
    records = json.loads(proof.stdout)["records"]
    assert len(records) == len(SOURCES)
    assert all(not row["problems"] for row in records)


def test_all_five_sources_end_as_voxel_exact_volumes_with_valid_records(whole: WholeRun) -> None:
    check_volumes(whole.folder, whole.results, "zarr")


def test_planned_bytes_agree_within_a_tenth_with_what_the_run_then_does(whole: WholeRun) -> None:
    costs = {cost["name"]: cost for cost in whole.planned}
    assert len(costs) == 5
    for volume in volumes(whole.results).values():
        cost = costs[volume["name"]]
        record = json.loads(Path(volume["metadata_path"]).read_text())
        fetched = record["metadata"]["provenance"]["bytes"]
        assert abs(fetched - cost["download_bytes"]) <= 0.1 * cost["download_bytes"], volume
        stored = volume["stored_bytes"]
        assert abs(stored - cost["write_bytes"]) <= 0.1 * cost["write_bytes"], volume


def test_what_people_and_machines_look_at_stands_beside_the_volumes(whole: WholeRun) -> None:
    for source in SOURCES:
        folder = whole.folder / "data" / source
        assert next(folder.glob("*.preview.png")).read_bytes().startswith(b"\x89PNG")
        crate = json.loads(next(folder.glob("*-ro-crate-metadata.json")).read_text())
        assert crate["@context"]
    report = next((whole.folder / "metadata").glob("report_*.html")).read_text()
    assert "CC-BY-4.0" in report
    assert report.count("data:image/") >= 5
    index = json.loads((whole.folder / "metadata" / "croissant.json").read_text())
    assert len(index["distribution"]) >= 5


def test_a_second_run_recognises_what_is_there_and_it_proves_itself(whole: WholeRun) -> None:
    check_second_run(whole.macroscope, whole.macroscope)


@pytest.mark.long
def test_as_npy_too_on_a_server_that_is_there(
    macroscope: Command, macroscope_here: Command, tmp_path: Path
) -> None:
    first = macroscope("run", "--json", "--format", "npy")
    assert first.returncode == 0, first.stderr
    check_volumes(tmp_path, first.stdout, "npy")
    check_second_run(macroscope, macroscope_here, "--format", "npy")


def test_one_source_failing_stops_no_other_and_the_run_says_which_and_why(
    macroscope: Command, faults: Control
) -> None:
    faults.add("status_404", "epfl")
    three = ("epfl", "flyem", "idr")
    run = macroscope("run", "--json", "--mode", "parallel", *(f"--source={one}" for one in three))
    assert run.returncode == 1
    results = {result["source"]: result for result in json.loads(run.stdout)}
    assert {source for source, result in results.items() if result["success"]} == {"flyem", "idr"}
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
    macroscope_here: Command, tmp_path: Path, arguments: list[str], says: str
) -> None:
    run = macroscope_here("run", *arguments)
    assert run.returncode == 2
    assert says in run.stderr
    assert not (tmp_path / "data").exists()


def test_a_refusal_is_one_line_and_an_exit_code_of_the_command(macroscope: Command) -> None:
    run = macroscope("run", "--mode", "fastest")
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1


def test_config_shows_each_value_and_where_it_came_from(macroscope_here: Command) -> None:
    secret = {"OPENORGANELLE_S3_KEY": "who", "OPENORGANELLE_S3_SECRET": "hush"}
    run = macroscope_here("config", "--json", FLYEM_CROP_SIZE="32,16,8", **secret)
    assert run.returncode == 0, run.stderr
    rows = {row["key"]: row for row in json.loads(run.stdout)}
    assert rows["sources.flyem.crop_size"]["value"] == "32,16,8"
    assert rows["sources.flyem.crop_size"]["origin"] == "environment FLYEM_CROP_SIZE"
    assert "hush" not in run.stdout
