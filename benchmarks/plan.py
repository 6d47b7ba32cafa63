"""What a case is: variants that run in shuffled order, and the ratios that are wanted of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.measure import Run
from benchmarks.servers import Servers

STEPS = "bare steps"
WHOLE = "with statistics and a level"
"""Names of the contenders of `benchmarks.floors`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What every variant of a session is given."""

    servers: Servers
    cache: Path
    megabytes: float


@dataclass(frozen=True, slots=True)
class Variant:
    """One contender.

    Attributes
    ----------
    run
        Called with the setting and an empty output folder.
    program
        The program that must be installed; the variant is left out without it.
    """

    name: str
    run: Callable[[Setting, Path], Run]
    program: str | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """``one <= limit * other``, in medians of wall time, of CPU or of peak memory."""

    one: str
    other: str
    limit: float
    metric: Literal["seconds", "cpu_s", "peak_mb"] = "seconds"


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table.

    Attributes
    ----------
    prepare
        Builds the source, once.
    full
        Too long for every day: runs with ``--full`` or by name.
    origin_zyx
        Where the volume begins in `benchmarks.truth`.
    """

    name: str
    title: str
    prepare: Callable[[Setting], None]
    variants: tuple[Variant, ...]
    goals: tuple[Goal, ...] = ()
    full: bool = False
    origin_zyx: tuple[int, int, int] = (0, 0, 0)
