"""The harness of the benchmarks runs one tiny case from source to table."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("psutil", reason="belongs to the bench dependency group")
pytest.importorskip("tensorstore", reason="belongs to the bench dependency group")

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_one_tiny_case_runs_end_to_end_and_is_written_as_json(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    arguments = ["--cases", "dvid", "--size", "2", "--rounds", "1"]
    where = ["--cache", str(tmp_path / "cache"), "--json", str(results)]
    command = [sys.executable, "-m", "benchmarks", *arguments, *where]
    subprocess.run(command, cwd=ROOT, check=True, timeout=500)
    document = json.loads(results.read_text())
    (case,) = document["cases"]
    contenders = {"ours", "bare steps", "with statistics and a level", "one GET"}
    assert set(case["runs"]) == contenders
    for (run,) in case["runs"].values():
        assert run["seconds"] > 0
        assert run["cpu_s"] > 0
        assert run["peak_mb"] > 10
        assert run["import_s"] > 0
    assert case["goals"][0]["limit"] == 0.75
    assert case["runs"]["ours"][0]["extra"]["received"] >= 126**3
    assert document["machine"]["cpus"] >= 1


def test_an_output_that_differs_from_its_source_is_not_timed_but_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    check_output = import_module("benchmarks.check").check_output
    volume = import_module("benchmarks.truth").volume
    voxels = volume("uint8")((5, 6, 7), (8, 9, 10))
    np.save(tmp_path / "copy.npy", voxels)
    assert check_output(tmp_path, (5, 6, 7)) == 1
    voxels[-1, -1, -1] += 1
    np.save(tmp_path / "copy.npy", voxels)
    with pytest.raises(RuntimeError, match=r"copy\.npy differs from its source"):
        check_output(tmp_path, (5, 6, 7))


def test_sigterm_ends_the_servers_too(tmp_path: Path) -> None:
    from benchmarks.servers import Servers

    before, ended = signal.getsignal(signal.SIGTERM), list[bool]()

    def told_to_end() -> None:
        with Servers(tmp_path / "cache") as servers:
            servers._stack.callback(ended.append, True)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as left:
        told_to_end()
    assert (left.value.code, ended) == (143, [True])
    assert signal.getsignal(signal.SIGTERM) is before
