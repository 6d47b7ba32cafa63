"""The kill harness: kills at random moments, over all sources and both formats."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.chaos import judge
from tests.chaos.places import Destination, bucket_where_wanted, stand_ins
from tests.chaos.report import RunReport
from tests.chaos.worker import END, Task
from tests.chaos.zygote import Zygote

_FIRST_MS = 0.06  # seconds: where a run has hardly begun
_SHARE_EARLY = 0.15
_LEAST_SHARE = 0.4  # of an undisturbed run, which a run with nothing left to do takes about
_MOST_ATTEMPTS = 60  # of one round: a run that is killed so often must have ended


class Campaign:
    """Rounds of kills until there are enough: each round makes all volumes in one format."""

    def __init__(
        self,
        zygote: Zygote,
        endpoints: dict[str, dict[str, str]],
        destination: Destination,
        folder: Path,
        *,
        seed: int,
        name: str,
    ) -> None:
        self._zygote, self._endpoints, self._destination = zygote, endpoints, destination
        self._folder, self._random = folder, random.Random(seed)
        self.report = RunReport(seed, name)
        self._references: dict[str, judge.Reference] = {}

    def run(self, kills: int, tell: Callable[[str], None] = lambda text: None) -> RunReport:
        """Kill until `kills` processes have died in the middle of their work."""
        began = time.monotonic()
        self._warm_up()
        for output_format in self._destination.formats:
            self._references[output_format] = self._undisturbed(output_format)
            reference = self._references[output_format]
            tell(
                f"undisturbed {output_format}: {reference.seconds:.1f} s, "
                f"{len(reference.units)} units"
            )
        told = 0
        formats, by_format = self._destination.formats, self.report.kills_by_format
        while self.report.kills < kills:
            # By what was killed, not by turns: a machine that is slow now and fast then ends some
            # rounds without a kill, and others with all that a round may have.
            output_format = min(formats, key=lambda name: by_format[name])
            share = max(1, kills // len(formats))
            self._round(output_format, min(share, kills - self.report.kills))
            self.report.seconds = round(time.monotonic() - began, 1)
            tell(f"{self.report.kills} kills in {self.report.seconds:.0f} s: {self._short()}")
            for text in self.report.wrong[told:]:
                tell(f"  {text}")
            told = len(self.report.wrong)
        return self.report

    def _warm_up(self) -> None:
        """Compile and import before the forks, on a folder and without what starts threads."""
        task = self._task("warm-up", "zarr", 0)
        sources = tuple(source for source in task.sources if source != "openorganelle")
        away = str(self._folder / "warm-up")
        self._zygote.warm_up(replace(task, sources=sources, data_uri=away, store={}))

    def _undisturbed(self, output_format: str) -> judge.Reference:
        name = f"undisturbed-{output_format}"
        task = self._task(name, output_format, 0)
        _, seconds = self._zygote.run(task, None)
        notes = notes_of(task)
        if errors := [what for kind, what in notes if kind == "error"]:
            raise RuntimeError(f"the undisturbed run failed: {errors}")
        store = self._destination.store(name)
        units = tuple(what for kind, what in notes if kind == "unit")
        reference = judge.Reference(judge.digests(store), seconds, units)
        if problems := [*judge.violations(store, reference), *self._destination.rubbish(name)]:
            raise RuntimeError(f"the undisturbed run left {problems}")
        return reference

    def _round(self, output_format: str, most: int) -> None:
        """Kill, `most` times at most, and go on until all volumes are made, then compare."""
        name = f"round-{self.report.rounds}"
        self.report.rounds += 1
        store, reference = self._destination.store(name), self._references[output_format]
        begun: set[str] = set()
        files: set[str] = set()
        most += self.report.kills
        fruitless = 0
        for attempt in range(_MOST_ATTEMPTS):
            finished, complete = judge.finished_units(store), judge.complete_volumes(store)
            task = self._task(name, output_format, attempt)
            last = attempt == _MOST_ATTEMPTS - 1 or self.report.kills >= most
            left = max(_LEAST_SHARE, reference.share_left(finished, complete)) * reference.seconds
            # A busy machine takes longer than the undisturbed run did: wait longer, or never end.
            moment = self._moment(left * (1 + 0.5 * fruitless))
            killed, _ = self._zygote.run(task, None if last else moment)
            started, fetched = self._count(task, begun, finished, complete)
            fruitless = 0 if started | fetched else fruitless + 1
            self.report.files_fetched_twice += len(files & fetched)
            begun |= started
            files |= fetched
            shutil.rmtree(task.scratch, ignore_errors=True)
            if not killed:
                break
            self.report.kills += 1
            self.report.kills_by_format[output_format] += 1
            found = judge.violations(store, reference)
            self.report.violations += [f"{name}, attempt {attempt}: {text}" for text in found]
        found = judge.differences(judge.digests(store), reference)
        found += [f"{key} is left over" for key in self._destination.rubbish(name)]
        self.report.differences += [f"{name}: {text}" for text in found]
        if not found:
            self._destination.drop(name)

    def _count(
        self, task: Task, begun: set[str], finished: set[str], complete: set[str]
    ) -> tuple[set[str], set[str]]:
        """Units that this attempt began, and the files that it fetched whole."""
        notes = notes_of(task)
        started = {what for kind, what in notes if kind == "unit"}
        self.report.errors += [
            f"{task.data_uri}: {what}" for kind, what in notes if kind == "error"
        ]
        redone = started & begun
        wasted = {u for u in started if u in finished or u.partition(" ")[0] in complete}
        self.report.units_made += len(started)
        self.report.units_redone += len(redone)
        self.report.finished_units_redone += len(wasted)
        self.report.most_redone_after_one_kill = max(
            self.report.most_redone_after_one_kill, len(redone)
        )
        return started, {what for kind, what in notes if kind == "file"}

    def _moment(self, seconds: float) -> float:
        """When to kill: anywhere in what is left, and often enough in the first milliseconds."""
        early = self._random.random() < _SHARE_EARLY
        return self._random.uniform(0.0, _FIRST_MS if early else seconds)

    def _task(self, name: str, output_format: str, attempt: int) -> Task:
        here = self._folder / "attempts" / f"{name}-{attempt}"
        here.mkdir(parents=True)
        return self._destination.task(name, output_format, self._endpoints, here)

    def _short(self) -> str:
        report = self.report
        return (
            f"{report.units_redone} units redone (at most {report.most_redone_after_one_kill} "
            f"after one kill), {len(report.violations)} violations, "
            f"{len(report.differences)} differences, {len(report.errors)} errors"
        )


def notes_of(task: Task) -> list[tuple[str, str]]:
    """What the processes of a task noted, in order.

    Each line begins with a line feed, too: one that a kill cut off, which Linux does where a write
    goes from one page of the file to the next, stays by itself. What it was to tell of had not
    begun.
    """
    try:
        lines = Path(task.log).read_text().splitlines()
    except FileNotFoundError:  # killed before it could open the log
        return []
    return [tuple(json.loads(line)) for line in lines if line.endswith(END)]


@contextmanager
def campaign(destination: str, seed: int) -> Iterator[Campaign]:
    """Servers, a zygote and an empty destination (``folder`` or ``s3``)."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as made:
        folder = Path(made)
        with (
            stand_ins(folder / "samples") as endpoints,
            Zygote() as zygote,
            bucket_where_wanted(destination) as server,
        ):
            place = Destination(folder / "stores", server)
            yield Campaign(zygote, endpoints, place, folder, seed=seed, name=destination)
