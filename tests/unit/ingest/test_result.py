"""What the log of a run and its page say while a volume is made: bytes, shards, time left."""

from __future__ import annotations

import logging

import pytest

from flows.commands.run import _row
from flows.logs import LOGGER, PROGRESS_SECONDS, progress_told
from lib.about import Provenance
from lib.config.loaders import FlyEMConfig
from lib.ingest.costs import cost_of, row_of
from lib.ingest.record_tracker import volume_result
from lib.ingest.result import ProgressEvent, emit
from tests.kit.volume_kit import a_plan


def standing(volume: str, done: int, received: int) -> ProgressEvent:
    return ProgressEvent(volume, done, 10, received, 100_000_000)


def test_a_line_at_least_every_half_minute_with_bytes_shards_and_time_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[float, str]] = []
    now = 0.0
    monkeypatch.setattr(LOGGER, "propagate", True)
    with (
        caplog.at_level(logging.INFO, "macroscope"),
        progress_told({"ebi/one"}, lambda line: said.append((now, line)), clock=lambda: now),
    ):
        for second in range(121):  # looked at every second; no shard is finished for long
            now = float(second)
            emit(standing("ebi/one", second // 60, 500_000 * second))
    logged = [record.getMessage() for record in caplog.records]
    assert [*dict.fromkeys(logged)] == [line for _, line in said], "the file has the same lines"
    times = [moment for moment, _ in said]
    gaps = [b - a for a, b in zip([0.0, *times], [*times, 120.0], strict=True)]
    assert PROGRESS_SECONDS <= 30 and max(gaps) <= 30, times
    first, last = said[0][1], said[-1][1]
    assert first == "ebi/one: 0 of 10 shards, 12.5 MB of 100 MB, 500 kB/s, 3 min 17 s left"
    assert "1 of 10 shards" in last and " left" in last, last


def test_each_volume_is_told_of_and_none_of_another_run() -> None:
    said: list[str] = []
    now, mine = 0.0, set[str]()
    with progress_told(mine, said.append, clock=lambda: now):
        mine |= {"ebi/one", "ebi/two"}
        for second in range(62):
            now = float(second)
            for name in ("ebi/one", "ebi/two", "ebi/of_another_run"):
                emit(standing(name, 1, 1000 * second))
    assert sum("ebi/one" in line for line in said) == 2
    assert sum("ebi/two" in line for line in said) == 2
    assert not any("another" in line for line in said)


def test_a_volume_that_is_finished_is_told_of_no_more() -> None:
    said: list[str] = []
    now = 0.0
    with progress_told({"ebi/one"}, said.append, clock=lambda: now):
        for second in range(100):
            now = float(second)
            emit(standing("ebi/one", 10, 100_000_000))
    assert said == []


def test_a_voxel_length_that_nobody_states_is_shown_as_unknown() -> None:
    """In the table of a plan and in that of a run: 1 nm stands in its place, unmeasured."""
    stated = {
        "voxel_size_nm.z": Provenance(source="assumed"),
        "voxel_size_nm.y": Provenance(source="file"),
        "voxel_size_nm.x": Provenance(source="file"),
    }
    update = {"voxel_nm_zyx": (1.0, 12.33, 12.33), "stated": stated}
    plan = a_plan((2, 3, 4)).model_copy(update=update)
    assert row_of(cost_of(plan, FlyEMConfig(), 0.5))["voxel nm z,y,x"] == "? x 12.33 x 12.33"
    assert _row("ebi", volume_result(plan, "planned", made=False))[3] == "? 12.33 12.33"
