"""Server, work pool, worker, deployments: the chain of `make up`, `make deploy` and the UI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.samples.sockets import free_ports

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder with a running server, worker and stand-ins; all gone afterwards."""
    for name in ("prefect.yaml", "prefect.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    port = free_ports("127.0.0.1", 1)[0]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EM_", "PREFECT_"))}
    env = {**kept, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "NO_COLOR": "1"}
    up = [str(BIN / "macroscope"), "up", "--port", str(port)]
    try:
        subprocess.run(up, cwd=tmp_path, env=env, check=True, timeout=200)
        yield tmp_path, env
    finally:
        subprocess.run([str(BIN / "macroscope"), "down"], cwd=tmp_path, env=env, check=True)


def test_a_deployed_run_does_the_same_job_with_its_runs_and_artifacts_on_the_server(
    desk: tuple[Path, dict[str, str]],
) -> None:
    folder, env = desk
    prefect = str(BIN / "prefect")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [prefect, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("--no-prompt", "deploy", "--all")
    listed = run("deployment", "ls")
    for source in ("ebi", "epfl", "flyem", "idr", "openorganelle"):
        assert f"{source}/ingest" in listed
    assert "consolidate/catalog" in listed
    run("deployment", "run", "macroscope/full", "--watch")

    records = [json.loads(p.read_text()) for p in (folder / "data").glob("*/metadata_*.json")]
    assert len(records) == 5
    assert {record["status"] for record in records} == {"complete"}
    artifacts = run("artifact", "ls", "--limit", "100")
    for key in ("plan-ebi", "result-epfl", "run", "catalogue"):
        assert key in artifacts
