"""Progress and results in a terminal, and as plain lines where there is none."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lib.present.output import console
from lib.present.words import duration_text, rate_text, size_text
from lib.safety import visible

REFRESH_SECONDS = 0.25
LINE_SECONDS = 10.0
"""Without a terminal: at most one line for each volume in this time, besides the first and last."""

_MOST_ROWS = 20
_WIDE = 100  # columns of a terminal from which there is room for everything
_COLUMNS = ("source", "volumes", "shape", "voxel size", "bytes", "seconds", "status")
_STYLES = {"complete": "green", "failed": "bold red", "cancelled": "yellow"}


@dataclass
class _Volume:
    """What is known of one volume's progress."""

    name: str
    began: float
    done: int = 0
    total: int = 0
    bytes_in: int = 0
    bytes_total: int | None = None
    ended: float | None = None
    first_done: int = field(default=0)  # finished before this run began

    @property
    def finished(self) -> bool:
        return self.total > 0 and self.done >= self.total

    def rate(self, now: float) -> float | None:
        """Bytes received in a second, over the time since the volume began."""
        seconds = (self.ended or now) - self.began
        return self.bytes_in / seconds if seconds > 0 and self.bytes_in else None

    def left(self, now: float) -> float | None:
        """Seconds that the remaining shards take at the speed so far."""
        made = self.done - self.first_done
        if self.finished or made <= 0 or self.total <= 0:
            return None
        return (now - self.began) / made * (self.total - self.done)


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
        self._volumes: dict[str, _Volume] = {}
        self._written: dict[str, float] = {}
        self._live: Live | None = None

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._table,
                console=self._console,
                refresh_per_second=1 / REFRESH_SECONDS,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

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
            Finished and all; the first call may already count shards of an earlier run.
        bytes_in, bytes_total
            Received by this run, and expected where that is known.
        """
        now = self._clock()
        with self._guard:
            state = self._volumes.get(volume)
            if state is None:
                state = _Volume(volume, now, first_done=done_shards)
                self._volumes[volume] = state
            # calls of several threads may arrive out of order: progress never goes back
            state.done = max(state.done, done_shards)
            state.bytes_in = max(state.bytes_in, bytes_in)
            state.total, state.bytes_total = total_shards, bytes_total
            just_ended = state.finished and state.ended is None
            if just_ended:
                state.ended = now
            if self._live is not None or self._console.is_terminal:
                return
            last = self._written.get(volume)
            if last is None or just_ended or (not state.finished and now - last >= LINE_SECONDS):
                self._written[volume] = now
                self._stream.write(visible(self._line(state, now)) + "\n")
                self._stream.flush()

    def _line(self, state: _Volume, now: float) -> str:
        parts = [f"{state.name}: {state.done} of {state.total} shards", _bytes(state)]
        if rate := state.rate(now):
            parts.append(rate_text(rate))
        if state.finished:
            parts.append(f"done in {duration_text((state.ended or now) - state.began)}")
        elif (left := state.left(now)) is not None:
            parts.append(f"{duration_text(left)} left")
        return ", ".join(parts)

    def _table(self) -> Table:
        now = self._clock()
        table, wide = Table.grid(padding=(0, 1)), self._console.width >= _WIDE
        with self._guard:
            shown = sorted(self._volumes.values(), key=lambda v: (v.finished, v.began, v.name))
            for state in shown[:_MOST_ROWS]:
                table.add_row(*_row(state, now, wide=wide))
            if len(shown) > _MOST_ROWS:
                table.add_row(f"and {len(shown) - _MOST_ROWS} more")
        return table


def _row(state: _Volume, now: float, *, wide: bool) -> tuple[Any, ...]:
    left = state.left(now)
    if state.finished:
        end = "done in " + duration_text((state.ended or now) - state.began)
    else:
        end = f"{duration_text(left)} left" if left is not None else ""
    rate = state.rate(now)
    return (
        Text(state.name, overflow="ellipsis", no_wrap=True),
        ProgressBar(total=max(1, state.total), completed=state.done, width=24 if wide else 10),
        _fixed(f"{state.done}/{state.total} shards"),
        _fixed(_bytes(state) if wide else size_text(state.bytes_in)),
        _fixed(rate_text(rate) if rate else "", "cyan"),
        Text(end, style="green" if state.finished else "", no_wrap=True),
    )


def _fixed(text: str, style: str = "") -> Text:
    return Text(text, justify="right", no_wrap=True, style=style)


def _bytes(state: _Volume) -> str:
    received = size_text(state.bytes_in)
    return f"{received} of {size_text(state.bytes_total)}" if state.bytes_total else received


def summary_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """The table at the end of a run.

    Parameters
    ----------
    rows
        With the keys ``source``, ``volumes``, ``shape``, ``voxel_size``, ``bytes`` (a number),
        ``seconds`` (a number) and ``status``; what is absent stays blank.

    Returns
    -------
    A rich table; print it with ``rich.console.Console().print``.
    """
    table = Table(title="What came in", title_justify="left", header_style="bold")
    for column in _COLUMNS:
        right = column in ("volumes", "bytes", "seconds")
        # on a narrow screen names fold over, numbers stay whole
        table.add_column(
            column, justify="right" if right else "left", overflow="fold", no_wrap=right
        )
    for row in rows:
        status = str(row.get("status", ""))
        count, seconds = row.get("bytes"), row.get("seconds")
        table.add_row(
            Text(str(row.get("source", ""))),
            Text(str(row.get("volumes", ""))),
            Text(str(row.get("shape") or "")),
            Text(str(row.get("voxel_size") or "")),
            "" if count is None else size_text(float(count)),
            "" if seconds is None else f"{float(seconds):.1f}",
            Text(status, style=_STYLES.get(status, "")),
        )
    return table
