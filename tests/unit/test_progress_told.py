"""The line of progress in the log and on a run's page, half a minute after the last."""

from __future__ import annotations

import logging

import pytest

from flows import logs
from flows.logs import progress_told
from lib.ingest.progress import Standing, tell


class Clock:
    """Time as the test has it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(logs, "time", clock)
    monkeypatch.setattr(logs, "standings", lambda: ())  # what is told is told here
    return clock


def standing(done: int, received: int, volume: str = "ebi/em") -> Standing:
    return Standing(volume, done, 10, received, 1000)


def test_a_line_comes_every_half_minute_with_bytes_shards_and_time_left(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(logs.LOGGER, "propagate", True)
    with caplog.at_level(logging.INFO, "macroscope"), progress_told("ebi", told.append):
        for seconds, received in ((0, 100), (29, 200), (31, 300), (45, 400), (59, 450), (62, 500)):
            clock.now = 1000.0 + seconds
            tell(standing(received // 100, received))
    assert len(told) == 2
    first, second = told
    assert first.startswith("ebi/em: 3 of 10 shards, 300 B of 1.00 kB, ")
    assert second.startswith("ebi/em: 5 of 10 shards, 500 B of 1.00 kB, ")
    assert second.endswith(" left")
    logged = [record.getMessage() for record in caplog.records]
    assert list(dict.fromkeys(logged)) == told


def test_other_sources_and_what_is_finished_say_nothing(clock: Clock) -> None:
    told: list[str] = []
    with progress_told("ebi", told.append):
        clock.now += 40
        tell(standing(3, 300, "idr/em"))
        tell(standing(10, 1000))
    assert told == []
