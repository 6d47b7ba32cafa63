"""Timings and throughput of the sources, as rows of bars that a template draws in SVG."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lib.present.formatting import duration_text, rate_text, size_text
from lib.records.model import Record

WIDTH, ROW, TOP = 640, 58, 8
_LABEL, _NUMBER = 158, 132  # pixels left of the bars, and right of the longest one
_ROOM = WIDTH - _LABEL - _NUMBER


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar; pixels of the drawing."""

    x: int
    y: int
    width: float
    text: str
    kind: str  # "time" or "rate"


@dataclass(frozen=True, slots=True)
class SourceTime:
    """What one source took: sums over its volumes that say how long they took."""

    source: str
    volumes: int
    seconds: float
    received: int
    y: int
    bars: tuple[Bar, ...]

    @property
    def rate(self) -> float | None:
        """Bytes received in a second of work on the source's volumes."""
        return self.received / self.seconds if self.seconds > 0 and self.received else None

    @property
    def words(self) -> dict[str, str]:
        """The same in words, for the table beside the drawing."""
        return {
            "seconds": duration_text(self.seconds),
            "received": size_text(self.received),
            "rate": rate_text(self.rate) if self.rate else "nothing fetched",
        }


def source_times(volumes: Iterable[Record]) -> list[SourceTime]:
    """One row for each source, with bars to common scales."""
    timed: dict[str, list[Record]] = {}
    for record in volumes:
        if record.provenance.seconds is not None:
            timed.setdefault(record.source, []).append(record)
    sums = [
        SourceTime(
            source,
            len(own),
            sum(f.provenance.seconds or 0.0 for f in own),
            sum(f.provenance.bytes or 0 for f in own),
            TOP + index * ROW,
            (),
        )
        for index, (source, own) in enumerate(sorted(timed.items()))
    ]
    longest = max((row.seconds for row in sums), default=0.0) or 1.0
    fastest = max((row.rate or 0.0 for row in sums), default=0.0) or 1.0
    return [
        SourceTime(
            row.source,
            row.volumes,
            row.seconds,
            row.received,
            row.y,
            (
                Bar(_LABEL, row.y, row.seconds / longest * _ROOM, row.words["seconds"], "time"),
                Bar(
                    _LABEL, row.y + 22, (row.rate or 0) / fastest * _ROOM, row.words["rate"], "rate"
                ),
            ),
        )
        for row in sums
    ]


def chart_height(rows: list[SourceTime]) -> int:
    """Height of the drawing."""
    return TOP + ROW * len(rows)
