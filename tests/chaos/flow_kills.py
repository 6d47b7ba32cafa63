"""Kills of what works around a run: its Dask workers, its Prefect server.

Every round is a run of the whole parent flow, some of its sources on local Dask clusters, against a
server with its database on a file. Workers die by distributed's own chaos plugin, the server by
SIGKILL, while the run is at work; it must end with every byte as an undisturbed run, or with a
named error and be completed by the next one.
"""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lib.archives.registry import REGISTRY
from tests.chaos import dying_worker, judge
from tests.chaos.flow_run import as_environment
from tests.chaos.harness import notes_of
from tests.chaos.places import Destination, bucket_where_wanted, stand_ins
from tests.chaos.report import FlowReport
from tests.chaos.server import QuickServer
from tests.chaos.worker import UNITS_AT_ONCE, Task

ROOT = Path(__file__).parents[2]
FIRST_BYTE_S = 1.0  # what an archive takes to answer, so that there is a run to disturb
WORKER_LIFE_S = 15.0  # on average; a worker takes three seconds to start, ten on a busy machine
SERVER_LIFE_S = 8.0  # at most, counted from its start or from its first answer
SERVER_AWAY_S = 3.0  # at most
_MOST_WORKERS, _MOST_SERVERS = 16, 12  # killed in one run: it must come to its end
_MOST_ATTEMPTS = 10
_PATIENCE_S = 900.0
# Written from a record, times included, when all sources have ended; the undisturbed run has none.
_OF_THE_CATALOGUE = "-ro-crate-metadata.json"


class ServerKiller(threading.Thread):
    """Kills a server at random moments, starting ones too, and brings it back after a while."""

    def __init__(self, server: QuickServer, chance: random.Random, kills: int) -> None:
        super().__init__(daemon=True)
        self._server, self._random, self._left = server, chance, kills
        self._over = threading.Event()
        self.kills = 0

    def run(self) -> None:
        if self._over.wait(self._upto(2 * SERVER_LIFE_S)):  # a run takes its time to begin
            return
        while self.kills < self._left and not self._over.wait(self._upto(SERVER_LIFE_S)):
            self._server.kill()
            self.kills += 1
            self._over.wait(self._upto(SERVER_AWAY_S))
            self._server.start()
            if self._random.random() < 0.75:
                self._server.wait_until_healthy()

    def end(self) -> None:
        """Kill no more; the server is up afterwards."""
        self._over.set()
        self.join()
        self._server.wait_until_healthy()

    def _upto(self, seconds: float) -> float:
        return self._random.uniform(0.0, seconds)


class FlowCampaign:
    """Rounds of kills until there are enough of both kinds."""

    def __init__(
        self,
        server: QuickServer,
        endpoints: dict[str, dict[str, str]],
        destination: Destination,
        folder: Path,
        *,
        seed: int,
        name: str,
    ) -> None:
        self._server, self._endpoints, self._destination = server, endpoints, destination
        self._folder, self._random = folder, random.Random(seed)
        self.report = FlowReport(seed, name)
        self._references: dict[str, judge.Reference] = {}

    def run(
        self,
        workers: int,
        servers: int,
        tell: Callable[[str], None] = lambda text: None,
        *,
        seconds: float = math.inf,
    ) -> FlowReport:
        """Kill until so many workers and so many servers have died, or the time is over."""
        began, report, told = time.monotonic(), self.report, 0
        formats = self._destination.formats
        while (report.workers < workers or report.servers < servers) and report.seconds < seconds:
            output_format = formats[report.rounds % len(formats)]
            if output_format not in self._references:
                self._references[output_format] = self._undisturbed(output_format)
            self._round(output_format, workers - report.workers, servers - report.servers)
            report.seconds = round(time.monotonic() - began, 1)
            tell(
                f"{report.seconds:.0f} s: {report.workers} workers, {report.servers} servers "
                f"killed, {report.units_redone} units redone, {len(report.wrong)} wrong"
            )
            for text in report.wrong[told:]:
                tell(f"  {text}")
            told = len(report.wrong)
        return report

    def _undisturbed(self, output_format: str) -> judge.Reference:
        """The bytes, by a run without Prefect or Dask."""
        name = f"undisturbed-{output_format}"
        task = self._task(name, output_format, 0, ())
        began = time.monotonic()
        code = self._process(task, {}, "plain").wait(_PATIENCE_S)
        errors = [what for kind, what in notes_of(task) if kind == "error"]
        if code or errors:
            raise RuntimeError(f"the undisturbed run failed: {code}, {errors}")
        units = tuple(what for kind, what in notes_of(task) if kind == "unit")
        found = judge.digests(self._destination.store(name))
        return judge.Reference(found, time.monotonic() - began, units)

    def _round(self, output_format: str, workers: int, servers: int) -> None:
        """Run until everything is made, with kills on the way, and compare."""
        report = self.report
        name = f"round-{report.rounds}"
        report.rounds += 1
        on_dask = tuple(self._random.sample(sorted(REGISTRY), 2)) if workers > 0 else ()
        seen = _Seen()
        for attempt in range(_MOST_ATTEMPTS):
            task = self._task(name, output_format, attempt, on_dask)
            workers_left = min(workers, _MOST_WORKERS) - seen.workers
            servers_left = min(servers, _MOST_SERVERS) - seen.servers
            killer = ServerKiller(self._server, self._random, max(0, servers_left))
            more = {dying_worker.KILLS: str(workers_left)}
            process = self._process(task, more)
            killer.start()
            code = self._end_of(process)
            killer.end()
            seen.take(notes_of(task), killer.kills, code)
            if code == 0:
                break
        self._judge(name, output_format, seen)

    def _judge(self, name: str, output_format: str, seen: _Seen) -> None:
        """Count what a round cost, and look for what must not be."""
        report, reference = self.report, self._references[output_format]
        seen.add_to(report, output_format)
        report.errors += [f"{name}: {text}" for text in seen.errors]
        if seen.redone > (allowed := seen.workers + UNITS_AT_ONCE * seen.failed_runs):
            report.violations.append(f"{name}: {seen.redone} units redone, {allowed} in flight")
        store = self._destination.store(name)
        for item in store.list():
            if item.key.endswith(_OF_THE_CATALOGUE):
                store.delete(item.key)
        found = judge.differences(judge.digests(store), reference)
        found += [f"{key} is left over" for key in self._destination.rubbish(name)]
        attempts = (self._folder / "attempts").glob(f"{name}-*/tmp")
        found += [f"{path} is left over" for folder in attempts for path in left_in(folder)]
        report.differences += [f"{name}: {text}" for text in found]
        report.violations += [f"{name}: {text}" for text in judge.violations(store, reference)]
        if not found:
            self._destination.drop(name)

    def _process(
        self, task: Task, more: dict[str, str], *arguments: str
    ) -> subprocess.Popen[bytes]:
        """Begin a run, in a session and with a temporary folder of its own."""
        here = Path(task.log).parent
        (here / "tmp").mkdir()
        environment = {
            **self._server.environment,
            **as_environment(task),
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(here / "tmp"),
            "DASK_DISTRIBUTED__WORKER__PRELOAD": "tests.chaos.dying_worker",
            dying_worker.LIFE_S: str(WORKER_LIFE_S),
            **more,
        }
        with (here / "output").open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.flow_run", *arguments],
                env=environment,
                cwd=here,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _end_of(self, process: subprocess.Popen[bytes]) -> int | None:
        """The exit code; None where the run had to be ended."""
        try:
            return process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _task(self, name: str, output_format: str, attempt: int, on_dask: tuple[str, ...]) -> Task:
        here = self._folder / "attempts" / f"{name}-{attempt}"
        (here / "scratch").mkdir(parents=True)
        return Task(
            endpoints=self._endpoints,
            data_uri=self._destination.uri(name),
            output_format=output_format,
            scratch=str(here / "scratch"),
            log=str(here / "log"),
            store=self._destination.settings(),
            on_dask=on_dask,
        )


class _Seen:
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
            self.errors.append(f"the run did not end in {_PATIENCE_S:.0f} s")
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


def left_in(folder: Path) -> list[Path]:
    """What a run left in its temporary folder; Dask's own locks are empty and always the same."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


@contextmanager
def flow_campaign(
    destination: str, seed: int, first_byte_s: float = FIRST_BYTE_S
) -> Iterator[FlowCampaign]:
    """Archives, a server and an empty destination (``folder`` or ``s3``)."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as made:
        folder = Path(made)
        with (
            stand_ins(folder / "samples", first_byte_s) as endpoints,
            QuickServer(folder) as server,
            bucket_where_wanted(destination) as bucket,
        ):
            place = Destination(folder / "stores", bucket)
            yield FlowCampaign(server, endpoints, place, folder, seed=seed, name=destination)
