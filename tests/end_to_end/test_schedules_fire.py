"""The locked Prefect server does what a schedule asks, and none of its services fails meanwhile."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from flows.commands.server import comes_true
from tests.kit.prefect_server import ask, prefect_server, without_locks

ROOT = Path(__file__).parents[2]
WAIT_S = 240
FLOW = "from prefect import flow\n\n\n@flow\ndef nightly() -> None:\n    print('done')\n"
QUICK = {
    f"PREFECT_SERVER_SERVICES_{name}_SECONDS": "1"
    for name in (
        "SCHEDULER_LOOP",
        "SCHEDULER_RECENT_DEPLOYMENTS_LOOP",
        "CANCELLATION_CLEANUP_LOOP",
        "CLEANUP_RECONCILER_LOOP",
        "DB_VACUUM_LOOP",
        "DB_VACUUM_ORPHAN_CLEANUP_LOOP",
        "FOREMAN_LOOP",
        "LATE_RUNS_LOOP",
        "PAUSE_EXPIRATIONS_LOOP",
        "REPOSSESSOR_LOOP",
        "LATE_RUNS_AFTER",
    )
}
"""Every service of the server once a second, so that a short run sees each of them many times."""
ALL = {"PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs"}
BAD = re.compile(r"Traceback|^\S+ \| ERROR|CRITICAL|Error:", re.M)


class Site:
    """A server with one schedule of every few seconds, and what it logs."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._folder, self._environ = folder, environ
        self.url = environ["PREFECT_API_URL"]
        (folder / "nightly.py").write_text(FLOW)

    @property
    def log(self) -> str:
        return without_locks((self._folder / "server.log").read_text(errors="replace"))

    def pool(self, name: str) -> None:
        ask(self.url, "work_pools/", {"name": name, "type": "process"})

    def worker(self, pool: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
        command += ["--limit", "1"]  # a slow machine must not start more than it ends
        with (self._folder / f"{pool}.log").open("wb") as log:
            return subprocess.Popen(
                command, cwd=self._folder, env=self._environ, stdout=log, stderr=log
            )

    def deploy(self, pool: str, every_s: float) -> None:
        flow = ask(self.url, "flows/", {"name": "nightly"})["id"]
        step = "prefect.deployments.steps.set_working_directory"
        schedule = {"interval": every_s, "anchor_date": "2026-01-01T00:00:00Z"}
        made = {
            "name": pool,
            "flow_id": flow,
            "work_pool_name": pool,
            "entrypoint": "nightly.py:nightly",
            "pull_steps": [{step: {"directory": str(self._folder)}}],
            "schedules": [{"schedule": schedule, "active": True}],
        }
        ask(self.url, "deployments/", made)

    def states(self, pool: str) -> list[str]:
        """Names of the states of the runs that the schedule made."""
        asked = {"deployments": {"name": {"any_": [pool]}}}
        runs = ask(self.url, "flow_runs/filter", asked)
        return [run["state"]["name"] for run in runs if run["auto_scheduled"]]


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    database = chart_database().replace("/var/lib/prefect", str(tmp_path))
    with prefect_server(tmp_path, database, **ALL, **request.param) as environ:
        assert (tmp_path / "prefect.db").exists()
        yield Site(tmp_path, environ)


def chart_database() -> str:
    """The database that the chart gives its server by default."""
    objects = yaml.safe_load_all((ROOT / "k8s" / "base" / "server.yaml").read_text())
    server = next(one for one in objects if one["kind"] == "Deployment")
    [container] = server["spec"]["template"]["spec"]["containers"]
    env = {item["name"]: item.get("value", "") for item in container["env"]}
    return str(env["PREFECT_SERVER_DATABASE_CONNECTION_URL"])


def look(site: Site, seconds: float) -> None:
    """A schedule that a worker serves, one that nobody does; then read what the server said."""
    with ExitStack() as ends:
        for pool in ("served", "alone"):
            site.pool(pool)
        worker = site.worker("served")
        ends.callback(worker.wait)
        ends.callback(worker.kill)
        for pool in ("served", "alone"):
            site.deploy(pool, 10)
        assert comes_true(lambda: "Completed" in site.states("served"), WAIT_S), site.log[-3000:]
        assert comes_true(lambda: "Late" in site.states("alone"), WAIT_S), site.log[-3000:]
        time.sleep(seconds)
        log = site.log  # before the worker is killed
    assert BAD.findall(log) == [], log[-6000:]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("site", [QUICK], indirect=True)
def test_a_schedule_makes_runs_that_start_and_no_service_of_the_server_fails(site: Site) -> None:
    look(site, 10)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("site", [{}], indirect=True)
def test_ten_minutes_of_the_server_as_it_is_installed_hold_no_traceback(site: Site) -> None:
    look(site, 600)
