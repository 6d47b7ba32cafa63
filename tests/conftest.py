"""What every test may use: stand-in archives and a Prefect server, one each for a session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from urllib3.util import Retry

from flows.environment import prepare
from lib.samples.control import Control
from lib.samples.serving import Samples
from lib.samples.sockets import free_ports

prepare()  # before any test imports Prefect, which reads its settings once


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samples]:
    """Running stand-ins of all five archives, on free ports of this machine."""
    root: Path = tmp_path_factory.mktemp("samples")
    with Samples(root) as running:
        yield running


@pytest.fixture
def faults(samples: Samples) -> Iterator[Control]:
    """The stand-ins' switchboard; rules, latency and counters are gone after the test."""
    samples.control.clear()
    yield samples.control
    samples.control.clear()


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Prefect server. Its start costs as much as ten small volumes."""
    port = free_ports("127.0.0.1", 1)[0]
    home = tmp_path_factory.mktemp("prefect-server")
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start"]
    url = f"http://127.0.0.1:{port}/api"
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)],
            env={**os.environ, "PREFECT_HOME": str(home)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        with requests.Session() as session:
            patient = requests.adapters.HTTPAdapter(
                max_retries=Retry(60, backoff_factor=0.5, backoff_max=2)
            )
            session.mount("http://", patient)
            session.get(f"{url}/health", timeout=60).raise_for_status()
        yield url
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def prefect_server(prefect_api: str) -> Iterator[str]:
    """The same server for flows that run in this process."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield prefect_api
