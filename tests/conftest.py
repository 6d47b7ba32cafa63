"""What every test may use: stand-in archives and a Prefect server, one each for a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from emulators.control import Control
from emulators.serving import Samples
from flows import prepare
from flows.commands.server import IN_MEMORY
from lib.archives.registry import REGISTRY
from lib.concurrency import cancel
from tests.kit.prefect_server import prefect_server as running_server

# What compiles at its first call, or has busy neighbours, takes as long as it takes.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("untimed")
# Else constants of all modules that a process has imported by then are tried too: which tests ran
# before in it would decide on the examples of the next one.
providers._get_local_constants = lambda: providers._local_constants

# before any test imports Prefect, which reads its settings once
prepare()
os.environ.setdefault("PREFECT_SERVER_DATABASE_CONNECTION_URL", IN_MEMORY)
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")


_ARCHIVES = dict(REGISTRY)
"""Before any test adds one of its own: the stand-ins outlive it."""


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samples]:
    """Running stand-ins of all five archives, on free ports of this machine."""
    root: Path = tmp_path_factory.mktemp("samples")
    with ExitStack() as stack:
        with patch.dict(REGISTRY, _ARCHIVES, clear=True):  # whichever test is the first
            running = stack.enter_context(Samples(root))
        yield running


@pytest.fixture(autouse=True)
def a_stop_ends_with_its_test() -> Iterator[None]:
    """What one test asked of the process, or a late thread of it, must end no other test."""
    cancel.reset()
    yield
    cancel.reset()


@pytest.fixture(autouse=True)
def samples_stay_as_they_are(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves another file in the stand-ins, which all tests of a session share.

    A file's date is part of what a source is: other tests would find it changed since.
    """
    if "samples" not in request.fixturenames:
        yield
        return
    root = request.getfixturevalue("samples").root
    before = _files_of(root)
    yield
    changed = {path for path, _ in before.items() ^ _files_of(root).items()}
    assert not changed, f"the test left these files of the stand-ins changed: {sorted(changed)}"


def _files_of(root: Path) -> dict[str, tuple[int, int]]:
    """Size and date of every file that an archive serves."""
    found = {}
    for folder in ("ftp", "epfl"):
        for path in (root / folder).rglob("*"):
            if path.is_file():
                told = path.lstat()
                found[str(path)] = told.st_size, told.st_mtime_ns
    return found


@pytest.fixture
def faults(samples: Samples) -> Iterator[Control]:
    """The stand-ins' control; rules, latency and counters are gone after the test."""
    samples.control.clear()
    yield samples.control
    samples.control.clear()


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Prefect server. Its start costs as much as ten small volumes."""
    with running_server(tmp_path_factory.mktemp("prefect-server")) as environ:
        yield environ["PREFECT_API_URL"]


@pytest.fixture
def prefect_server(prefect_api: str) -> Iterator[str]:
    """The same server for flows that run in this process."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield prefect_api
