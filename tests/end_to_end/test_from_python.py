"""Runs from Python: no server, no guard, no configuration; named errors or results, and quiet."""

from __future__ import annotations

import ast
import asyncio
import doctest
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import macroscope
from emulators.control import Control
from emulators.serving import Samples
from lib.config.loader_base import AddressConfig
from lib.config.loaders import FlyEMConfig, OpenOrganelleConfig
from lib.errors import IngestError as FlowError
from macroscope import _ingest
from macroscope.errors import ConfigError, IngestError

ROOT = Path(__file__).parents[2]
GONE = {"openorganelle": {"dataset_id": "nowhere", "zarr_path": "em"}}


@pytest.fixture
def desk(
    samples: Samples, prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An empty folder, stand-ins as the archives, and a Prefect server that is named."""
    monkeypatch.setenv("EM_SERVICES", json.dumps(samples.endpoints))
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SCRIPT = """
import asyncio, sys, threading
import macroscope
from macroscope.errors import IngestError

async def cell():  # as a notebook's: a loop runs in this thread
    return macroscope.ingest("em.tif", voxel_size_nm=[30, 8, 8], data_dir="data")

first = asyncio.run(cell())
said = []
def other():
    try:
        macroscope.ingest("nowhere.tif", data_dir="data")
    except IngestError as error:
        said.append((error.results.sources[0].success, str(error)))
thread = threading.Thread(target=other)
thread.start()
thread.join()
assert first.volumes[0].status == "complete", first
assert said[0][0] is False and "no such file" in said[0][1], said
assert "prefect" not in sys.modules
print(first.volumes[0].open().shape)
"""


@pytest.mark.long
def test_a_script_without_a_guard_needs_no_server(tmp_path: Path) -> None:
    """In a running event loop, in a thread, on a machine so busy that Prefect's own would fail."""
    tifffile.imwrite(
        tmp_path / "em.tif", np.arange(8 * 16 * 16, dtype=np.uint16).reshape(8, 16, 16)
    )
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "flows.py").write_text("raise RuntimeError('a file of the caller')")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EM_", "PREFECT_"))}
    done = subprocess.run(
        [sys.executable, "-P", "script.py"],
        cwd=tmp_path,
        env={
            **kept,
            "PREFECT_HOME": str(tmp_path / "home"),
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "0",
        },
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(8, 16, 16)\n", "")


DIRECT = """
import asyncio, threading
from flows.flyem import flyem
from lib.config.loaders import FlyEMConfig
from lib.errors import IngestError

async def cell():  # as a notebook's
    return flyem(FlyEMConfig(crop_size=(32, 24, 16), output_dir="data"))

def other():
    try:
        flyem(FlyEMConfig(instance="nowhere", output_dir="data"))
    except IngestError as error:
        print(error.results[0].source, error.results[0].success)

result = asyncio.run(cell())
assert result.success, result
thread = threading.Thread(target=other)
thread.start()
thread.join()
"""


@pytest.mark.long
def test_a_flow_that_is_called_needs_no_server_either(samples: Samples, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(DIRECT)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EM_", "PREFECT_"))}
    done = subprocess.run(
        [sys.executable, "-P", "script.py"],
        cwd=tmp_path,
        env={
            **kept,
            "EM_SERVICES": json.dumps(samples.endpoints),
            "PREFECT_HOME": str(tmp_path / "home"),
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "0",
        },
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert (done.returncode, done.stdout) == (0, "flyem False\n"), done.stderr


@pytest.mark.long
def test_a_called_flow_raises_our_errors(prefect_server: str, desk: Path) -> None:
    from prefect import flow

    from flows.flyem import flyem
    from flows.macroscope import macroscope as whole
    from flows.openorganelle import openorganelle
    from flows.sources import source_flow

    with pytest.raises(FlowError) as failed:
        openorganelle(OpenOrganelleConfig(**GONE["openorganelle"]))
    (result,) = failed.value.results
    assert (result.source, result.success) == ("openorganelle", False)
    with pytest.raises(ConfigError, match="crop_size"):
        flyem({"crop_size": "wide"})
    state = flyem(FlyEMConfig(instance="nowhere"), return_state=True)
    assert state.is_failed()
    with pytest.raises(FlowError, match="no such file"):
        source_flow("address")(AddressConfig(addresses=["/nowhere/x.tif"]))
    with pytest.raises(FlowError, match="openorganelle"):
        whole(sources=["openorganelle"], parameters=GONE)

    @flow
    def of_a_user() -> None:
        openorganelle(OpenOrganelleConfig(**GONE["openorganelle"]))

    with pytest.raises(FlowError) as failed:
        of_a_user()
    assert failed.value.results[0].source == "openorganelle"


@pytest.mark.long
def test_one_source_that_fails_leaves_the_results_of_the_others(desk: Path) -> None:
    told: list[Any] = []
    with pytest.raises(IngestError, match="openorganelle") as failed:
        macroscope.ingest(
            sources=["flyem", "openorganelle"],
            settings={"flyem": {"crop_size": [32, 24, 16]}, **GONE},
            progress=told.append,
        )
    results = failed.value.results
    assert [(one.source, one.success) for one in results.sources] == [
        ("flyem", True),
        ("openorganelle", False),
    ]
    (volume,) = results.volumes
    assert volume.open().shape == (16, 24, 32)
    assert results.report is not None
    assert Path(results.report).is_file()
    assert told[-1].done_shards == told[-1].total_shards


def test_a_wrong_setting_keeps_its_name(desk: Path) -> None:
    with pytest.raises(ConfigError, match="crop_size"):
        macroscope.ingest(sources=["flyem"], settings={"flyem": {"crop_size": "wide"}})
    with pytest.raises(ConfigError, match="execution_mode"):
        macroscope.ingest(sources=["flyem"], mode="sideways")
    assert [path.name for path in desk.iterdir()] == []


@pytest.mark.long
def test_the_example_runs(desk: Path) -> None:
    ran = doctest.testmod(_ingest)
    assert (ran.failed, ran.attempted > 1) == (0, True)


@pytest.mark.long
def test_a_run_ends_with_its_caller(desk: Path, faults: Control) -> None:
    """Ctrl-C in a notebook: the run lets go of its volume, and its record says so."""
    faults.add("stall", "dvid", match="/raw/", seconds=120)

    def interrupt(standing: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        macroscope.ingest(sources=["flyem"], progress=interrupt)
    (record,) = (desk / "data" / "flyem").glob("metadata_*.json")
    assert json.loads(record.read_text())["status"] == "cancelled"


@pytest.mark.long
def test_the_notebook_runs(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell by cell, in a running event loop as a notebook's."""
    document = json.loads((ROOT / "docs" / "how-to" / "volumes.ipynb").read_text())
    cells = ["".join(c["source"]) for c in document["cells"] if c["cell_type"] == "code"]
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "examples"))
    names: dict[str, Any] = {}

    async def run() -> list[Any]:
        return [last_value(cell, names) for cell in cells]

    shown = asyncio.run(run())
    assert shown[2]._repr_html_().count("<img") == 1
    assert shown[5] == (4 * 2 * 3, (1, 16, 32, 32))
    assert [problems for _, problems in shown[6]] == [()]


def last_value(cell: str, names: dict[str, Any]) -> Any:
    """Run a cell; what its last line comes to."""
    parsed = ast.parse(cell)
    last = parsed.body.pop()
    assert isinstance(last, ast.Expr)
    exec(compile(parsed, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)
