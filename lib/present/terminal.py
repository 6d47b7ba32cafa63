"""Progress in a terminal, and as plain lines where there is none."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lib.present.formatting import duration_text, rate_text, size_text
from lib.present.output import console
from lib.safety import visible

REFRESH_SECONDS = 0.25
LINE_SECONDS = 10.0
"""Without a terminal: at most one line for each volume in this time, besides the first and last."""

_MOST_LINES = 20
_WIDE = 100  # columns of a terminal from which a name and everything else fit into one line
_DETAILS = 76  # columns of everything else
_BYTES_SHARE = 0.9
"""How far a volume is, where its bytes are known: mostly how many of them have come."""


@dataclass
class Progress:
    """What is known of one volume's progress.

    Attributes
    ----------
    total
        Shards of level 0; 0 while files are fetched before the grid is known.
    bytes_in, bytes_total
        Received by this run, and expected where that is known.
    """

    name: str
    began: float
    done: int = 0
    total: int = 0
    bytes_in: int = 0
    bytes_total: int | None = None
    ended: float | None = None
    first_done: int | None = field(default=None)  # finished before this run began

    def take(
        self, now: float, done: int, total: int, bytes_in: int, bytes_total: int | None
    ) -> None:
        """Take in what was told; calls of several threads may be late: nothing goes back."""
        if self.first_done is None and total:
            self.first_done = done
        self.done = max(self.done, done)
        self.total = max(self.total, total)
        self.bytes_in = max(self.bytes_in, bytes_in)
        self.bytes_total = bytes_total or self.bytes_total
        if self.finished and self.ended is None:
            self.ended = now

    @property
    def finished(self) -> bool:
        return self.total > 0 and self.done >= self.total

    @property
    def share(self) -> float:
        """How much is done, 0 to 1; it moves with bytes, not only with whole shards."""
        shards = self.done / self.total if self.total else 0.0
        if self.finished or not self.bytes_total:
            return shards
        received = min(1.0, self._earlier + self.bytes_in / self.bytes_total)
        return max(shards, _BYTES_SHARE * received + (1 - _BYTES_SHARE) * shards)

    @property
    def _earlier(self) -> float:
        return (self.first_done or 0) / self.total if self.total else 0.0

    def rate(self, now: float) -> float | None:
        """Bytes received in a second, over the time since the volume began."""
        seconds = (self.ended or now) - self.began
        return self.bytes_in / seconds if seconds > 0 and self.bytes_in else None

    def left(self, now: float) -> float | None:
        """Seconds that the rest takes at the speed so far."""
        made = self.share - self._earlier
        if self.finished or made <= 0 or now <= self.began:
            return None
        return (now - self.began) / made * (1 - self.share)

    def line(self, now: float) -> str:
        """All of it in words: ``ebi/a: 3 of 12 shards, 30 MB of 120 MB, 1 MB/s, 90 s left``."""
        shards = f"{self.done} of {self.total} shards" if self.total else "fetching"
        parts = [f"{self.name}: {shards}", self.bytes_text]
        if rate := self.rate(now):
            parts.append(rate_text(rate))
        if self.finished:
            parts.append(f"done in {duration_text((self.ended or now) - self.began)}")
        elif (left := self.left(now)) is not None:
            parts.append(f"{duration_text(left)} left")
        return ", ".join(parts)

    @property
    def bytes_text(self) -> str:
        received = size_text(self.bytes_in)
        return f"{received} of {size_text(self.bytes_total)}" if self.bytes_total else received


class ProgressView:
    """A bar for each volume: shards, bytes, MB/s and time left.

    Thread-safe. However often it is told, it draws at most four times a second in a terminal, and
    elsewhere writes a line for each volume at most every ten seconds.

    Parameters
    ----------
    stream
        Where to draw; standard error, so that standard output stays for results.
    terminal
        Overrides the stream's own answer to "are you a terminal?".
    clock
        Seconds; monotonic.

    Examples
    --------
    >>> with ProgressView() as view:                                   # doctest: +SKIP
    ...     view.update("ebi/EMPIAR-11759", 3, 12, 30_000_000, 120_000_000)
    """

    def __init__(
        self,
        stream: IO[str] | None = None,
        *,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._console = console(self._stream, force_terminal=terminal)
        self._clock = clock
        self._guard = threading.Lock()
        self._volumes: dict[str, Progress] = {}
        self._written: dict[str, float] = {}
        self._live: Live | None = None

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._drawn,
                console=self._console,
                refresh_per_second=1 / REFRESH_SECONDS,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def say(self, text: str) -> None:
        """Write a line of its own, above the bars where there are any."""
        self._console.print(text)

    def update(
        self,
        volume: str,
        done_shards: int,
        total_shards: int,
        bytes_in: int,
        bytes_total: int | None = None,
    ) -> None:
        """Tell how far a volume is.

        Parameters
        ----------
        volume
            Source and name, such as ``ebi/EMPIAR-11759``.
        done_shards, total_shards
            Finished and all; the first call with a total may already count shards of an earlier
            run. 0 of 0 while files are fetched.
        bytes_in, bytes_total
            Received by this run, and expected where that is known.
        """
        now = self._clock()
        with self._guard:
            state = self._volumes.setdefault(volume, Progress(volume, now))
            ended = state.finished
            state.take(now, done_shards, total_shards, bytes_in, bytes_total)
            if self._live is not None or self._console.is_terminal:
                return
            last = self._written.get(volume)
            due = last is None or (not state.finished and now - last >= LINE_SECONDS)
            if due or (state.finished and not ended):
                self._written[volume] = now
                self._stream.write(visible(state.line(now)) + "\n")
                self._stream.flush()

    def _drawn(self) -> RenderableType:
        now, width = self._clock(), self._console.width
        with self._guard:
            volumes = sorted(self._volumes.values(), key=lambda v: (v.finished, v.began, v.name))
        longest = max((len(state.name) for state in volumes), default=0)
        if width >= _WIDE and longest + _DETAILS <= width:
            shown = volumes[:_MOST_LINES]
            table = _grid(shown, now, bar=24, named=True)
            return Group(table, *_rest(len(volumes) - len(shown)))
        shown = volumes[: _MOST_LINES // 2]
        drawn: list[RenderableType] = []
        for state in shown:
            drawn.append(Text(state.name, overflow="fold"))
            drawn.append(Padding(_grid([state], now, bar=12 if width < _WIDE else 24), (0, 2)))
        return Group(*drawn, *_rest(len(volumes) - len(shown)))


def _rest(count: int) -> list[str]:
    return [f"and {count} more"] if count > 0 else []


def _grid(volumes: list[Progress], now: float, *, bar: int, named: bool = False) -> Table:
    table = Table.grid(padding=(0, 1))
    for state in volumes:
        left, rate = state.left(now), state.rate(now)
        if state.finished:
            end = "done in " + duration_text((state.ended or now) - state.began)
        else:
            end = f"{duration_text(left)} left" if left is not None else ""
        shards = f"{state.done}/{state.total} shards" if state.total else "fetching"
        table.add_row(
            *([Text(state.name, no_wrap=True)] if named else []),
            ProgressBar(total=1.0, completed=state.share, width=bar),
            _fixed(shards),
            _fixed(state.bytes_text),
            _fixed(rate_text(rate) if rate else "", "cyan"),
            Text(end, style="green" if state.finished else "", no_wrap=True),
        )
    return table


def _fixed(text: str, style: str = "") -> Text:
    return Text(text, justify="right", no_wrap=True, style=style)
