"""The wheel works by itself: in an empty folder, without a checkout beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder / "source")], check=True)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--wheel-dir",
            "dist",
            "./source",
        ],
        cwd=folder,
        env={**os.environ, "PIP_RETRIES": "10"},  # the tools that build it come from an index
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").glob("macroscope-*.whl")
    return built


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A command of an environment that holds the wheel, and its dependencies from this one."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps"]
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*install, "--no-index", str(wheel)], check=True, cwd=folder, env=alone)
    (site,) = (folder / "venv").glob("lib/python3.*/site-packages")
    # a path alone: what lies there is found, its own .pth files (the checkout's) are not read
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    programs = f"{python.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"  # weed is one
    kept = {"PATH": programs, "HOME": str(folder)}
    (folder / "work").mkdir()

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python.with_name(words[0])), *words[1:]],
            cwd=folder / "work",
            env=kept,
            capture_output=True,
            text=True,
            timeout=560,
        )

    return command


def test_it_holds_what_a_run_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "schemas/metadata_schema.json",
        "flows/resources/prefect.yaml",
        "flows/resources/job-template.json",
        "lib/present/templates/report.html.jinja",
        "lib/present/templates/store.html.jinja",
        "macroscope/py.typed",
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]


@pytest.mark.long
def test_it_brings_in_a_volume_and_proves_it(run: Run) -> None:
    done = run("macroscope", "run", "--archives", "samples", "--source", "flyem", "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert [volume["status"] for volume in result["volumes"]] == ["complete"]
    assert run("macroscope", "verify").returncode == 0


@pytest.mark.long
def test_what_it_advises_is_there(run: Run) -> None:
    where = run("python", "-c", "import lib, flows.register as r; print(lib.__file__, r._home())")
    assert str(ROOT) not in where.stdout, where.stdout
    template = run("python", "-c", "import flows.register as r; r.job_template('kubernetes', None)")
    assert template.returncode == 0, template.stderr
    assert run("macroscope", "view", "--help").returncode == 0
    assert "empiar:" in run("python", "-c", "import macroscope as m; print(m.list())").stdout
    assert run("python", "-m", "macroscope", "--version").stdout.startswith("macroscope ")
    assert run("macroscope", "deploy", "--", "--help").returncode == 0
