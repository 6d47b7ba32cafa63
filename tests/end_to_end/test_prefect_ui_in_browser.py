"""Server, worker, deployments: the chain of `make up` and `make deploy`, and what its UI shows.

All tests look at one finished run; the last three begin another on the same desk, and cancel it.
Those that need no browser run where there is none.
"""

from __future__ import annotations

import json
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tifffile
import zarr

from tasks.artifacts import volume_artifact_key
from tests.end_to_end.finished_run import (
    FinishedRun,
    buttons,
    click,
    confirm,
    field,
    fill,
    finished_run,
    log_in,
    post,
    prefect,
    push,
    shown,
    tab_to,
)
from tests.end_to_end.test_stop import wait_until
from tests.kit.browser import Browser, find_chromium
from tests.kit.prefect_server import asking

SOURCES = {"ebi", "epfl", "flyem", "idr", "openorganelle"}
RUN_NAMES = {
    "ebi EMPIAR-11759",
    "epfl EPFL-CA1-HIPPOCAMPUS",
    "flyem a89eb3af grayscale 96x80x72",
    "idr 9846137",
    "openorganelle jrc_mus-nacc-2 s1",
    "consolidate",
}
needs_browser = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium: apt-get install chromium"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    with finished_run(tmp_path_factory.mktemp("desk")) as run:
        yield run


pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def browser(finished: FinishedRun) -> Iterator[Browser]:
    with Browser(width=1280, height=900) as running:
        log_in(running, finished)
        yield running


def test_a_deployed_run_does_the_same_job_with_its_runs_and_artifacts_on_the_server(
    finished: FinishedRun,
) -> None:
    flows = {flow["id"]: flow["name"] for flow in post(finished.env, "flows/filter", {})}
    deployed = post(finished.env, "deployments/filter", {})
    assert {f"{flows[one['flow_id']]}/{one['name']}" for one in deployed} == {
        "macroscope/full",
        "consolidate/catalog",
        *(f"{source}/ingest" for source in {*SOURCES, "address"}),
    }

    found = (finished.folder / "data").glob("*/metadata_*.json")
    records = [json.loads(path.read_text()) for path in found]
    assert len(records) == 5
    assert {record["status"] for record in records} == {"complete"}
    keys = {artifact["key"] for artifact in post(finished.env, "artifacts/filter", {})}
    assert keys > {"run", "volumes", "catalogue"}
    assert keys > {f"{what}-{source}" for what in ("plan", "result") for source in SOURCES}


def test_every_run_has_a_name_tags_and_a_sentence_of_what_it_came_to(
    finished: FinishedRun,
) -> None:
    asked = {"flow_runs": {"parent_flow_run_id": {"any_": [finished.run["id"]]}}}
    children = post(finished.env, "flow_runs/filter", asked)
    assert {child["name"] for child in children} == RUN_NAMES
    for child in children:
        if child["name"] != "consolidate":
            assert {"macroscope", "source", child["name"].split()[0]} == set(child["tags"])
            assert child["state"]["message"].startswith("1 complete, ")
    assert finished.run["state"]["message"].startswith(
        "5 of 5 sources without an error, 5 volumes, "
    )


def test_no_other_page_and_no_other_user_of_the_machine_can_start_anything(
    finished: FinishedRun,
) -> None:
    """A worker runs what the server tells it to: here a page of another site tries to say what."""
    (deployment,) = post(
        finished.env, "deployments/filter", {"deployments": {"name": {"any_": ["full"]}}}
    )
    theirs = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
    for path, body in (
        ("work_pools/", {"name": "theirs", "type": "process"}),
        (f"deployments/{deployment['id']}/create_flow_run", {"job_variables": {"command": "id"}}),
    ):
        url = f"{finished.env['PREFECT_API_URL']}/{path}"
        answer = requests.post(url, json.dumps(body), headers=theirs, timeout=120)
        assert answer.status_code in (401, 403)
        assert "Access-Control-Allow-Origin" not in answer.headers
    state = finished.folder / ".macroscope"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "client.env").stat().st_mode) == 0o600
    password = finished.env["PREFECT_API_AUTH_STRING"]
    told = [path for path in state.rglob("*.log") if password in path.read_text()]
    assert told == []


@needs_browser
def test_the_page_of_a_run_names_its_sources_and_what_they_came_to(
    finished: FinishedRun, browser: Browser
) -> None:
    browser.open(f"{finished.ui}/runs/flow-run/{finished.run['id']}")
    page = shown(browser, "macroscope staged all", "Completed", "Subflow Runs")
    assert {"macroscope", "full"} <= set(page.splitlines())
    assert set(click(browser, "Subflow Runs", *RUN_NAMES).splitlines()) >= SOURCES
    click(browser, "Details", "5 of 5 sources without an error")
    click(browser, "Artifacts", "run", "volumes", "mode staged")
    asked = [url for url in browser.requested if not url.startswith(finished.ui)]
    assert [url for url in asked if url != "about:blank"] == []


@needs_browser
def test_the_table_of_a_run_has_a_row_for_each_source(
    finished: FinishedRun, browser: Browser
) -> None:
    browser.open(f"{finished.ui}/artifacts/artifact/{finished.newest('run')['id']}")
    shown(browser, "5 Items", "EMPIAR-11759")
    rows = browser.until(
        "(rows => rows.length === 5 && rows)([...document.querySelectorAll('table tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.innerText.trim())))"
    )
    assert {row[0] for row in rows} == SOURCES
    assert {row[2] for row in rows} == {"complete"}
    assert {row[3] for row in rows} == {"1"}


@needs_browser
def test_the_artifacts_page_lists_all_keys_and_describes_them(
    finished: FinishedRun, browser: Browser
) -> None:
    browser.open(f"{finished.ui}/artifacts")
    shown(
        browser,
        *(f"plan-{source}" for source in SOURCES),
        *(f"What {source} came to: 1 complete" for source in SOURCES),
        "5 valid records",
    )


@needs_browser
@pytest.mark.parametrize(
    ("key", "pictures", "width"), [("volumes", 5, 360), ("record-ebi", 1, 640)]
)
def test_pictures_of_the_volumes_are_loaded_and_show_something(
    key: str, pictures: int, width: int, finished: FinishedRun, browser: Browser
) -> None:
    if key == "record-ebi":
        key = volume_artifact_key("record", "ebi", "EMPIAR-11759_F57-8_test1_3VBSED")
    browser.open(f"{finished.ui}/artifacts/artifact/{finished.newest(key)['id']}")
    shown(browser, "EMPIAR-11759", "16 × 48 × 64")
    ready = f"document.images.length === {pictures} && [...document.images].every(i => i.complete)"
    browser.until(ready)
    widths = browser.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert max(widths) == width and min(widths) > 100
    spreads = browser.evaluate(
        "[...document.images].map(image => {"
        " const c = Object.assign(document.createElement('canvas'), {width: 64, height: 64});"
        " const g = c.getContext('2d'); g.drawImage(image, 0, 0, 64, 64);"
        " const grey = [...g.getImageData(0, 0, 64, 64).data].filter((v, n) => n % 4 === 0);"
        " return Math.max(...grey) - Math.min(...grey)})"
    )
    assert min(spreads) > 100  # black and white, not one grey


def state_of(finished: FinishedRun, run: str) -> dict[str, Any]:
    with asking(finished.env) as session:
        url = f"{finished.env['PREFECT_API_URL']}/flow_runs/{run}"
        state: dict[str, Any] = session.get(url, timeout=120).json()["state"]
    return state


def begin(finished: FinishedRun, parameters: dict[str, Any], **more: str) -> str:
    """Have the worker run macroscope/full, with more in its environment."""
    asked = {
        "parameters": parameters,
        "state": {"type": "SCHEDULED"},
        "job_variables": {"env": more},
    }
    path = f"deployments/{finished.run['deployment_id']}/create_flow_run"
    return str(post(finished.env, path, asked)["id"])


def ended(finished: FinishedRun, run: str, how: str) -> dict[str, Any]:
    """The last state of a run; how it must have ended."""
    final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

    def over() -> bool:
        time.sleep(0.5)
        return state_of(finished, run)["type"] in final

    wait_until(over, f"run {run} did not end", 500.0)
    state = state_of(finished, run)
    assert state["type"] == how, state["message"]
    return state


def children(finished: FinishedRun, run: str) -> list[dict[str, Any]]:
    asked = {
        "flow_runs": {"parent_flow_run_id": {"any_": [run]}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    found: list[dict[str, Any]] = post(finished.env, "flow_runs/filter", asked)
    return found


def _has(browser: Browser, *texts: str) -> bool:
    page = browser.evaluate("document.body.innerText")
    return all(text in page for text in texts)


def _runs_of(finished: FinishedRun, deployment: str) -> set[str]:
    """Runs of a deployment, without those that they began."""
    asked = {"deployments": {"id": {"any_": [deployment]}}}
    return {run["id"] for run in post(finished.env, "flow_runs/filter", asked)}


@needs_browser
def test_the_form_is_filled_by_keyboard_and_refuses_what_is_wrong(
    finished: FinishedRun, browser: Browser
) -> None:
    deployment = finished.run["deployment_id"]
    browser.open(f"{finished.ui}/deployments/deployment/{deployment}/run")
    shown(browser, "In which order sources run", "For example", "Plan only", "Submit")
    modes = ("staged", "background", "parallel", "sequential")

    def choose() -> None:
        tab_to(browser, "Mode", kind="SELECT")
        for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", "Enter"):
            browser.press(key)  # opens the list at None; the arrows go round in it

    def on() -> Any:
        return browser.evaluate(
            f"{field('Plan only', 'input')}.parentElement.ariaChecked === 'true'"
        )

    def tick() -> None:
        tab_to(browser, "Plan only", kind="LABEL")
        if not on():
            browser.press("Space")

    item = ("A path, https://, s3://", "Image or labels, where the data do not say")

    def add() -> None:
        tab_to(browser, "Datasets", text="Add item")
        browser.press("Enter")

    def submit() -> None:
        browser.rest()
        tab_to(browser, "Submit")
        browser.press("Enter")

    mode = f"{field('Mode', 'select')}.value"
    browser.insist(choose, lambda: browser.evaluate(mode) in modes, "a mode is chosen")
    browser.insist(tick, on, "Plan only is on")
    browser.insist(add, lambda: _has(browser, *item), "an item is added")
    before = _runs_of(finished, deployment)
    browser.insist(submit, lambda: _has(browser, "'address' is a required property"), "a refusal")
    assert _runs_of(finished, deployment) == before

    written = {"Address": "idr:9846137", "Box": "z=0:4", "Group": "cells"}

    def filled() -> None:
        for label, text in written.items():
            fill(browser, label, text)
        submit()

    def begun() -> set[str]:
        """Asks the server only once the page has: who asks often keeps its database busy."""
        if not any(url.endswith("/create_flow_run") for url, _ in browser.answers):
            return set()
        return _runs_of(finished, deployment) - before

    browser.answers.clear()
    (run_id,) = browser.insist(filled, begun, "a run begins")
    with asking(finished.env) as session:
        api = finished.env["PREFECT_API_URL"]
        run = session.get(f"{api}/flow_runs/{run_id}", timeout=120).json()
    given = run["parameters"]
    assert given["mode"] in modes
    assert given["dry_run"] is True
    told = {key: value for key, value in given["datasets"][0].items() if value is not None}
    assert told == {"address": "idr:9846137", "box": "z=0:4", "group": "cells"}
    assert ended(finished, run["id"], "COMPLETED")["message"].startswith("1 of 1 sources")
    (child,) = children(finished, run["id"])
    assert child["name"] == "idr idr:9846137" and "group:cells" in child["tags"]
    assert _runs_of(finished, deployment) == before | {run_id}


@needs_browser
def test_a_schedule_is_made_in_the_page_of_the_deployment(
    finished: FinishedRun, browser: Browser
) -> None:
    deployment = finished.run["deployment_id"]
    url = f"{finished.env['PREFECT_API_URL']}/deployments/{deployment}"

    def act() -> None:
        browser.open(f"{finished.ui}/deployments/deployment/{deployment}")
        shown(browser, "Schedules", "Concurrency Limit\n1")
        push(browser, "Schedule", "Cron")
        push(browser, "Cron", "Every minute")
        browser.insist(write, lambda: _has(browser, "At 03:00"), "the time is taken")
        browser.rest()
        browser.evaluate(f"{buttons('Save')}.pop().click()")

    def write() -> None:
        browser.until(
            "(field => field && (field.focus(), field.select(), true))"
            "([...document.querySelectorAll('input')].find(e => e.value.endsWith(' * * *')))"
        )
        browser.write("0 3 * * *")

    with asking(finished.env) as session:
        schedules = browser.insist(
            act, lambda: session.get(url, timeout=120).json()["schedules"], "there is a schedule"
        )
        for made in schedules:
            session.delete(f"{url}/schedules/{made['id']}", timeout=120).raise_for_status()
    (made,) = schedules
    assert made["schedule"]["cron"] == "0 3 * * *" and made["active"]


def test_each_dataset_is_a_run_of_its_own_and_a_retry_does_what_failed(
    finished: FinishedRun, request: pytest.FixtureRequest
) -> None:
    """By the worker, each dataset in a process of its own, as on Kubernetes in a pod."""
    rows = np.random.default_rng(7).integers(1, 200, (6, 24, 24)).astype(np.uint8)
    tifffile.imwrite(finished.folder / "stack.tif", rows, photometric="minisblack")
    gone = finished.folder / "gone.tif"
    listed = [
        {"address": "idr:9846137", "group": "cells"},
        {"address": str(finished.folder / "stack.tif"), "name": "mine"},
        {"address": str(gone), "name": "gone"},
    ]
    run = begin(finished, {"datasets": listed}, EM_SUBFLOWS="deployments")
    assert ended(finished, run, "FAILED")["message"].startswith(
        "gone: there is no such file or folder"
    )
    first = {one["name"]: one for one in children(finished, run)}
    assert {name: one["state"]["type"] for name, one in first.items()} == {
        "idr idr:9846137": "COMPLETED",
        "address mine": "COMPLETED",
        "address gone": "FAILED",
        "consolidate": "COMPLETED",
    }
    assert {"idr", "group:cells", "dataset:idr:9846137"} <= {*first["idr idr:9846137"]["tags"]}
    assert all(one["deployment_id"] for name, one in first.items() if name != "consolidate")
    groups = json.loads((finished.folder / "metadata" / "groups.json").read_text())["groups"]
    assert [*groups.values()] == ["cells"]

    tifffile.imwrite(gone, rows, photometric="minisblack")
    if find_chromium() is None:
        run = begin(finished, {"datasets": listed}, EM_SUBFLOWS="deployments")
    else:
        browser: Browser = request.getfixturevalue("browser")
        browser.open(f"{finished.ui}/runs/flow-run/{run}")
        shown(browser, "Failed", "Retry")
        confirm(
            browser,
            "Retry",
            "This will retry flow run",
            "Retry",
            lambda: state_of(finished, run)["type"] != "FAILED",
        )
    assert ended(finished, run, "COMPLETED")["message"].startswith("3 of 3 sources")
    again = [one for one in children(finished, run) if one["id"] not in {*_ids(first.values())}]
    made = {one["name"]: made_by(finished, one) for one in again if one["name"] != "consolidate"}
    assert made == {"idr idr:9846137": [False], "address mine": [False], "address gone": [True]}


def _ids(runs: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield from (str(one["id"]) for one in runs)


def made_by(finished: FinishedRun, run: dict[str, Any]) -> list[bool]:
    """Of each volume of a source's run whether it was made; the others were up to date."""
    asked = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    found = post(finished.env, "artifacts/filter", asked)
    (told,) = [one["data"] for one in found if one["key"].startswith("result-")]
    return [row["made"] for row in json.loads(told)]


@pytest.mark.slow  # test_schedules_fire.py lets the locked server begin a run by itself in CI
@pytest.mark.timeout(1500)
def test_a_list_on_a_schedule_is_a_mirror(finished: FinishedRun) -> None:
    """What fires by itself makes nothing again that is the same, and anew what has changed."""
    paths = {name: finished.folder / f"mirrored_{name}.tif" for name in ("same", "other")}
    rows = np.random.default_rng(8).integers(1, 200, (4, 20, 30)).astype(np.uint8)
    for path in paths.values():
        tifffile.imwrite(path, rows, photometric="minisblack")
    listed = [{"address": str(path), "name": name} for name, path in paths.items()]
    schedule = {"interval": 45, "anchor_date": "2026-01-01T00:00:00Z"}
    asked = [{"schedule": schedule, "active": True, "parameters": {"datasets": listed}}]
    deployment = finished.run["deployment_id"]
    url = f"{finished.env['PREFECT_API_URL']}/deployments/{deployment}/schedules"
    unfinished = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"not_any_": ["COMPLETED", "FAILED", "CANCELLED"]}}},
    }

    def fired() -> list[dict[str, list[bool]]]:
        """What each ended run of the schedule made, oldest first."""
        time.sleep(2)  # a server that is asked without a pause has no time for its runs
        asked = {
            "deployments": {"id": {"any_": [deployment]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED"]}}},
            "sort": "START_TIME_ASC",
        }
        runs = [
            one for one in post(finished.env, "flow_runs/filter", asked) if one["auto_scheduled"]
        ]
        assert [one["state"]["message"] for one in runs if one["state"]["type"] == "FAILED"] == []
        return [
            {
                one["name"].removeprefix("address "): made_by(finished, one)
                for one in children(finished, run["id"])
                if one["name"] != "consolidate"
            }
            for run in runs
        ]

    def at_rest() -> bool:
        time.sleep(2)
        return bool(post(finished.env, "flow_runs/filter", unfinished) == [])

    with asking(finished.env) as session:

        def switch_on() -> None:
            session.post(url, json=asked, timeout=120).raise_for_status()

        def switch_off() -> None:
            for one in session.get(url, timeout=120).json():
                session.delete(f"{url}/{one['id']}", timeout=120).raise_for_status()

        switch_on()
        try:
            wait_until(lambda: len(fired()) >= 2, "the schedule did not fire twice", 700)
            first, second = fired()[:2]
            assert first == {"same": [True], "other": [True]}
            assert second == {"same": [False], "other": [False]}
            switch_off()
            wait_until(at_rest, "runs are left", 700)  # one that reads it would fail
            tifffile.imwrite(paths["other"], rows[::-1], photometric="minisblack")
            switch_on()
            anew = {"same": [False], "other": [True]}
            wait_until(lambda: anew in fired(), "what changed was not made anew", 700)
        finally:
            switch_off()
    wait_until(at_rest, "runs are left", 700)
    assert fired().count(anew) == 1
    record = json.loads((finished.folder / "data/address/metadata_other.json").read_text())
    volume = zarr.open_group(finished.folder / "data" / record["files"]["volume"], mode="r")
    np.testing.assert_array_equal(volume["0"][:], rows[::-1])


SLOW = {
    "latency": {
        service: {"first_byte_s": 0.5, "bytes_per_second": 800} for service in ("s3", "dvid")
    }
}
"""Ten minutes for each of two sources, of which bytes are told after one: time to look around."""


@dataclass(frozen=True)
class SlowRun:
    """A run at work, for as long as the tests look at it."""

    id: str
    folder: Path

    def statuses(self) -> dict[str, str]:
        """Source -> status of its record, as far as there is one."""
        records = (self.folder / "data").glob("*/metadata_*.json")
        return {path.parent.name: json.loads(path.read_text())["status"] for path in records}


@pytest.fixture(scope="module")
def slow(finished: FinishedRun) -> SlowRun:
    """The last on the desk: it begins from nothing."""
    folder = finished.folder
    shutil.rmtree(folder / "data")
    control = json.loads((folder / ".macroscope" / "samples.out").read_text())["control_url"]
    requests.post(f"{control}/_control/settings", json=SLOW, timeout=120).raise_for_status()
    asked = {
        "sources": ["flyem", "openorganelle"],
        "mode": "parallel",
        "parameters": {"openorganelle": {"scale_level": "s0"}},
    }
    run = begin(finished, asked)
    begun = SlowRun(run, folder)
    wait_until(lambda: [*begun.statuses().values()] == ["processing"] * 2, "the run did not begin")
    return begun


@needs_browser
def test_the_page_of_a_run_tells_bytes_shards_and_time_left(
    finished: FinishedRun, slow: SlowRun, browser: Browser
) -> None:
    (child,) = [one for one in children(finished, slow.id) if one["name"].startswith("openorg")]
    browser.open(f"{finished.ui}/runs/flow-run/{child['id']}")
    line = r"openorganelle/\S+: \d+ of \d+ shards, [\d.]+ \wB of [\d.]+ \wB, [^,]+, .* left"
    told = f"new RegExp({json.dumps(line)}).test(document.body.innerText)"
    browser.until(told, seconds=400)
    click(browser, "Artifacts", "progress-openorganelle-", "how much of level 0 is made")


@pytest.fixture(scope="module")
def waiting(finished: FinishedRun, slow: SlowRun) -> str:
    """Another run of the same deployment, asked for while the first is at work."""
    return begin(finished, {"sources": ["idr"], "dry_run": True})


@needs_browser
def test_the_page_of_a_second_run_says_that_it_waits_for_the_first(
    finished: FinishedRun, slow: SlowRun, waiting: str, browser: Browser
) -> None:
    browser.open(f"{finished.ui}/deployments/deployment/{finished.run['deployment_id']}")
    shown(browser, "Concurrency Limit\n1")
    browser.open(f"{finished.ui}/runs/flow-run/{waiting}")
    shown(browser, "AwaitingConcurrencySlot", "Scheduled for")
    assert state_of(finished, slow.id)["type"] == "RUNNING"
    assert children(finished, waiting) == []


def test_a_cancel_in_prefect_ends_the_run_and_its_children_and_leaves_nothing(
    finished: FinishedRun, slow: SlowRun, waiting: str, request: pytest.FixtureRequest
) -> None:
    """By the button of the run's page where there is a browser; then what waited has its turn."""
    assert state_of(finished, waiting)["type"] == "SCHEDULED"
    if find_chromium() is None:
        prefect(finished.folder, finished.env, "flow-run", "cancel", slow.id)
    else:
        browser: Browser = request.getfixturevalue("browser")
        browser.open(f"{finished.ui}/runs/flow-run/{slow.id}")
        shown(browser, "Running", "Cancel")
        confirm(
            browser,
            "Cancel",
            "Confirm",
            "Confirm",
            lambda: state_of(finished, slow.id)["type"] != "RUNNING",
        )
    ended(finished, slow.id, "CANCELLED")
    assert [*slow.statuses().values()] == ["cancelled"] * 2
    states = [child["state"]["type"] for child in children(finished, slow.id)]
    assert states == ["CANCELLED"] * 2
    left = [p for p in (slow.folder / "data").rglob("*") if p.parent.name == ".locks"]
    assert left == []
    ended(finished, waiting, "COMPLETED")
    temporary = Path(finished.env["TMPDIR"])
    wait_until(lambda: [*temporary.glob("macroscope-*")] == [], "temporary folders are left")
