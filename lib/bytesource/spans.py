"""Many small pieces of a file, read as few larger ranges."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from lib.bytesource.base import ByteSource
from lib.concurrency import cancel as stopping

GAP_BYTES = 64 * 2**10  # cheaper to read over than to ask again
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Span(Generic[T_co]):
    """`length` bytes at `offset`, wanted for `item`."""

    offset: int
    length: int
    item: T_co


@dataclass(slots=True)
class _Range(Generic[T]):
    offset: int
    stop: int
    spans: list[Span[T]] = field(default_factory=list)


def coalesce(
    spans: Iterable[Span[T]], *, range_bytes: int, gap_bytes: int = GAP_BYTES
) -> list[_Range[T]]:
    """Join neighbours, in the order given, while a range stays within `range_bytes`."""
    ranges: list[_Range[T]] = []
    for span in spans:
        stop = span.offset + span.length
        last = ranges[-1] if ranges else None
        if (
            last is not None
            and last.stop <= span.offset <= last.stop + gap_bytes
            and stop - last.offset <= range_bytes
        ):
            last.stop = stop
        else:
            last = _Range(span.offset, stop)
            ranges.append(last)
        last.spans.append(span)
    return ranges


def read_spans(source: ByteSource, spans: Iterable[Span[T]]) -> Iterator[tuple[T, memoryview]]:
    """Yield each span's item and bytes in the order given; bytes are valid until the next.

    Raises
    ------
    FormatError
        A span reaches beyond the end of the file.
    StoppedError
        A stop was requested between two ranges.
    """
    ranges = coalesce(spans, range_bytes=source.range_bytes)
    views = source.ranges_ordered([(part.offset, part.stop - part.offset) for part in ranges])
    for part, view in zip(ranges, views, strict=True):
        stopping.check()
        for span in part.spans:
            start = span.offset - part.offset
            yield span.item, view[start : start + span.length]


class BufferPool:
    """Buffers of at least `nbytes`, given out and taken back. Thread-safe.

    It holds as many as were ever out at once.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._idle: queue.SimpleQueue[memoryview] = queue.SimpleQueue()

    def take(self, nbytes: int | None = None) -> memoryview:
        """A buffer of `nbytes` (default: the pool's) with undefined content; see `give`."""
        length = self._nbytes if nbytes is None else nbytes
        if length > self._nbytes:
            return np.empty(length, np.uint8).data
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()[:length]
        return np.empty(self._nbytes, np.uint8).data[:length]

    def give(self, view: memoryview) -> None:
        """Take back what `take` gave; nobody may look at it any more."""
        whole = view.obj
        if isinstance(whole, np.ndarray) and whole.nbytes == self._nbytes:
            self._idle.put(whole.data)
