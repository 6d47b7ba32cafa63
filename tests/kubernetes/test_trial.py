"""``helm test`` and the registration before it, against a real Prefect server and worker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.commands.server import comes_true
from flows.register import ensure_pool, job_template
from tests.kit.prefect_server import ask, patient, prefect_server

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long
WAIT_S = 300
FLOW = """
from prefect import flow

@flow
def tried(wanted: bool = True) -> None:
    assert wanted
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of the clients of a server that knows one deployment, in a pool that no worker polls yet."""
    folder = tmp_path_factory.mktemp("trial")
    (folder / "tried.py").write_text(FLOW)
    with prefect_server(folder) as found:
        url = found["PREFECT_API_URL"]
        ask(url, "work_pools/", {"name": "desk", "type": "process"})
        flow = ask(url, "flows/", {"name": "tried"})["id"]
        step = "prefect.deployments.steps.set_working_directory"
        deployment = {
            "name": "full",
            "flow_id": flow,
            "work_pool_name": "desk",
            "entrypoint": "tried.py:tried",
            "pull_steps": [{step: {"directory": str(folder)}}],
            "parameter_openapi_schema": {},
        }
        ask(url, "deployments/", deployment)
        yield found | {"PYTHONPATH": str(ROOT)}


@contextmanager
def worker(environ: dict[str, str], folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "desk"]
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(WAIT_S)


def trial(environ: dict[str, str], *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "flows.trial", "tried/full", *words]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def pool(environ: dict[str, str], **change: Any) -> dict[str, Any]:
    url = f"{environ['PREFECT_API_URL']}/work_pools/desk"
    with patient() as session:
        if change:
            session.patch(url, json=change, timeout=120).raise_for_status()
        found: dict[str, Any] = session.get(url, timeout=120).json()
    return found


def test_a_trial_fails_by_name_where_no_run_can_start(environ: dict[str, str]) -> None:
    code, said = trial(environ, "--worker-seconds", "1")
    assert (code, "no worker polls work pool 'desk'" in said) == (1, True), said
    pool(environ, is_paused=True)
    code, said = trial(environ, "--worker-seconds", "1000")
    assert (code, "prefect work-pool resume desk" in said) == (1, True), said
    pool(environ, is_paused=False)
    done = [sys.executable, "-m", "flows.trial", "no/such"]
    missing = subprocess.run(done, env=environ, capture_output=True, text=True)
    assert (missing.returncode, "no deployment 'no/such'" in missing.stderr) == (1, True)


def test_an_install_resumes_the_pool_that_an_uninstall_paused_and_an_upgrade_does_not(
    environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    pool(environ, is_paused=True)
    with SyncPrefectClient(environ["PREFECT_API_URL"]) as client:
        ensure_pool(client, "desk", "process", job_template("process", None))
        assert pool(environ)["is_paused"]
        assert "prefect work-pool resume desk" in caplog.text
        ensure_pool(client, "desk", "process", job_template("process", None), resume=True)
    assert not pool(environ)["is_paused"]


def test_a_trial_ends_as_its_run_does(environ: dict[str, str], tmp_path: Path) -> None:
    with worker(environ, tmp_path):
        patient = ("--worker-seconds", str(WAIT_S))  # a worker takes its time to report in
        code, said = trial(environ, *patient)
        assert code == 0, said
        assert "Completed" in said
        code, said = trial(environ, *patient, "--parameters", '{"wanted": false}')
        assert code == 1, said
        assert "AssertionError" in said


def test_a_run_that_no_pod_takes_is_given_up_and_cancelled(environ: dict[str, str]) -> None:
    """A worker that reported in lately, and is gone."""
    url = environ["PREFECT_API_URL"]
    lately = {"name": "gone", "heartbeat_interval_seconds": 1000}  # however slow the machine
    with patient() as session:
        answer = session.post(f"{url}/work_pools/desk/workers/heartbeat", json=lately, timeout=120)
        answer.raise_for_status()
    code, said = trial(environ, "--start-seconds", "2")
    assert code == 1, said
    assert "after 2 s" in said

    def cancelled() -> bool:
        states = ask(url, "flow_runs/filter", {})
        return {run["state"]["type"] for run in states} <= {"COMPLETED", "FAILED", "CANCELLED"}

    assert comes_true(cancelled, WAIT_S)


def test_the_registration_of_an_install_resumes_and_that_of_an_upgrade_does_not(
    helm: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    chart = str(ROOT / "helm" / "macroscope")
    install = helm("template", "m", chart, "--show-only", "templates/register.yaml")
    upgrade = helm("template", "m", chart, "--show-only", "templates/register.yaml", "--is-upgrade")
    assert "--resume" in install.stdout
    assert "flows.register" in upgrade.stdout
    assert "--resume" not in upgrade.stdout
