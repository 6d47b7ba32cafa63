"""Registration against a real Prefect server, for both kinds of work pool."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lib.archives.registry import REGISTRY
from tests.kit.prefect_server import ask, prefect_server

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
FLOWS = ("macroscope", "consolidate", *REGISTRY)
A_FLOW = "from prefect import flow\n\n\n@flow\ndef {}() -> None:\n    ...\n\n\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what deploying reads, with flows that do nothing."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("prefect.yaml", "prefect.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "k8s", folder / "k8s")
    shutil.copytree(ROOT / "lib", folder / "lib")
    (folder / "flows").mkdir()
    for name in ("__init__.py", "register.py"):
        shutil.copy(ROOT / "flows" / name, folder / "flows")
    (folder / "flows" / "sources.py").write_text("".join(map(A_FLOW.format, REGISTRY)))
    for name in FLOWS:
        (folder / "flows" / f"{name}.py").write_text(A_FLOW.format(name))
    return folder


@pytest.fixture(scope="module")
def environ(project: Path) -> Iterator[dict[str, str]]:
    """The environment of a client of a server of our own."""
    with prefect_server(project) as found:
        yield found | {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}


def register(project: Path, environ: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "flows.register", *arguments]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def code(project: Path) -> set[Path]:
    parts = ("flows", "k8s", "lib")
    return {*project.iterdir(), *(path for part in parts for path in (project / part).rglob("*"))}


def deployments(environ: dict[str, str]) -> dict[str, dict[str, object]]:
    url = environ["PREFECT_API_URL"]
    flows = {f["id"]: f["name"] for f in ask(url, "flows/filter", {})}
    found = ask(url, "deployments/filter", {})
    return {f"{flows[item['flow_id']]}/{item['name']}": item for item in found}


def test_registration_can_run_again_for_either_kind_of_pool(
    project: Path, environ: dict[str, str]
) -> None:
    everything = {"macroscope/full", "consolidate/catalog", *(f"{n}/ingest" for n in REGISTRY)}
    before = code(project)
    register(project, environ, "--limit", "downloads=4")
    assert code(project) == before, "in a pod the project's folder is read-only"
    found = deployments(environ)
    assert set(found) == everything
    assert {item["work_pool_name"] for item in found.values()} == {"macroscope"}

    plain = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    subprocess.run(plain, cwd=project, env=environ, check=True, capture_output=True)
    assert set(deployments(environ)) == everything

    overrides = project / "overrides.yaml"
    overrides.write_text(yaml.safe_dump({"ebi/ingest": {"job_variables": {"memory_limit": "5Gi"}}}))
    kubernetes = ("--type", "kubernetes", "--pool", "cluster", "--overrides", str(overrides))
    register(project, environ, *kubernetes)
    register(project, environ, *kubernetes)
    found = deployments(environ)
    assert {item["work_pool_name"] for item in found.values()} == {"cluster"}
    assert found["ebi/ingest"]["job_variables"] == {
        "cpu_request": "1",
        "cpu_limit": "2",
        "memory_request": "2Gi",
        "memory_limit": "5Gi",
    }
    url = environ["PREFECT_API_URL"]
    pool = ask(url, "work_pools/cluster")
    assert (
        pool["base_job_template"]["variables"]["properties"]["finished_job_ttl"]["default"] == 600
    )
    limit = ask(url, "v2/concurrency_limits/downloads")
    assert limit["limit"] == 4


def test_pool_of_another_type_is_refused_by_name(project: Path, environ: dict[str, str]) -> None:
    register(project, environ, "--pool", "desk")
    command = [sys.executable, "-m", "flows.register", "--pool", "desk", "--type", "kubernetes"]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
    assert done.returncode != 0
    assert "work pool 'desk' is of type 'process', not 'kubernetes'" in done.stderr


def test_a_schedule_or_parameter_that_the_values_no_longer_have_is_gone_from_the_server(
    project: Path, environ: dict[str, str]
) -> None:
    """``prefect deploy`` by itself leaves schedules, and deployments that are left out."""
    schedules = [{"cron": "0 3 * * *", "timezone": "Europe/Berlin"}]
    mirror = {"datasets": [{"address": "empiar:10310"}]}
    asked = {
        "macroscope/full": {"schedules": schedules, "parameters": mirror},
        "ebi/ingest": {"schedules": schedules},
        "idr/ingest": {"schedules": schedules},
    }
    overrides = project / "schedules.yaml"

    def scheduled() -> dict[str, list[object]]:
        overrides.write_text(yaml.safe_dump(asked))
        register(project, environ, "--overrides", str(overrides))
        found = deployments(environ)
        assert found["macroscope/full"]["parameters"] == asked["macroscope/full"].get(
            "parameters", {}
        )
        return {
            name: [(s["slug"], s["schedule"]["cron"], s["schedule"]["timezone"]) for s in all_of]
            for name, one in found.items()
            if (all_of := one["schedules"])
        }

    made = [("registered-1", "0 3 * * *", "Europe/Berlin")]
    assert scheduled() == {"macroscope/full": made, "ebi/ingest": made, "idr/ingest": made}
    added = {"schedule": {"cron": "0 9 * * 1"}, "active": True}  # by a person, in the UI
    url = environ["PREFECT_API_URL"]
    idr = deployments(environ)["idr/ingest"]["id"]
    ask(url, f"deployments/{idr}/schedules", [added])
    asked = {"macroscope/full": {}, "ebi/ingest": {"enabled": False}, "idr/ingest": {}}
    assert scheduled() == {"idr/ingest": [(None, "0 9 * * 1", None)]}
