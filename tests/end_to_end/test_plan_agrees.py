"""What `macroscope plan` says a run will cost is what the run then costs."""

from __future__ import annotations

import json
from pathlib import Path

from lib.samples.control import Control
from tests.end_to_end.conftest import Command


def test_planned_bytes_agree_within_a_tenth_with_what_the_run_then_does(
    macroscope: Command, faults: Control, tmp_path: Path
) -> None:
    planned = macroscope("plan", "--json")
    assert planned.returncode == 0, planned.stderr
    costs = {cost["name"]: cost for cost in json.loads(planned.stdout)["volumes"]}
    assert len(costs) == 5
    assert not (tmp_path / "data").exists()

    run = macroscope("run", "--json")
    assert run.returncode == 0, run.stderr
    for result in json.loads(run.stdout):
        for volume in result["volumes"]:
            cost = costs[volume["name"]]
            record = json.loads(Path(volume["metadata_path"]).read_text())
            fetched = record["metadata"]["provenance"]["bytes"]
            assert abs(fetched - cost["download_bytes"]) <= 0.1 * cost["download_bytes"], volume
            stored = volume["stored_bytes"]
            assert abs(stored - cost["write_bytes"]) <= 0.1 * cost["write_bytes"], volume


def test_a_dry_run_shows_the_same_plan_and_fetches_no_voxel(
    macroscope: Command, faults: Control, tmp_path: Path
) -> None:
    planned = json.loads(macroscope("plan", "--json", "-s", "flyem", "-s", "epfl").stdout)
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
