"""What the runs of one round noted, counted."""

from __future__ import annotations

from tests.chaos.report import FlowReport


class Seen:
    """What the runs of one round noted."""

    def __init__(self) -> None:
        self.workers = self.idle = self.servers = 0
        self.made = self.redone = self.wasted = self.refetched = 0
        self.failed_runs = 0
        self.errors: list[str] = []
        self._begun: set[str] = set()
        self._done: set[str] = set()
        self._files: set[str] = set()

    def take(self, notes: list[tuple[str, str]], servers: int, code: int | None) -> None:
        """Count one run's notes, which are in the order of their moments."""
        self.servers += servers
        for kind, what in notes:
            if kind == "unit":
                self.made += 1
                self.redone += what in self._begun
                self.wasted += what in self._done
                self._begun.add(what)
            elif kind == "done":
                self._done.add(what)
            elif kind == "file":
                self.refetched += what in self._files
                self._files.add(what)
            elif kind == "kill":
                self.workers += 1
                self.idle += what == "idle"
        named = [what for kind, what in notes if kind == "named error"]
        unnamed = [what for kind, what in notes if kind == "error"]
        self.errors += unnamed
        if code is None:
            self.errors.append("the run did not end")
        elif code != 0 and not named and not unnamed:
            self.errors.append(f"the run ended with {code} and no word")
        self.failed_runs += code != 0

    def add_to(self, report: FlowReport, output_format: str) -> None:
        report.workers += self.workers
        report.idle_workers += self.idle
        report.servers += self.servers
        report.kills += self.workers + self.servers
        report.kills_by_format[output_format] += self.workers + self.servers
        report.units_made += self.made
        report.units_redone += self.redone
        report.finished_units_redone += self.wasted
        report.files_fetched_twice += self.refetched
        report.failed_runs += self.failed_runs
