"""What a dry run shows is the plan, and a part that was chosen is all that is fetched.

That a run then costs what was planned is shown in test_main_job.py, on a run of everything.
"""

from __future__ import annotations

import json
from pathlib import Path

from emulators.control import Control
from tests.end_to_end.conftest import Command


def test_a_dry_run_shows_the_same_plan_and_fetches_no_voxel(
    macroscope: Command, macroscope_here: Command, faults: Control, tmp_path: Path
) -> None:
    planned = json.loads(macroscope_here("plan", "--json", "-s", "flyem", "-s", "epfl").stdout)
    faults.counters.clear()
    run = macroscope("run", "--dry-run", "--json", "-s", "flyem", "-s", "epfl")
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout)
    assert sorted(c["name"] for r in results for c in r["plan"]) == sorted(
        c["name"] for c in planned["volumes"]
    )
    assert {v["status"] for r in results for v in r["volumes"]} == {"planned"}
    assert not any("/raw/" in str(entry) for entry in faults.counters.log("dvid"))
    assert not (tmp_path / "data").exists()


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
