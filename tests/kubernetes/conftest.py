"""The chart: rendered with the real helm, and installed into a stand-in cluster."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from emulators.control import Control
from emulators.serving import Samples
from tests.kit.documents import documents
from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.installation import (
    HEAVY,
    RUN_S,
    VALUES,
    Installation,
    refused,
    withhold_chunks,
)
from tests.kubernetes.kube_binaries import program

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "macroscope"
Helm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Run the real helm; returns what it printed and its exit code."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program("helm"), *arguments], capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Callable[..., list[dict[str, Any]]]:
    """Objects that the chart renders with some ``--set-json`` values."""

    @cache
    def run(*sets: str) -> list[dict[str, Any]]:
        flags = [part for text in sets for part in ("--set-json", text)]
        done = helm("template", "macroscope", str(CHART), "--namespace", "em", *flags)
        assert done.returncode == 0, done.stderr
        return documents(done.stdout)

    return run


@pytest.fixture(scope="session")
def refuse(helm: Helm) -> Callable[..., str]:
    """The sentence with which the chart refuses some values."""

    def run(*sets: str) -> str:
        flags = [part for text in sets for part in ("--set-json", text)]
        done = helm("template", "macroscope", str(CHART), "--namespace", "em", *flags)
        assert done.returncode != 0, f"{sets} was not refused"
        return done.stderr

    return run


@pytest.fixture(scope="session")
def installed(
    samples: Samples,
    render: Callable[..., list[dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """The chart in a stand-in cluster, up and registered: a minute, for slow tests only."""
    with Cluster(tmp_path_factory.mktemp("cluster"), refused) as cluster:
        installation = Installation(cluster, render(*VALUES), samples.endpoints)
        installation.wait_until_ready()
        yield installation
        assert cluster.access.refused == []


@pytest.fixture
def empty_store(installed: Installation) -> Installation:
    """The installation, ready, with an empty store."""
    installed.wait_until_ready()
    shutil.rmtree(installed.cluster.folder / "claims" / "macroscope-data", ignore_errors=True)
    return installed


@pytest.fixture
def at_work(empty_store: Installation, faults: Control) -> Iterator[Callable[..., str]]:
    """Start a run; returns its id when a Dask worker waits for voxels, which are withheld."""
    cluster = empty_store.cluster

    def connected() -> bool:
        workers = empty_store.dask_pods("worker")
        return any("Registered to" in cluster.log(pod) for pod in workers)

    def processing() -> bool:
        record = empty_store.records().get(HEAVY) or {}
        return record.get("status") == "processing"

    def start(deployment: str, **parameters: Any) -> str:
        withhold_chunks(faults)
        run = empty_store.start(deployment, **parameters)
        cluster.wait(connected, RUN_S, "a Dask worker at work")
        cluster.wait(processing, RUN_S, "the volume begun")
        return run

    yield start
    faults.clear()
    empty_store.assert_nothing_left()
