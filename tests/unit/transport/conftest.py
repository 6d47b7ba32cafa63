"""What the tests of each protocol share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from emulators.control import Control


@pytest.fixture
def control(served: Any) -> Iterator[Control]:
    """Of the stand-in that a module serves; rules and counters are gone after a test."""
    served.control.clear()
    yield served.control
    served.control.clear()
