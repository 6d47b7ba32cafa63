"""Server, worker, deployments: the chain of `make up` and `make deploy`, and what its UI shows.

All tests look at one finished run; the last one begins another on the same desk, and cancels it.
Those that need no browser run where there is none.
"""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tasks.artifacts import volume_artifact_key
from tests.end_to_end.finished_run import (
    FinishedRun,
    click,
    finished_run,
    log_in,
    post,
    prefect,
    shown,
)
from tests.end_to_end.test_stop import SLOW_ARCHIVES, wait_until
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


pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


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
        answer = requests.post(url, json.dumps(body), headers=theirs, timeout=30)
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
    click(browser, "Subflow Runs")
    assert set(shown(browser, *RUN_NAMES).splitlines()) >= SOURCES
    click(browser, "Details")
    shown(browser, "5 of 5 sources without an error")
    click(browser, "Artifacts")
    shown(browser, "run", "volumes", "mode staged")
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


def test_a_cancel_in_prefect_ends_the_run_and_its_children_and_leaves_nothing(
    finished: FinishedRun,
) -> None:
    """The last test on the desk: it begins from nothing, with archives that take minutes."""
    folder, env = finished.folder, finished.env
    shutil.rmtree(folder / "data")
    control = json.loads((folder / ".macroscope" / "samples.out").read_text())["control_url"]
    slow = {"latency": SLOW_ARCHIVES}
    requests.post(f"{control}/_control/settings", json=slow, timeout=30).raise_for_status()

    def state_of(one: str) -> str:
        with asking(env) as session:
            found = session.get(f"{env['PREFECT_API_URL']}/flow_runs/{one}", timeout=30).json()
        return str(found["state"]["type"])

    def statuses() -> dict[str, str]:
        records = (folder / "data").glob("*/metadata_*.json")
        return {path.parent.name: json.loads(path.read_text())["status"] for path in records}

    deployment = finished.run["deployment_id"]
    wanted = {"sources": ["ebi", "openorganelle"], "mode": "parallel"}
    asked = {"parameters": wanted, "state": {"type": "SCHEDULED"}}
    parent = post(env, f"deployments/{deployment}/create_flow_run", asked)["id"]
    wait_until(lambda: "processing" in statuses().values(), "the run did not begin")

    prefect(folder, env, "flow-run", "cancel", parent)
    wait_until(lambda: state_of(parent) == "CANCELLED", "the run was not cancelled", 60.0)
    assert set(statuses().values()) == {"cancelled"}
    family = {"flow_runs": {"parent_flow_run_id": {"any_": [parent]}}}
    children = post(env, "flow_runs/filter", family)
    assert [child["state"]["type"] for child in children] == ["CANCELLED"] * 2
    left = [p for p in (folder / "data").rglob("*") if p.parent.name == ".locks"]
    assert left == []
    assert list(Path(env["TMPDIR"]).glob("macroscope-*")) == []
