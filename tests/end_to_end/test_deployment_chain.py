"""Server, work pool, worker, deployments: the chain of `make up`, `make deploy` and the UI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent


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
