"""The kill harness: kills at random moments, over all sources and both formats."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lib.samples.s3 import S3Server
from lib.storage.base import Store
from lib.storage.open import open_store
from lib.storage.settings import StoreSettings
from tests.chaos import judge
from tests.chaos.worker import UNITS_AT_ONCE, Task
from tests.chaos.zygote import Zygote

_FIRST_MS = 0.06  # seconds: where a run has hardly begun
_SHARE_EARLY = 0.15
_LEAST_SHARE = 0.4  # of an undisturbed run, which a run with nothing left to do takes about
_MOST_ATTEMPTS = 60  # of one round: a run that is killed so often must have ended


@dataclass
class Report:
    """The figures of a campaign."""

    seed: int
    destination: str
    kills: int = 0
    rounds: int = 0
    units_made: int = 0
    units_redone: int = 0
    most_redone_after_one_kill: int = 0
    units_in_flight_allowed: int = UNITS_AT_ONCE
    finished_units_redone: int = 0
    files_fetched_twice: int = 0
    seconds: float = 0.0
    kills_by_format: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing was lost, nothing wrong, and no more redone than was in flight."""
        within = self.most_redone_after_one_kill <= self.units_in_flight_allowed
        return not self.wrong and within and not self.finished_units_redone

    @property
    def wrong(self) -> list[str]:
        """Everything that must not be, in words."""
        return [*self.violations, *self.differences, *self.errors]

    def as_json(self) -> str:
        return json.dumps({**asdict(self), "clean": self.clean}, indent=2)


@contextmanager
def stand_ins(folder: Path) -> Iterator[dict[str, dict[str, str]]]:
    """The five archives, in a process of their own; yields their endpoints."""
    command = [sys.executable, "-m", "flows.cli", "samples", "--root", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            endpoints = json.loads(process.stdout.readline())
            _many_at_once(endpoints.pop("control_url"))
            yield endpoints
        finally:
            process.terminate()


def _many_at_once(control_url: str) -> None:
    """The DVID of a campaign takes several requests at once: killed clients' linger for a while."""
    settings = json.dumps({"dvid_max_throttled": 64}).encode()
    request = urllib.request.Request(f"{control_url}/_control/settings", settings)
    with urllib.request.urlopen(request) as answer:
        answer.read()


class Destination:
    """Where rounds put their volumes: folders, or prefixes of one bucket."""

    def __init__(self, folder: Path, server: S3Server | None) -> None:
        self._folder, self._server = folder, server
        self.formats = ("zarr",) if server is not None else ("zarr", "npy")

    def uri(self, name: str) -> str:
        if self._server is not None:
            return f"s3://{self._server.bucket}/{name}"
        return str(self._folder / name)

    def settings(self) -> dict[str, Any]:
        if self._server is None:
            return {}
        return {
            "endpoint_url": self._server.endpoint_url,
            "key": self._server.key,
            "secret": self._server.secret,
        }

    def store(self, name: str) -> Store:
        return open_store(self.uri(name), StoreSettings(**self.settings()))

    def drop(self, name: str) -> None:
        """Forget a round; a bucket goes as a whole at the end."""
        if self._server is None:
            shutil.rmtree(self._folder / name)

    def rubbish(self, name: str) -> list[str]:
        """Files that no listing of the store shows: locks and temporary files left behind."""
        if self._server is not None:
            return []
        folder, shown = self._folder / name, {item.key for item in self.store(name).list()}
        there = (
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )
        return sorted(key for key in there if key not in shown)


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
        self.report = Report(seed, name)
        self._references: dict[str, judge.Reference] = {}

    def run(self, kills: int, tell: Callable[[str], None] = lambda text: None) -> Report:
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
        while self.report.kills < kills:
            output_format = self._destination.formats[
                self.report.rounds % len(self._destination.formats)
            ]
            self._round(output_format, kills)
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
        notes = _notes(task)
        if errors := [what for kind, what in notes if kind == "error"]:
            raise RuntimeError(f"the undisturbed run failed: {errors}")
        store = self._destination.store(name)
        units = tuple(what for kind, what in notes if kind == "unit")
        reference = judge.Reference(judge.digests(store), seconds, units)
        if problems := [*judge.violations(store, reference), *self._destination.rubbish(name)]:
            raise RuntimeError(f"the undisturbed run left {problems}")
        return reference

    def _round(self, output_format: str, kills: int) -> None:
        """Kill and go on until all volumes are made, then compare."""
        name = f"round-{self.report.rounds}"
        self.report.rounds += 1
        store, reference = self._destination.store(name), self._references[output_format]
        begun: set[str] = set()
        files: set[str] = set()
        fruitless = 0
        for attempt in range(_MOST_ATTEMPTS):
            finished, complete = judge.finished_units(store), judge.complete_volumes(store)
            task = self._task(name, output_format, attempt)
            last = attempt == _MOST_ATTEMPTS - 1 or self.report.kills >= kills
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
            by_format = self.report.kills_by_format
            by_format[output_format] = by_format.get(output_format, 0) + 1
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
        notes = _notes(task)
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
        return Task(
            endpoints=self._endpoints,
            data_uri=self._destination.uri(name),
            output_format=output_format,
            scratch=str(here / "scratch"),
            log=str(here / "log"),
            store=self._destination.settings(),
        )

    def _short(self) -> str:
        report = self.report
        return (
            f"{report.units_redone} units redone (at most {report.most_redone_after_one_kill} "
            f"after one kill), {len(report.violations)} violations, "
            f"{len(report.differences)} differences, {len(report.errors)} errors"
        )


def _notes(task: Task) -> list[tuple[str, str]]:
    try:
        lines = Path(task.log).read_text().splitlines()
    except FileNotFoundError:  # killed before it could open the log
        return []
    return [tuple(json.loads(line)) for line in lines]


@contextmanager
def campaign(destination: str, seed: int) -> Iterator[Campaign]:
    """Servers, a zygote and an empty destination (``folder`` or ``s3``)."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as made:
        folder = Path(made)
        with (
            stand_ins(folder / "samples") as endpoints,
            Zygote() as zygote,
            _server(destination) as server,
        ):
            place = Destination(folder / "stores", server)
            yield Campaign(zygote, endpoints, place, folder, seed=seed, name=destination)


@contextmanager
def _server(destination: str) -> Iterator[S3Server | None]:
    if destination != "s3":
        yield None
        return
    with S3Server("chaos", "chaos-key", "chaos-secret") as server:
        yield server
