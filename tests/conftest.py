"""What every test may use: one set of stand-in archives for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.samples.control import Control
from lib.samples.serving import Samples


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
