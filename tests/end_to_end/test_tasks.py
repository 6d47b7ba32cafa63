"""What people come with, one command each, in an empty folder; what is printed is read.

"EMPIAR-10094", "five datasets", "a hemibrain crop at my place", "what is in this archive?"
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from emulators.catalogue import dvid_voxels
from emulators.control import Control
from flows.commands.server import comes_true
from tests.end_to_end.conftest import Command, volumes
from tests.kit.prefect_server import ask

BOX = "z=20000:20008,y=20010:20042,x=18000:18048"
COMPLETE = r" complete[ :]"  # in a table where there is room, else in a line

FIVE = """\
defaults: {box: "z=0:4"}
groups:
  people: {}
datasets:
  - EMPIAR-11759
  - {address: "idr:9846137", group: people}
  - {address: "openorganelle:jrc_mus-nacc-2/recon-2/em/fibsem-int16", level: s2, name: nacc}
  - {address: "epfl:", group: people}
  - {address: stack.tif, name: mine, licence: CC0-1.0}
"""


@pytest.fixture
def five(tmp_path: Path) -> str:
    rows = np.random.default_rng(7).integers(1, 200, (6, 24, 24)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", rows, photometric="minisblack")
    (tmp_path / "datasets.yaml").write_text(FIVE)
    return "datasets.yaml"


# --- what is in this archive? ---------------------------------------------------------------


def test_the_archives_then_a_data_set_then_the_address_to_copy(macroscope_here: Command) -> None:
    archives = macroscope_here("list").stdout
    (name,) = re.findall(r"^ +(openorganelle:)$", archives, re.MULTILINE)
    datasets = macroscope_here("list", name).stdout
    (dataset,) = re.findall(r"^ +(openorganelle:jrc_mus-nacc-2)$", datasets, re.MULTILINE)
    said = macroscope_here("list", dataset).stdout
    (address,) = re.findall(r"^ +(openorganelle:\S+/em/\S+)$", said, re.MULTILINE)
    assert "40 × 150 × 140 int16; 2.96 × 4 × 4 nm; 4 levels s0 to s3" in said
    assert "CC-BY-4.0" in said and "labels" in said
    assert "can be brought in: macroscope run ADDRESS" in said
    planned = macroscope_here("plan", address, "--level", "s2", "--json")
    (volume,) = json.loads(planned.stdout)["volumes"]
    assert volume["source"] == "openorganelle" and planned.returncode == 0


def test_a_study_as_json(macroscope_here: Command) -> None:
    done = macroscope_here("list", "idr:idr0086", "--json")
    found = {item["address"]: item for item in json.loads(done.stdout)}
    assert found["idr:9846137"]["shape_zyx"] == [24, 96, 112]
    assert found["idr:9846137"]["loadable"] is True


def test_words_find_entries_in_several_archives(macroscope_here: Command) -> None:
    said = macroscope_here("search", "zebrafish").stdout
    assert "empiar:\n  EMPIAR-11759  [entry; 1.2 GB; Danio rerio; SBF-SEM; CC0-1.0]\n" in said
    assert "reach:" in said and said.count("      empiar:11759\n") == 2
    nothing = macroscope_here("search", "unicorn", "--archive", "empiar")
    assert (nothing.returncode, nothing.stdout) == (0, "nothing was found in empiar\n")


def test_a_search_that_some_archives_did_not_answer_is_no_search_that_found_nothing(
    macroscope_here: Command, faults: Control
) -> None:
    faults.add("hide", match="biostudies")
    said = macroscope_here("search", "unicorn", "--archive", "empiar", "--archive", "bioimages")
    assert (said.returncode, said.stdout) == (1, "nothing was found in empiar\n")
    assert "macroscope: bioimages could not be asked: " in said.stderr
    alone = macroscope_here("search", "unicorn", "--archive", "bioimages", "--json")
    assert alone.returncode == 1 and json.loads(alone.stdout)["hits"] == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("lsit",), "Did you mean 'list'?"),
        (("list", "empair:10094"), "did you mean 'empiar'?"),
        (("search", "x", "--archive", "empair"), "did you mean 'empiar'?"),
        (("plan", "EMPIAR-11759", "--set", "max_wrokers=3"), "did you mean 'max_workers'?"),
        (("plan", "EMPIAR-11759", "--set", "mode=parallel"), " or 'execution_mode' or "),
        (("plan", "x.zarr|zar:em"), "did you mean 'zarr'?"),
    ],
)
def test_a_slip_is_told_with_the_nearest_word(
    macroscope_here: Command, typed: tuple[str, ...], said: str
) -> None:
    done = macroscope_here(*typed)
    assert done.returncode == 2
    assert said in done.stderr


# --- five datasets --------------------------------------------------------------------------


def test_five_datasets_are_summed(macroscope_here: Command, five: str) -> None:
    done = macroscope_here("plan", "--datasets", five)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^volumes: 5, requests: \d+,", done.stdout, re.MULTILINE)
    assert re.search(r"^people: 2 volumes, .* to download, .* of disk", done.stdout, re.MULTILINE)


def test_a_list_with_a_mistake_names_its_line(macroscope_here: Command, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(FIVE + "  - {address: 'idr:1', levle: s1}\n")
    done = macroscope_here("plan", "--datasets", "wrong.yaml")
    assert done.returncode == 2
    assert "wrong.yaml, line 10: levle: there is no such option; did you mean 'level'?" in (
        done.stderr
    )


@pytest.mark.long
def test_five_datasets_come_in_by_one_command_and_again_only_what_failed(
    macroscope: Command, environment: dict[str, str], five: str, tmp_path: Path
) -> None:
    (tmp_path / "stack.tif").rename(tmp_path / "elsewhere.tif")
    first = macroscope("run", "--datasets", five)
    assert first.returncode == 1
    assert len(re.findall(COMPLETE, first.stdout)) == 4, first.stdout
    assert re.search(r"^mine: .*there is no such file or folder", first.stdout, re.MULTILINE)
    (tmp_path / "elsewhere.tif").rename(tmp_path / "stack.tif")
    again = macroscope("run", "--datasets", five, "--json")
    assert again.returncode == 0, again.stderr
    made = {name: volume["made"] for name, volume in volumes(again.stdout).items()}
    assert len(made) == 5 and sum(made.values()) == 1, made
    results = json.loads(again.stdout)
    assert {one["dataset"] for one in results} == {
        "empiar:11759", "idr:9846137", "nacc s2", "epfl:", "mine",
    }  # fmt: skip
    check_what_the_server_knows(environment["PREFECT_API_URL"])
    groups = json.loads((tmp_path / "metadata" / "groups.json").read_text())["groups"]
    assert [*groups.values()] == ["people", "people"]
    page = max((tmp_path / "metadata").glob("report_*.html")).read_text()
    assert "Groups: people (2)." in page


def check_what_the_server_knows(url: str) -> None:
    """Names and groups stand at the runs; not at tasks, for which a process keeps a thread each."""
    # the newest: the server is that of other tests, too, and answers with 200 at most
    found = ask(url, "flow_runs/filter", {"sort": "START_TIME_DESC"})
    runs = {one["name"]: one["tags"] for one in found}
    assert {"address mine", "idr idr:9846137", "epfl epfl:"} <= runs.keys()
    assert "group:people" in runs["epfl epfl:"] and "group:people" not in runs["address mine"]
    # a task run that stands for a child's run in its parent is run by nobody
    children = {one["parent_task_run_id"] for one in found}
    theirs = {"flow_runs": {"id": {"any_": [one["id"] for one in found]}}}
    tagged: list[list[str]] = []

    def noted() -> bool:
        tasks = ask(url, "task_runs/filter", theirs)
        tagged[:] = [one["tags"] for one in tasks if one["id"] not in children]
        return bool(tagged)

    assert comes_true(noted, 240)  # the server notes task runs behind the events of a run
    assert not [tag for tags in tagged for tag in tags if ":" in tag]


# --- an entry, and a crop at my place -------------------------------------------------------


@pytest.mark.long
def test_an_accession_is_all_it_takes(macroscope: Command, tmp_path: Path) -> None:
    done = macroscope("run", "EMPIAR-11759")
    assert done.returncode == 0, done.stderr
    assert "EMPIAR-11759" in done.stdout and re.search(COMPLETE, done.stdout)
    ends = dict(re.findall(r"^(data|report|log|look) +(.*)$", done.stdout, re.MULTILINE))
    assert ends["data"] == str(tmp_path / "data") and ends["look"] == "macroscope view"
    assert Path(ends["report"]).is_file() and Path(ends["log"]).is_file()


@pytest.mark.long
def test_a_crop_of_the_hemibrain_where_i_want_it(macroscope: Command, tmp_path: Path) -> None:
    done = macroscope("run", "flyem:a89eb3af216a46cdba81204d8f954786/grayscale", "--box", BOX)
    assert done.returncode == 0, done.stderr
    (tree,) = (tmp_path / "data" / "flyem").glob("*.ome.zarr")
    voxels = zarr.open_array(tree / "0", mode="r")[:]
    np.testing.assert_array_equal(voxels, dvid_voxels((20000, 20010, 18000), (8, 32, 48)))
    assert "8 32 48" in done.stdout
