"""Jobs in threads, results in order, memory bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def run_ordered(
    jobs: Iterable[Callable[[], T]], workers: int, ahead: int | None = None
) -> Iterator[T]:
    """Run jobs in up to `workers` threads and yield their results in job order."""
    raise NotImplementedError
