"""What the format tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.formats.servers import Servers, serving


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with serving(tmp_path_factory.mktemp("served")) as running:
        yield running
