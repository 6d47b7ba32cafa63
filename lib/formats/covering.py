"""Ranges that leave no byte out, for a file that is kept, or hashed, while it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lib.bytesource.base import ByteSource
from lib.bytesource.spans import GAP_BYTES

_TAIL_BYTES = 4 * 2**10


class CoveringBytes:
    """A source that, between neighbouring ranges, also asks for the bytes that nobody wants.

    Padding and short texts between the pages of a file would otherwise have to be fetched later,
    one request for each.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.name, self.size = source.name, source.size
        self.remote, self.range_bytes = source.remote, source.range_bytes

    def read_into(self, offset: int, view: memoryview) -> None:
        self.source.read_into(offset, view)

    def read(self, offset: int, length: int) -> bytes:
        return self.source.read(offset, length)

    def ranges_ordered(self, ranges: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
        wanted = list(ranges)
        views = self.source.ranges_ordered(self._widened(wanted))
        for (_, length), view in zip(wanted, views, strict=True):
            yield view[:length]

    def _widened(self, wanted: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        following = [offset for offset, _ in wanted[1:]]
        for (offset, length), after in zip(wanted, [*following, None], strict=True):
            stop = offset + length
            if after is None:
                # The next part of the volume begins behind a little of the same kind.
                stop = max(stop, min(self.size, stop + _TAIL_BYTES))
            elif stop < after <= stop + GAP_BYTES:
                stop = after
            yield offset, stop - offset

    def close(self) -> None:
        self.source.close()
