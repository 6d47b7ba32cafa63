"""What the tests of each protocol share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emulators.control import Control
from lib.transport.partial import PartialFile


@pytest.fixture
def control(served: Any) -> Iterator[Control]:
    """Of the stand-in that a module serves; rules and counters are gone after a test."""
    served.control.clear()
    yield served.control
    served.control.clear()


@pytest.fixture
def each_block(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], object]], None]:
    """Have a function called with the bytes of each block that a download has taken."""

    def watch(told: Callable[[int], object]) -> None:
        took = PartialFile.took

        def both(part: PartialFile, count: int) -> None:
            took(part, count)
            told(count)

        monkeypatch.setattr(PartialFile, "took", both)

    return watch
