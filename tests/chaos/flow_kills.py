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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos import dying_worker, judge
from tests.chaos.flow_run import as_environment
from tests.chaos.harness import notes_of
from tests.chaos.pace import Pace
from tests.chaos.places import Destination, bucket_where_wanted, stand_ins
from tests.chaos.report import FlowReport
from tests.chaos.seen import Seen
from tests.chaos.server import QuickServer, ServerKiller
from tests.chaos.worker import ARCHIVES, UNITS_AT_ONCE, Task

ROOT = Path(__file__).parents[2]


_MOST_WORKERS, _MOST_SERVERS = 16, 12  # killed in one run: it must come to its end
_MOST_ATTEMPTS = 30
_PATIENCE_S = 900.0  # with one run
_LOCKS = {".lock", ".dirlock"}
# Written from a record, times included, when all sources have ended; the undisturbed run has none.
_OF_THE_CATALOGUE = "-ro-crate-metadata.json"


class FlowCampaign:
    """Rounds of kills until there are enough of both kinds."""

    def __init__(
        self,
        server: QuickServer,
        endpoints: dict[str, dict[str, str]],
        destination: Destination,
        folder: Path,
        pace: Pace,
        *,
        seed: int,
        name: str,
    ) -> None:
        self._server, self._endpoints, self._destination = server, endpoints, destination
        self._pace = pace
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
        code = self._end_of(self._process(task, {}, "plain"))
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
        on_dask = (
            tuple(self._random.sample(sorted(ARCHIVES), self._pace.on_dask)) if workers > 0 else ()
        )
        seen = Seen()
        for attempt in range(_MOST_ATTEMPTS):
            task = self._task(name, output_format, attempt, on_dask)
            workers_left = min(workers, _MOST_WORKERS) - seen.workers
            servers_left = min(servers, _MOST_SERVERS) - seen.servers
            killer = ServerKiller(
                self._server, self._random, self._pace, max(0, servers_left), Path(task.log)
            )
            more = {dying_worker.KILLS: str(workers_left)}
            process = self._process(task, more)
            killer.start()
            code = self._end_of(process)
            killer.end()
            seen.take(notes_of(task), killer.kills, code)
            if code == 0:
                break
        self._judge(name, output_format, seen)

    def _judge(self, name: str, output_format: str, seen: Seen) -> None:
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
            dying_worker.LIFE_S: str(self._pace.worker_life),
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
        return self._destination.task(name, output_format, self._endpoints, here, on_dask)


def left_in(folder: Path) -> list[Path]:
    """What a run left in its temporary folder; Dask's own locks it clears itself the next time."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix not in _LOCKS]


@contextmanager
def flow_campaign(destination: str, seed: int, pace: Pace | None = None) -> Iterator[FlowCampaign]:
    """Archives, a server and an empty destination (``folder`` or ``s3``)."""
    pace = pace or Pace()
    with tempfile.TemporaryDirectory(prefix="chaos-") as made:
        folder = Path(made)
        with (
            stand_ins(folder / "samples", pace.first_byte) as endpoints,
            QuickServer(folder) as server,
            bucket_where_wanted(destination) as bucket,
        ):
            place = Destination(folder / "stores", bucket)
            yield FlowCampaign(server, endpoints, place, folder, pace, seed=seed, name=destination)
