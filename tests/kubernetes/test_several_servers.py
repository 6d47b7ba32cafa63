"""Two API servers, services apart, PostgreSQL and Redis, all real; a database lost and restored.

helm installs the chart into the stand-in cluster, whose pods are processes of this machine.
"""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from emulators.control import Control
from emulators.serving import Samples
from tests.kit.databases import PostgreSQL, postgresql, redis, why_not
from tests.kit.prefect_server import ask
from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.apiserver.kinds import DEPLOYMENT, POD
from tests.kubernetes.installation import HEAVY, RUN_S, refused, withhold_chunks
from tests.kubernetes.releases import Released, beside

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]
AVAILABLE = (
    'server={"replicas":2,"database":{"existingSecret":"pg"},"redis":{"existingSecret":"redis"}}',
    "worker.replicas=2",
    'dask={"mode":"off"}',
    'flow={"executionMode":"sequential"}',
)
SOURCE = HEAVY
KNOWN = "SELECT count(*) FROM artifact WHERE type = 'progress' AND flow_run_id = '{}'"


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    with postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def installed(
    samples: Samples, database: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Released]:
    with (
        redis(tmp_path_factory.mktemp("redis") / "redis", "secret") as messages,
        Cluster(tmp_path_factory.mktemp("several"), refused) as cluster,
    ):
        for name, url in (("pg", database.url), ("redis", messages)):
            data = {"connection-url": base64.b64encode(url.encode()).decode()}
            cluster.apply(
                {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
            )
        released = Released(cluster, *AVAILABLE, beside(samples.endpoints))
        released.wait_until_ready()
        yield released


def servers(installed: Released) -> list[dict[str, Any]]:
    return [
        pod
        for pod in installed.components("server")
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]


def logs(installed: Released) -> dict[str, str]:
    """What servers and services have printed, by pod."""
    pods = [*installed.components("server"), *installed.components("services")]
    return {pod["metadata"]["name"]: installed.cluster.log(pod) for pod in pods}


def test_a_run_is_started_at_one_server_seen_at_the_other_and_scheduled_by_the_services(
    installed: Released,
) -> None:
    assert len(servers(installed)) == 2
    urls = [f"http://{installed.cluster.address(pod)}:4200/api" for pod in servers(installed)]
    found = ask(urls[0], f"deployments/name/{SOURCE}/ingest", None, installed.auth)["id"]
    run = ask(urls[0], f"deployments/{found}/create_flow_run", {}, installed.auth)["id"]
    assert ask(urls[1], f"flow_runs/{run}", None, installed.auth)["deployment_id"] == found
    state = installed.final_state(run, RUN_S)
    assert state["type"] == "COMPLETED", state
    installed.assert_exact(SOURCE)
    schedule = {"schedule": {"cron": "* * * * *", "timezone": "UTC"}, "active": True}
    ask(urls[1], f"deployments/{found}/schedules", [schedule], installed.auth)

    def completed() -> bool:
        asked = {"flow_runs": {"deployment_id": {"any_": [found]}}}
        runs = ask(urls[0], "flow_runs/filter", asked, installed.auth)
        return any(r["auto_scheduled"] and r["state"]["type"] == "COMPLETED" for r in runs)

    installed.cluster.wait(completed, RUN_S, "a scheduled run completed")
    ask(urls[1], f"deployments/{found}/pause_deployment", {}, installed.auth)
    events = ask(urls[0], "events/filter", {"limit": 50}, installed.auth)["events"]
    assert any(event["event"].startswith("prefect.flow-run.") for event in events)
    troubled = [text for text in logs(installed).values() if "Traceback" in text]
    assert not troubled, "\n".join(troubled)


def test_a_run_outlives_the_server_that_it_talks_to(installed: Released, faults: Control) -> None:
    run = at_work(installed, faults)
    gone = servers(installed)[0]  # the one that the Service leads to
    installed.cluster.delete(POD, gone["metadata"]["name"], grace_seconds=0)
    faults.clear()
    state = installed.final_state(run, RUN_S)
    assert state["type"] == "COMPLETED", state
    installed.assert_exact(SOURCE)


def test_runs_go_on_after_a_database_is_lost_and_restored_from_a_dump(
    installed: Released, database: PostgreSQL, faults: Control
) -> None:
    empty_store(installed)
    faults.add("stall", "s3", before=True, seconds=3600)  # no answer: no volume, no progress
    run = installed.start(f"{SOURCE}/ingest")
    installed.cluster.wait(
        lambda: installed.state(run)["type"] == "RUNNING", RUN_S, "the run at work"
    )
    before = installed.api("flow_runs/count", {})
    dump = str(installed.cluster.folder / "prefect.dump")
    database.run("pg_dump", "--format=custom", f"--file={dump}", "prefect")
    faults.clear()
    withhold_chunks(faults)
    # what the dump does not know, and the run changes when the database is there again
    installed.cluster.wait(lambda: progress(installed, run), RUN_S, "progress shown")
    scale(installed, 0)
    database.run("dropdb", "--force", "prefect")
    database.run("createdb", "prefect")
    database.run("pg_restore", "--no-owner", "--exit-on-error", "--dbname=prefect", dump)
    # asked before a server is there: the run tells the first one again how far it is
    asked = f"--command={KNOWN.format(run)}"
    assert database.run("psql", "--dbname=prefect", "--tuples-only", "--no-align", asked) == "0\n"
    scale(installed, 1)
    faults.clear()
    state = installed.final_state(run, RUN_S)
    assert installed.api("flow_runs/count", {}) == before
    assert state["type"] == "COMPLETED", [state, *said(installed, run)]
    again = installed.start(f"{SOURCE}/ingest")
    assert installed.final_state(again, RUN_S)["type"] == "COMPLETED"
    installed.assert_exact(SOURCE)


def progress(installed: Released, run: str) -> bool:
    """Whether the server knows how far a run's volume is."""
    asked = {"flow_runs": {"id": {"any_": [run]}}}
    found = installed.api("artifacts/filter", asked)
    return any(artifact["type"] == "progress" for artifact in found)


def said(installed: Released, run: str) -> list[str]:
    """The log of a run."""
    found = installed.api("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
    return [line["message"] for line in found]


def empty_store(installed: Released) -> None:
    """Take away what earlier runs brought."""
    claim = installed.cluster.folder / "claims" / "macroscope-data"
    shutil.rmtree(claim / "data", ignore_errors=True)


def at_work(installed: Released, faults: Control) -> str:
    """A run into an empty store whose volume is begun, and whose chunks the archive withholds."""
    empty_store(installed)
    withhold_chunks(faults)
    run = installed.start(f"{SOURCE}/ingest")

    def begun() -> bool:
        return [record["status"] for record in installed.records().values()] == ["processing"]

    installed.cluster.wait(begun, RUN_S, "a volume begun")
    return run


def scale(installed: Released, replicas: int) -> None:
    """``kubectl scale`` of what uses the database; returns when it is done."""
    cluster = installed.cluster
    for name in ("server", "services"):
        cluster.store.change(
            DEPLOYMENT,
            "em",
            f"macroscope-{name}",
            lambda found: found["spec"].update(replicas=replicas),
        )
    parts = ("server", "services")
    if replicas:
        cluster.wait(lambda: servers(installed), RUN_S, "a server")
        time.sleep(1)
        installed.wait_until_ready()
    else:
        cluster.wait(
            lambda: not any(installed.components(part) for part in parts), RUN_S, "no server"
        )
