"""helm upgrades the chart of 0.1.0 while a run is at work; the run ends exact, and others follow.

Pods run this tree's code under either chart: what an upgrade does to the image is not seen here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from emulators.control import Control
from emulators.serving import Samples
from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.apiserver.kinds import DEPLOYMENT
from tests.kubernetes.installation import HEAVY, RUN_S, VALUES, refused, withhold_chunks
from tests.kubernetes.releases import CHART_0_1_0, Released, beside

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
OPEN, ASKING = "server.auth.generate=false", "server.auth.generate=true"


@pytest.fixture(scope="module")
def values(samples: Samples) -> tuple[str, ...]:
    """Those of the other tests here, with the stand-in archives outside of the cluster."""
    shared = (value for value in VALUES if not value.startswith("samples."))
    return (*shared, beside(samples.endpoints))


@pytest.fixture(scope="module")
def installed(
    values: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Released]:
    """What the chart of 0.1.0 installs."""
    with Cluster(tmp_path_factory.mktemp("upgraded"), refused) as cluster:
        released = Released(cluster, *values, chart=CHART_0_1_0)
        released.wait_until_ready()
        yield released
        assert cluster.access.refused == []


def test_a_run_that_0_1_0_began_ends_exact_under_the_chart_that_replaced_it(
    installed: Released, values: tuple[str, ...], faults: Control
) -> None:
    cluster = installed.cluster
    withhold_chunks(faults)
    run = installed.start(f"{HEAVY}/ingest")
    cluster.wait(
        lambda: any("Registered to" in cluster.log(pod) for pod in installed.dask_pods("worker")),
        RUN_S,
        "a Dask worker at work",
    )
    assert "gets a password with this upgrade" in installed.release.put("upgrade", *values)
    [flow] = installed.flow_pods()
    old = installed.server()["metadata"]["uid"]
    assert installed.release.put("upgrade", *values, OPEN) == ""
    installed.wait_until_ready()
    assert installed.server()["metadata"]["uid"] != old
    assert [pod["metadata"]["uid"] for pod in installed.flow_pods()] == [flow["metadata"]["uid"]]
    faults.clear()
    state = installed.final_state(run, RUN_S)
    assert state["type"] == "COMPLETED", state
    installed.assert_exact(HEAVY)
    installed.assert_nothing_left()


def test_the_password_comes_with_an_upgrade_when_nothing_runs(
    installed: Released, values: tuple[str, ...]
) -> None:
    assert installed.auth is None
    assert installed.release.put("upgrade", *values, ASKING) == ""
    installed.wait_until_ready()
    assert installed.auth is not None
    claim = installed.cluster.folder / "claims" / "macroscope-data"
    shutil.rmtree(claim / "data")
    run = installed.start(f"{HEAVY}/ingest")
    state = installed.final_state(run, RUN_S)
    assert state["type"] == "COMPLETED", state
    installed.assert_exact(HEAVY)
    installed.assert_nothing_left()


def test_helm_uninstalls_what_it_upgraded_and_keeps_the_claims(installed: Released) -> None:
    done = installed.release.helm("uninstall", "macroscope", "--timeout=10m")
    assert done.returncode == 0, done.stderr
    store = installed.cluster.store
    installed.cluster.wait(lambda: not store.list(DEPLOYMENT), RUN_S, "Deployments gone")
    left = {manifest["metadata"]["name"] for _, manifest in store.everything()}
    assert {"macroscope-data", "macroscope-server"} <= left
