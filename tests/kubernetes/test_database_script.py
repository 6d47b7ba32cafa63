"""k8s/database.sh against a real Prefect server on SQLite; a stand-in for kubectl runs it here."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lib.kubernetes.dask_cluster import restricted_pod
from tests.kit.prefect_server import alone_in, ask, prefect_server
from tests.kubernetes.kube_checks import pod_specs, restricted_violations, validate

SCRIPT = Path(__file__).parents[2] / "k8s" / "database.sh"
PLACE = "/var/lib/prefect"  # of the claim, in the pod


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """With a kubectl that answers, and that runs in ``claim`` what it shall run in a pod."""
    answers = {
        "securityContext": json.dumps(restricted_pod()),
        "-o name": "deployment.apps/macroscope-server",
        "persistentvolumeclaim": "macroscope-server",
        "": "macroscope:0.1.0",
    }
    fake = f"""#!{sys.executable}
import subprocess, sys
words = sys.argv[5:]  # without --context, --namespace
text = " ".join(words)
with open("{tmp_path}/calls", "a") as calls:
    calls.write(text.partition(chr(10))[0] + chr(10))
if words[0] == "get":
    print(next(answer for part, answer in {answers!r}.items() if part in text), end="")
elif words[0] == "create":
    open("{tmp_path}/pod.yaml", "w").write(sys.stdin.read())
elif words[0] == "exec":
    command = words[words.index("--") + 1:]
    here = [word.replace("{PLACE}", "{tmp_path}/claim") for word in command]
    sys.exit(subprocess.call(here))
"""
    (tmp_path / "kubectl").write_text(fake)
    (tmp_path / "kubectl").chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path}


def script(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(SCRIPT), *words], env=environ, capture_output=True, text=True)


@pytest.mark.long
def test_runs_of_a_copy_taken_at_work_are_there_after_it_was_put_back(
    environ: dict[str, str], tmp_path: Path
) -> None:
    claim, copy = tmp_path / "claim", str(tmp_path / "copy.db")
    for folder in (claim, tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
    # opened as the chart opens it
    database = f"sqlite+aiosqlite:///file:{claim}/prefect.db?once=:memory:&uri=true"
    with prefect_server(tmp_path / "first", database) as client:
        url = client["PREFECT_API_URL"]
        flow = ask(url, "flows/", {"name": "kept"})["id"]
        done = script(environ, "save", copy)
        assert done.returncode == 0, done.stderr
        ask(url, "flows/", {"name": "later"})
    done = script(environ, "restore", copy)
    assert done.returncode == 0, done.stderr
    with prefect_server(tmp_path / "second", database) as client:
        url = client["PREFECT_API_URL"]
        assert ask(url, "flows/name/kept")["id"] == flow
        assert [one["name"] for one in ask(url, "flows/filter", {})] == ["kept"]
        assert ask(url, "flow_runs/", {"flow_id": flow, "state": {"type": "PENDING"}})["id"]


def test_a_restore_stops_the_server_first_and_starts_it_last_from_a_restricted_pod(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "claim").mkdir()
    (tmp_path / "copy.db").write_bytes(b"SQLite format 3\0")
    (tmp_path / "claim" / "prefect.db-wal").write_text("of the one before")
    done = script(environ, "restore", str(tmp_path / "copy.db"))
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    said = ["scale", "wait --for=delete", "create", "wait --for=condition", "exec", "delete pod"]
    places = [next(i for i, call in enumerate(calls) if call.startswith(word)) for word in said]
    assert places == sorted(places)
    assert calls[places[0]].endswith("--replicas=0")
    assert calls[-1].endswith("--replicas=1")
    assert [path.name for path in (tmp_path / "claim").iterdir()] == ["prefect.db"]
    pod = yaml.safe_load((tmp_path / "pod.yaml").read_text())
    validate(pod)
    assert [bad for _, spec in pod_specs(pod) for bad in restricted_violations(spec)] == []


def test_what_is_no_database_is_refused_before_the_server_is_stopped(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "copy.db").write_text("error: pod not found")
    done = script(environ, "restore", str(tmp_path / "copy.db"))
    assert (done.returncode, "is no SQLite database" in done.stderr) == (2, True)
    assert "scale" not in (tmp_path / "calls").read_text()


@pytest.mark.long
def test_the_migration_makes_the_tables_and_registers_the_types_of_blocks(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    environ = {
        **os.environ,
        **alone_in(tmp_path),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{path}",
        "PYTHONPATH": str(SCRIPT.parents[1]),
    }
    command = [sys.executable, "-m", "flows.database"]
    for _ in range(2):  # the second finds it up to date
        done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "the database is up to date\n"), done.stderr
        assert "Traceback" not in done.stderr
    with sqlite3.connect(path) as database:
        names = {slug for (slug,) in database.execute("SELECT slug FROM block_type")}
        [runs] = database.execute("SELECT count(*) FROM flow_run").fetchone()
    assert {"secret", "aws-credentials"} <= names
    assert runs == 0
