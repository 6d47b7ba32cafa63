"""Every execution mode on a stand-in cluster, each heavy volume with an adaptive Dask cluster."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emulators.serving import Samples
from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.apiserver.kinds import CLUSTER, KINDS
from tests.kubernetes.installation import RUN_S, SOURCES, VALUES, Installation, refused

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
AUTOSCALER = next(kind for kind in KINDS if kind.name == "DaskAutoscaler")
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.fixture(scope="module")
def adaptive(
    samples: Samples,
    render: Callable[..., list[dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """The chart with clusters that grow and shrink."""
    with Cluster(tmp_path_factory.mktemp("adaptive"), refused) as cluster:
        manifests = render(*VALUES, "dask.adaptiveMaximum=2")
        installation = Installation(cluster, manifests, samples.endpoints)
        installation.wait_until_ready()
        yield installation
        assert cluster.access.refused == []


@pytest.mark.parametrize("mode", ["sequential", "parallel", "background"])
def test_a_run_in_each_mode_is_exact_with_adaptive_clusters_that_are_gone(
    adaptive: Installation, mode: str
) -> None:
    store = adaptive.cluster.store
    shutil.rmtree(adaptive.cluster.folder / "claims" / "macroscope-data", ignore_errors=True)
    run = adaptive.start("macroscope/full", mode=mode)
    seen: set[str] = set()

    def ended() -> bool:
        seen.update(found["metadata"]["name"] for found in store.list(AUTOSCALER))
        return adaptive.state(run)["type"] in ENDS

    adaptive.cluster.wait(ended, RUN_S, f"the run in mode {mode} ended")
    state = adaptive.state(run)
    assert state["type"] == "COMPLETED", state
    adaptive.assert_exact(*SOURCES)
    adaptive.assert_nothing_left()
    assert {name.split("-")[1] for name in seen} == {"epfl", "openorganelle"}
    # it goes after its cluster, which owns it
    adaptive.cluster.wait(lambda: not store.list(AUTOSCALER), RUN_S, "autoscalers gone")
    assert not store.list(CLUSTER)
