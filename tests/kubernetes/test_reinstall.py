"""An installation whose ids the platform assigns: a run, a schedule, an uninstall, a reinstall."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from emulators.serving import Samples
from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.apiserver.kinds import POD
from tests.kubernetes.installation import RUN_S, SOURCES, VALUES, Installation, refused

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
ASSIGNED = 1000730000  # as OpenShift gives a namespace
BY_PLATFORM = 'podSecurity={"runAsUser":null,"runAsGroup":null,"fsGroup":null}'


@pytest.fixture(scope="module")
def assigned(
    samples: Samples,
    render: Callable[..., list[dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """The chart where pods must not bring ids of their own."""
    with Cluster(tmp_path_factory.mktemp("assigned"), refused) as cluster:
        cluster.kubelet.assigned_id = ASSIGNED
        manifests = render(*VALUES, BY_PLATFORM)
        installation = Installation(cluster, manifests, samples.endpoints)
        installation.wait_until_ready()
        yield installation
        assert cluster.access.refused == []


def users(installation: Installation) -> set[int]:
    """Whose the processes of all pods are."""
    found = set()
    for pod in installation.cluster.store.list(POD, "em"):
        for pid in installation.cluster.processes(pod):
            try:
                if Path(f"/proc/{pid}/comm").read_text() != "setpriv\n":  # which begins as root
                    found.add(os.stat(f"/proc/{pid}").st_uid)
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def test_a_whole_run_under_ids_that_the_platform_assigns(assigned: Installation) -> None:
    run = assigned.start("macroscope/full")
    seen: set[int] = set()

    def ended() -> bool:
        seen.update(users(assigned))
        return assigned.state(run)["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

    assigned.cluster.wait(ended, RUN_S, "the run ended")
    state = assigned.state(run)
    assert state["type"] == "COMPLETED", state
    assigned.assert_exact(*SOURCES)
    assigned.assert_nothing_left()
    if os.geteuid() == 0:
        assert seen == {ASSIGNED}
        claim = assigned.cluster.folder / "claims" / "macroscope-data"
        assert {path.stat().st_uid for path in (claim / "data").rglob("*")} == {ASSIGNED}


def test_a_schedule_starts_a_job(assigned: Installation) -> None:
    deployment = assigned.api("deployments/name/ebi/ingest")["id"]
    schedule = {"schedule": {"cron": "* * * * *", "timezone": "UTC"}, "active": True}
    assigned.api(f"deployments/{deployment}/schedules", [schedule])

    def completed() -> bool:
        asked = {"flow_runs": {"deployment_id": {"any_": [deployment]}}}
        runs = assigned.api("flow_runs/filter", asked)
        return any(r["auto_scheduled"] and r["state"]["type"] == "COMPLETED" for r in runs)

    assigned.cluster.wait(completed, RUN_S, "a scheduled run completed")
    url = f"http://{assigned.cluster.address(assigned.server())}:4200/api/deployments/{deployment}"
    for one in assigned.api(f"deployments/{deployment}/schedules"):
        auth = ("macroscope", str(assigned.auth).partition(":")[2])
        done = requests.delete(f"{url}/schedules/{one['id']}", timeout=60, auth=auth)
        done.raise_for_status()
    assigned.assert_nothing_left(RUN_S)


def test_a_reinstall_on_what_an_uninstall_left_runs_again(assigned: Installation) -> None:
    assigned.uninstall()
    assigned.install()
    assigned.wait_until_ready()
    assert not assigned.api("work_pools/macroscope")["is_paused"]
    printed = assigned.hook("macroscope-test")
    assert "Completed" in printed
    assigned.assert_exact(*SOURCES)
    assigned.assert_nothing_left()
