"""The execution modes, as the tables that the README draws."""

from __future__ import annotations

import pytest

from lib.errors import ConfigError
from lib.execution import (
    MODES,
    Step,
    check_sources,
    dask_choice,
    default_subflows,
    mode,
    on_kubernetes,
    ready,
    schedule,
)

ALL = ("ebi", "epfl", "flyem", "idr", "openorganelle")

# mode -> source -> what it waits for
TABLES: dict[str, dict[str, set[str]]] = {
    "staged": {
        "ebi": set(),
        "flyem": set(),
        "idr": set(),
        "openorganelle": {"ebi", "flyem", "idr"},
        "epfl": {"openorganelle"},
    },
    "background": {
        "epfl": set(),
        "idr": set(),
        "flyem": {"idr"},
        "ebi": {"flyem"},
        "openorganelle": {"ebi"},
    },
    "parallel": {
        "ebi": set(),
        "epfl": set(),
        "flyem": set(),
        "idr": set(),
        "openorganelle": set(),
    },
    "sequential": {
        "ebi": set(),
        "epfl": {"ebi"},
        "flyem": {"epfl"},
        "idr": {"flyem"},
        "openorganelle": {"idr"},
    },
}
RUNNERS = {
    "staged": ("threads", 3),
    "background": ("threads", 2),
    "parallel": ("threads", 5),
    "sequential": ("sequential", 1),
}


def table(steps: tuple[Step, ...]) -> dict[str, set[str]]:
    return {step.source: set(step.after) for step in steps}


def rounds(steps: tuple[Step, ...]) -> list[list[str]]:
    """What starts together when all that runs ends together."""
    finished: set[str] = set()
    found = []
    while batch := ready(steps, finished):
        found.append(batch)
        finished |= set(batch)
    return found


def test_there_are_four_modes() -> None:
    assert set(MODES) == set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_each_source_waits_for_what_the_table_says(name: str) -> None:
    assert table(schedule(mode(name), ALL)) == TABLES[name]


@pytest.mark.parametrize("name", TABLES)
def test_the_order_of_selection_does_not_matter(name: str) -> None:
    assert schedule(mode(name), ALL[::-1]) == schedule(mode(name), ALL)


@pytest.mark.parametrize("name", RUNNERS)
def test_each_mode_names_its_task_runner_and_workers(name: str) -> None:
    assert (mode(name).task_runner, mode(name).workers) == RUNNERS[name]


@pytest.mark.parametrize("name", TABLES)
def test_no_more_sources_run_at_once_than_there_are_workers(name: str) -> None:
    steps = schedule(mode(name), ALL)
    finished: set[str] = set()
    running: list[str] = []
    widest = 0
    while len(finished) < len(steps):
        running += ready(steps, finished, running)
        widest = max(widest, len(running))
        # the long one, epfl, ends last: the widest overlap
        ends = next((source for source in running if source != "epfl"), running[0])
        running.remove(ends)
        finished.add(ends)
    assert widest == mode(name).workers


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("staged", [["ebi", "flyem", "idr"], ["openorganelle"], ["epfl"]]),
        ("background", [["epfl", "idr"], ["flyem"], ["ebi"], ["openorganelle"]]),
        ("parallel", [["ebi", "epfl", "flyem", "idr", "openorganelle"]]),
        ("sequential", [["ebi"], ["epfl"], ["flyem"], ["idr"], ["openorganelle"]]),
    ],
)
def test_what_starts_together(name: str, expected: list[list[str]]) -> None:
    assert rounds(schedule(mode(name), ALL)) == expected


@pytest.mark.parametrize(
    ("name", "selected", "expected"),
    [
        ("staged", ["ebi", "epfl"], {"ebi": set(), "epfl": {"ebi"}}),
        ("staged", ["epfl"], {"epfl": set()}),
        (
            "background",
            ["idr", "ebi", "openorganelle"],
            {"idr": set(), "ebi": {"idr"}, "openorganelle": {"ebi"}},
        ),
        ("background", ["openorganelle", "epfl"], {"epfl": set(), "openorganelle": set()}),
        ("sequential", ["ebi", "idr"], {"ebi": set(), "idr": {"ebi"}}),
        ("sequential", [], {}),
    ],
)
def test_waiting_for_an_absent_source_falls_through(
    name: str, selected: list[str], expected: dict[str, set[str]]
) -> None:
    assert table(schedule(mode(name), selected)) == expected


@pytest.mark.parametrize(
    ("name", "heavy", "waits", "waited_for_by"),
    [
        ("staged", False, set(), {"openorganelle"}),
        ("staged", True, {"epfl"}, set()),
        ("background", False, {"ebi"}, {"openorganelle"}),
        ("background", True, {"openorganelle"}, set()),
        ("parallel", False, set(), set()),
        ("parallel", True, set(), set()),
        ("sequential", False, {"openorganelle"}, set()),
        ("sequential", True, {"openorganelle"}, set()),
    ],
)
def test_a_sixth_archive_joins_those_of_its_weight(
    name: str, heavy: bool, waits: set[str], waited_for_by: set[str]
) -> None:
    found = table(schedule(mode(name), [*ALL, "sixth"], {"sixth"} if heavy else ()))
    assert found.pop("sixth") == waits
    assert {source for source, after in found.items() if "sixth" in after} == waited_for_by


def test_two_heavy_newcomers_do_not_run_together() -> None:
    found = table(schedule(mode("staged"), ["six", "seven"], {"six", "seven"}))
    assert found == {"six": set(), "seven": {"six"}}


def test_a_source_runs_once_however_often_it_is_selected() -> None:
    assert table(schedule(mode("sequential"), ["ebi", "ebi", "idr"])) == {
        "ebi": set(),
        "idr": {"ebi"},
    }


def test_ready_leaves_out_what_runs_or_ran() -> None:
    steps = schedule(mode("staged"), ALL)
    assert ready(steps, finished=set(), started={"ebi"}) == ["flyem", "idr"]
    assert ready(steps, finished={"ebi", "flyem"}, started={"idr"}) == []
    assert ready(steps, finished={"ebi", "flyem", "idr"}) == ["openorganelle"]
    assert ready(steps, finished=set(ALL)) == []


def test_an_unknown_mode_is_refused_with_the_valid_names() -> None:
    with pytest.raises(ConfigError, match="staged, background, parallel, sequential"):
        mode("fast")


def test_an_unknown_source_is_refused_with_the_valid_names() -> None:
    with pytest.raises(ConfigError, match="ebi, epfl, flyem, idr, openorganelle") as caught:
        check_sources(["ebi", "openorganele"], ALL)
    assert "did you mean 'openorganelle'?" in caught.value.message
    with pytest.raises(ConfigError, match="none is selected"):
        check_sources([], ALL)
    assert check_sources(["idr", "ebi", "idr"], ALL) == ("idr", "ebi")


@pytest.mark.parametrize(
    ("setting", "heavy", "cluster", "expected"),
    [
        ("auto", True, True, "kubernetes"),
        ("auto", True, False, "off"),
        ("auto", False, True, "off"),
        ("kubernetes", True, False, "kubernetes"),
        ("kubernetes", False, True, "off"),
        ("local", True, True, "local"),
        ("local", True, False, "local"),
        ("local", False, False, "off"),
        ("off", True, True, "off"),
    ],
)
def test_only_heavy_loaders_get_dask(
    setting: str, heavy: bool, cluster: bool, expected: str
) -> None:
    assert dask_choice(setting, heavy, cluster) == expected  # type: ignore[arg-type]


def test_subflows_become_deployments_on_kubernetes() -> None:
    assert on_kubernetes({"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert not on_kubernetes({})
    assert default_subflows(True) == "deployments"
    assert default_subflows(False) == "inline"
