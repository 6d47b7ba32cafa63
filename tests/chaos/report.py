"""The figures of a campaign of kills."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field

from tests.chaos.worker import UNITS_AT_ONCE


@dataclass
class Report:
    """What was killed, what it cost, and what was wrong afterwards."""

    seed: int
    destination: str
    kills: int = 0
    rounds: int = 0
    units_made: int = 0
    units_redone: int = 0
    finished_units_redone: int = 0
    files_fetched_twice: int = 0
    seconds: float = 0.0
    kills_by_format: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing was lost, nothing wrong, and no more redone than was in flight."""
        return not self.wrong and not self.finished_units_redone

    @property
    def wrong(self) -> list[str]:
        """Everything that must not be, in words."""
        return [*self.violations, *self.differences, *self.errors]

    def as_json(self) -> str:
        figures = {**asdict(self), "kills_by_format": {**self.kills_by_format}}
        return json.dumps({**figures, "clean": self.clean}, indent=2)

    def rows(self) -> dict[str, object]:
        """The figures by their names."""
        return {
            "destination": self.destination,
            "seed": self.seed,
            **self._kills(),
            "by format": ", ".join(f"{k} {n}" for k, n in self.kills_by_format.items()),
            "rounds of all five sources": self.rounds,
            "units of work made": self.units_made,
            "units redone": self.units_redone,
            **self._in_flight(),
            "finished units redone": self.finished_units_redone,
            "raw files fetched twice": self.files_fetched_twice,
            "half-written seen, or `complete` beside incomplete": len(self.violations),
            "differences from the undisturbed run": len(self.differences),
            "errors": len(self.errors),
            "seconds": self.seconds,
        }

    def table(self) -> str:
        """The figures as Markdown, then whatever was wrong."""
        lines = ["| | |", "|---|---|", *(f"| {name} | {n} |" for name, n in self.rows().items())]
        return "\n".join([*lines, *self.wrong[:100]])

    def _kills(self) -> dict[str, object]:
        return {"kills (SIGKILL)": self.kills}

    def _in_flight(self) -> dict[str, object]:
        return {}


@dataclass
class RunReport(Report):
    """Kills of the run itself."""

    most_redone_after_one_kill: int = 0
    units_in_flight_allowed: int = UNITS_AT_ONCE

    @property
    def clean(self) -> bool:
        within = self.most_redone_after_one_kill <= self.units_in_flight_allowed
        return super().clean and within

    def _in_flight(self) -> dict[str, object]:
        return {
            "most redone after one kill": self.most_redone_after_one_kill,
            "units in flight, at most": self.units_in_flight_allowed,
        }


@dataclass
class PauseReport(Report):
    """Pauses past the lease, each of all sources at once.

    ``refused`` counts volumes of paused runs that ended in the error of a lease that is over; the
    others were complete before the pause, or not begun.
    """

    refused: int = 0
    not_reached: int = 0

    def rows(self) -> dict[str, object]:
        return {
            "destination": self.destination,
            "seed": self.seed,
            "pauses (SIGSTOP past the lease, a take-over, SIGCONT)": self.kills,
            **{f"- {point}": n for point, n in sorted(self.kills_by_format.items())},
            "volumes whose paused run was refused": self.refused,
            "`complete` over a broken volume, bytes of the paused run's, or left over": len(
                self.violations
            ),
            "errors without a reason": len(self.errors),
            "seconds": self.seconds,
        }


@dataclass
class PowerReport(Report):
    """Power cuts, and what the disk held after them.

    ``complete`` counts volumes whose record said so, each looked at byte for byte.
    """

    complete: int = 0
    gone_on_with: int = 0

    def rows(self) -> dict[str, object]:
        return {
            "destination": self.destination,
            "seed": self.seed,
            "power cuts": self.kills,
            "by format": ", ".join(f"{k} {n}" for k, n in self.kills_by_format.items()),
            "runs of all five sources": self.rounds,
            "`complete` volumes on the disk after a cut": self.complete,
            "`complete` over a volume that does not verify": len(self.violations),
            "cuts after which a next run was made": self.gone_on_with,
            "differences from the undisturbed run": len(self.differences),
            "errors": len(self.errors),
            "seconds": self.seconds,
        }


@dataclass
class FlowReport(Report):
    """Kills of what works around a run: its Dask workers, its Prefect server.

    A worker makes one unit at a time, so that each kill of one costs a unit at most; a kill of the
    server costs none, unless the run fails for it.
    """

    workers: int = 0
    idle_workers: int = 0
    servers: int = 0
    failed_runs: int = 0

    def _kills(self) -> dict[str, object]:
        return {
            "kills of Dask workers (exit, SIGSEGV)": self.workers,
            "of them without a unit in flight": self.idle_workers,
            "kills of the Prefect server (SIGKILL)": self.servers,
            "runs that ended in a named error, and were gone on with": self.failed_runs,
        }
