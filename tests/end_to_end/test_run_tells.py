"""What a run says while it works and at its end, on a terminal and without one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Command
from tests.end_to_end.test_terminal_escapes import on_a_terminal

NAME = "Figure_S3B_FIB-SEM_U2OS_20x20x20nm_xy_9846137"


def test_a_run_ends_with_where_everything_is_and_how_to_look_at_it(
    macroscope: Command, tmp_path: Path
) -> None:
    there = tmp_path / "a folder"
    done = macroscope("run", "--source", "idr", "--data-dir", str(there), "--verbose")
    assert done.returncode == 0, done.stderr
    ends = dict(re.findall(r"^(data|report|log|look) +(.*)$", done.stdout, re.MULTILINE))
    assert ends["data"] == str(there)
    assert ends["look"] == f"macroscope view --data-dir '{there}'"
    for place in ("data", "report", "log"):
        assert Path(ends[place]).exists()
    assert Path(ends["report"]).name.startswith("report_")

    told = f"idr/{NAME}: shard 0/0/0"
    assert told in done.stderr and told in Path(ends["log"]).read_text()
    assert re.search(rf"^idr/{NAME}: .* of 262 kB", done.stderr, re.M), "lines, no bars"
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.long
def test_a_quiet_run_says_what_went_wrong_and_nothing_else(macroscope: Command) -> None:
    good = macroscope("run", "--source", "idr", "-q")
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    wrong = macroscope("run", "--source", "idr", "-q", IDR_IMAGE_IDS="5")
    assert wrong.returncode == 1
    assert wrong.stdout == ""
    lines = [line for line in wrong.stderr.splitlines() if line.startswith("idr: ")]
    assert len(lines) == 1 and "images/5" in lines[0]


@pytest.mark.long
def test_on_80_columns_names_are_whole_and_shards_are_not_told(
    environment: dict[str, str], tmp_path: Path
) -> None:
    sent = on_a_terminal(tmp_path, environment, "run", "--source", "idr")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", sent)
    assert f"idr: {NAME}\n" in plain
    assert "complete: 24 96 112 voxels of 20 20 20 nm" in plain
    assert "look    macroscope view" in plain
    assert "shard 0/0/0" not in plain
    (log,) = (tmp_path / "logs").glob("idr_*.log")
    assert "shard 0/0/0" not in log.read_text()
