"""What the format tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.formats.servers import Servers, serving
from tests.kit.forked import structure_in_forks

REAL = ("hdf5-cremi-",)  # cases of which each test starts the process that looks at a file


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with serving(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture(autouse=True)
def structure_of_hdf5(request: pytest.FixtureRequest) -> Iterator[None]:
    """A fork in place of the process that looks at HDF5 files, whose start takes 0.4 s of CPU."""
    name = request.node.name
    if "servers" not in request.fixturenames or any(real in name for real in REAL):
        yield
        return
    with structure_in_forks():
        yield
