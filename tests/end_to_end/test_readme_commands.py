"""Every command in the README and the tutorial is run: here, or by the test that is named here.

A command that is new is in neither list, and fails. What asks the public archives is run against
the stand-ins, with a box that lies inside their smaller volumes.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from emulators.serving import Samples
from tests.faults.bench import Bench

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CHAIN = (
    "tests/end_to_end/test_prefect_ui_in_browser.py",
    "test_a_deployed_run_does_the_same_job_with_its_runs_and_artifacts_on_the_server",
)
ADDRESSES = ("tests/formats/test_conformance.py", "test_every_voxel_comes_out")
TASKS = "tests/end_to_end/test_tasks.py"
ENTRY = (TASKS, "test_an_accession_is_all_it_takes")  # the stand-in has another one
KIND = (
    "tests/kubernetes/test_scripts.py",
    "test_kind_up_builds_loads_and_installs_in_this_order",
)
ON_A_CLUSTER = (
    "tests/kubernetes/test_on_a_cluster.py",
    "test_all_sources_each_as_its_own_job_the_heavy_ones_each_with_a_cluster_that_is_gone",
)

#: Commands that a test elsewhere drives, because they serve until interrupted or need a cluster.
DRIVEN = {
    "macroscope view": (
        "tests/end_to_end/test_viewer_in_browser.py",
        "test_the_page_of_a_store_filters_and_a_click_opens_a_volume",
    ),
    "macroscope view idr": (
        "tests/end_to_end/test_viewer_in_browser.py",
        "test_the_viewer_shows_the_volumes_own_tissue_at_the_right_scale",
    ),
    # addresses of places that only have stand-ins here
    "macroscope run data/sections/": ADDRESSES,
    'macroscope run "https://cremi.org/static/data/sample_A_20160501.hdf'
    '|hdf5:volumes/raw"': ADDRESSES,
    "macroscope plan EMPIAR-10310": ENTRY,
    "macroscope run EMPIAR-10310": ENTRY,
    "macroscope run flyem:a89eb3af216a46cdba81204d8f954786/grayscale"
    ' --box "z=20000:20064,y=20000:20128,x=18000:18128"': (
        TASKS,
        "test_a_crop_of_the_hemibrain_where_i_want_it",
    ),
    "macroscope run --datasets datasets.yaml": (
        TASKS,
        "test_five_datasets_come_in_by_one_command_and_again_only_what_failed",
    ),
    "source .macroscope/client.env": CHAIN,
    ".venv/bin/prefect deployment run macroscope/full --watch": CHAIN,
    "prefect deployment run macroscope/full": CHAIN,
    "helm install macroscope helm/macroscope -n em": ON_A_CLUSTER,
}

#: Targets of make: what they come to (asked of make itself), and the test that drives that.
TARGETS = {
    "make run": (
        "macroscope run --archives samples --mode staged",
        "tests/end_to_end/test_main_job.py",
        "test_all_five_sources_end_as_voxel_exact_volumes_with_valid_records",
    ),
    "make run MODE=parallel": (
        "macroscope run --archives samples --mode parallel",
        "tests/end_to_end/test_modes.py",
        "test_sources_run_in_the_order_of_the_mode_and_overlap_where_it_says_so",
    ),
    'make run ARCHIVES=public SOURCES="flyem"': (
        "macroscope run --archives public --mode staged --source flyem",
        "tests/unit/archives/test_public_addresses.py",
        "test_flyem_asks_the_hemibrain_grayscale_root",
    ),
    "make run SOURCES=epfl": (
        "macroscope run --archives samples --mode staged --source epfl",
        "tests/end_to_end/test_main_job.py",
        "test_what_people_and_machines_look_at_stands_beside_the_volumes",
    ),
    "make test": ('pytest -m "not slow and not long"', "Makefile", "test: "),
    "make up": ("macroscope up --port 4200 --archives samples", *CHAIN),
    "make deploy": (
        "macroscope deploy",
        "tests/kubernetes/test_registration_run.py",
        "test_registration_can_run_again_for_either_kind_of_pool",
    ),
    "make down": ("macroscope down", *CHAIN),
    "make kind-up": ("sh k8s/kind-up.sh", *KIND),
    "make kind-run": (
        "sh k8s/kind-run.sh",
        "tests/kubernetes/test_scripts.py",
        "test_script_is_valid_shell",
    ),
    "make kind-down": (
        "sh k8s/kind-down.sh",
        "tests/kubernetes/test_scripts.py",
        "test_script_is_valid_shell",
    ),
    "make faults": (
        "python -m tests.faults.matrix",
        "tests/faults/test_fault_matrix.py",
        "test_a_fault_ends_in_right_voxels_or_in_a_named_error_with_nothing_lost",
    ),
    "make chaos KILLS=50": (
        "python -m tests.chaos --kills 50",
        "tests/chaos/test_short_kills.py",
        "test_runs_killed_at_random_moments_end_byte_identical_to_an_undisturbed_one",
    ),
    "make bench": (
        "python -m benchmarks",
        "tests/unit/test_benchmarks_smoke.py",
        "test_one_tiny_case_runs_end_to_end_and_is_written_as_json",
    ),
}

#: Run here. The stand-ins are smaller than what they stand for.
RUN_HERE = (
    "macroscope plan",
    "macroscope run",
    "macroscope list",
    "macroscope search",
    "macroscope verify",
    "macroscope consolidate",
)
SMALLER = {
    "--archives public": "--archives samples",
    "z=0:64,y=100:300,x=100:300": "z=1:4,y=2:18,x=0:16",
}


@dataclass(frozen=True)
class Step:
    """Commands of one block, and what the document says they print."""

    commands: tuple[str, ...]
    printed: tuple[str, ...]


def steps(document: str) -> list[Step]:
    """The shell blocks of a document; a block of text right after one is its output."""
    text = (ROOT / document).read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$(\s*)", text, re.MULTILINE | re.DOTALL)
    found = []
    for number, (language, body, _) in enumerate(blocks):
        if language != "sh":
            continue
        after = blocks[number + 1] if number + 1 < len(blocks) else ("", "", "")
        printed = tuple(after[1].splitlines()) if after[0] == "text" else ()
        lines = [without_comment(line) for line in body.splitlines()]
        found.append(Step(tuple(line for line in lines if line), printed))
    return found


def without_comment(line: str) -> str:
    return re.sub(r"\s+#\s.*$", "", line).strip()


def inline_commands(document: str) -> list[str]:
    """Commands of the README's tables: the whole cell is one."""
    return re.findall(r"^\| `((?:make|macroscope)[^`]*)` \|", (ROOT / document).read_text(), re.M)


README = [command for step in steps("README.md") for command in step.commands]
README += inline_commands("README.md")


def shell(
    command: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )


def names_a_test(path: str, name: str) -> bool:
    return name in (ROOT / path).read_text()


@pytest.mark.parametrize("command", README)
def test_every_command_of_the_readme_works(
    command: str, environment: dict[str, str], samples: Samples, tmp_path: Path
) -> None:
    if command in TARGETS:
        becomes, *driven_by = TARGETS[command]
        asked = ["make", "-C", str(ROOT), "--no-print-directory", "-n", *shlex.split(command)[1:]]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert becomes in " ".join(done.stdout.replace("\\\n", " ").split())
        assert names_a_test(*driven_by)
    elif command in DRIVEN:
        assert names_a_test(*DRIVEN[command])
    else:
        assert command.startswith(RUN_HERE), "a new command: run it here, or name its test"
        for public, ours in SMALLER.items():
            command = command.replace(public, ours)
        if command.startswith(("macroscope verify", "macroscope consolidate")):
            ended = Bench(samples, tmp_path, "idr").run()  # nothing to prove is an error
            assert ended.complete, ended.errors
        done = shell(command, tmp_path, environment)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_listed_that_no_document_says() -> None:
    said = {*README, *(c for step in steps("docs/tutorial.md") for c in step.commands)}
    assert {*TARGETS, *DRIVEN} - said == set()


def test_the_python_of_the_readme_brings_in_a_volume(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    done = shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}", tmp_path, environment)
    assert (done.returncode, done.stderr) == (0, "")  # and quiet
    assert done.stdout.startswith("{'z': 5.92, 'y': 8.0, 'x': 8.0} ")
    assert [*(tmp_path / "data" / "openorganelle").glob("metadata_*.json")]


@pytest.mark.long
def test_the_tutorial_prints_what_it_says_from_top_to_bottom(
    environment: dict[str, str], tmp_path: Path
) -> None:
    ran = 0
    for step in steps("docs/tutorial.md"):
        printed = ""
        for command in step.commands:
            if command in TARGETS or command in DRIVEN or command.startswith(("export", "mkdir")):
                continue
            done = shell(command, tmp_path, {**environment, "COLUMNS": "80"})
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            printed += done.stdout
            ran += 1
        there = {pattern(line) for line in printed.splitlines()}
        for line in step.printed:
            assert pattern(line) in there, f"{line}\nis not in\n{printed}"
    assert ran == 9


def pattern(line: str) -> str:
    """A line without what differs from run to run: seconds, bytes, times, folders, columns."""
    line = re.sub(r"\S*/data$", "DATA", line)
    line = re.sub(r"\d{8}T\d{6}Z", "TIME", line)
    line = re.sub(r"\b\d+ (?=facts proven|not provable)", "SOME ", line)
    line = re.sub(r"\b\d+\.\d s$", "SECONDS", line)
    line = re.sub(r"\b\d{1,3}(,\d{3})+\b", "BYTES", line)
    return " ".join(line.split())


def test_the_readme_quotes_the_fault_matrix_as_it_is() -> None:
    matrix = (ROOT / "docs" / "reliability.md").read_text()
    (cells, right, named, third) = re.search(
        r"(\d+) cells in \d+ s: (\d+) ended with every voxel right, (\d+) with a named error and "
        r"nothing lost, (\d+) in a third way",
        matrix,
    ).groups()  # type: ignore[union-attr]
    said = " ".join((ROOT / "README.md").read_text().split())
    assert (
        f"{cells} cells: {right} ended with every voxel right, {named} with a named error and "
        f"nothing lost, {third} in a third way." in said
    )


@pytest.mark.parametrize("document", ["README.md", *sorted(p.name for p in ROOT.glob("docs/*.md"))])
def test_every_link_leads_somewhere(document: str) -> None:
    path = ROOT / document if document == "README.md" else ROOT / "docs" / document
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    gone = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert gone == []


def test_pictures_are_small_enough_for_a_clone() -> None:
    pictures = list((ROOT / "docs" / "pictures").glob("*.png"))
    assert len(pictures) == 3
    assert max(path.stat().st_size for path in pictures) < 300_000
