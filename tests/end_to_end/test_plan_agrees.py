"""What a dry run shows is the plan, and a part that was chosen is all that is fetched.

That a run then costs what was planned is shown in test_main_job.py, on a run of everything.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulators.control import Control
from tests.end_to_end.conftest import Command


def test_a_dry_run_is_the_plan_with_its_costs_and_fetches_no_voxel(
    macroscope_here: Command, faults: Control, tmp_path: Path
) -> None:
    chosen = ("-s", "flyem", "-s", "epfl")
    planned = json.loads(macroscope_here("plan", "--json", *chosen).stdout)
    faults.counters.clear()
    run = json.loads(macroscope_here("run", "--dry-run", "--json", *chosen).stdout)
    assert run["volumes"] == planned["volumes"]
    assert run["total"]["download_bytes"] == planned["total"]["download_bytes"] > 0
    shown = macroscope_here("run", "--dry-run", *chosen)
    assert shown.returncode == 0, shown.stderr
    assert "download MB" in shown.stdout
    assert not any("/raw/" in str(entry) for entry in faults.counters.log("dvid"))
    assert not (tmp_path / "data").exists()


def test_every_source_that_cannot_be_planned_is_named_and_the_others_are_shown(
    macroscope_here: Command,
) -> None:
    wrong = {"EBI_ENTRY_ID": "77", "IDR_IMAGE_IDS": "5"}
    chosen = ("-s", "ebi", "-s", "idr", "-s", "epfl")
    done = macroscope_here("plan", *chosen, **wrong)
    assert done.returncode == 1
    assert "EPFL-CA1-HIPPOCAMPUS" in done.stdout
    assert "EMPIAR-77" in done.stderr and "images/5" in done.stderr
    document = json.loads(macroscope_here("plan", "--json", *chosen, **wrong).stdout)
    assert [volume["source"] for volume in document["volumes"]] == ["epfl"]
    assert [one["source"] for one in document["errors"]] == ["ebi", "idr"]


@pytest.mark.long
def test_a_coarser_volume_costs_what_was_planned(macroscope: Command) -> None:
    """Voxels that are pooled on the way are stored anew, whatever the source's chunks take."""
    coarser = {"EM_LARGE_ARRAY_MODE": "downsample", "EM_MAX_ARRAY_SIZE_MB": "0.01"}
    chosen = ("--json", "--source", "openorganelle", "--level", "s1")
    (planned,) = json.loads(macroscope("plan", *chosen, **coarser).stdout)["volumes"]
    ran = macroscope("run", *chosen, **coarser)
    assert ran.returncode == 0, ran.stderr
    (volume,) = json.loads(ran.stdout)[0]["volumes"]
    assert volume["name"].endswith("_by2") and volume["name"] == planned["name"]
    assert 0.6 < planned["write_bytes"] / volume["stored_bytes"] < 1.6


def test_only_the_chosen_part_is_fetched_and_the_record_says_where_it_lies(
    macroscope: Command, tmp_path: Path
) -> None:
    box = "z=2:18,y=8:60,x=80:400nm"
    run = macroscope("run", "--json", "--source", "openorganelle", "--level", "s1", "--box", box)
    assert run.returncode == 0, run.stderr
    volume = json.loads(run.stdout)[0]["volumes"][0]
    assert volume["shape_zyx"] == [16, 52, 40]  # 8 nm voxels in x: 80 to 400 nm
    record = json.loads(Path(volume["metadata_path"]).read_text())
    assert record["metadata"]["provenance"]["box"] == "z=2:18,y=8:60,x=10:50"
    translation = record["metadata"]["technical"]["translation"]
    assert translation == {"z": 1.48 + 2 * 5.92, "y": 2 + 8 * 8, "x": 2 + 10 * 8}
