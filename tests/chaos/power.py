"""Power cuts: a disk is copied at random moments and as a run ends, and the copies are judged.

All sources at once, in both formats by turns, into a folder. In a copy no record may say complete
whose volume does not verify, byte for byte. Some copies are gone on with: the next run must end as
an undisturbed one.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lib.storage.local import LocalStore
from lib.verify.volume import verify_store
from tests.chaos import judge
from tests.chaos.disk import CuttableDisk, where_copies_are_instant
from tests.chaos.harness import notes_of
from tests.chaos.places import stand_ins
from tests.chaos.report import PowerReport
from tests.chaos.worker import ARCHIVES, Task
from tests.chaos.zygote import Zygote

_MEGABYTES = 96
_CUTS_A_RUN = 5
_NAMES_ONLY = 8.0  # ext4 writes names after 5 seconds, what is in new files after 30
_GONE_ON_WITH = 5  # one cut of so many
_FORMATS = ("zarr", "npy")


class PowerCampaign:
    """Runs on one disk, with some cuts each, until there are enough."""

    def __init__(
        self,
        zygote: Zygote,
        endpoints: dict[str, dict[str, str]],
        disk: CuttableDisk,
        folder: Path,
        *,
        seed: int,
        durable: bool,
    ) -> None:
        self._zygote, self._endpoints, self._disk = zygote, endpoints, disk
        self._folder, self._random, self._durable = folder, random.Random(seed), durable
        self.report = PowerReport(seed, "folder" if durable else "folder, dest_durable off")
        self._references: dict[str, judge.Reference] = {}

    def run(self, cuts: int, tell: Callable[[str], None] = lambda text: None) -> PowerReport:
        """Cut the power until there were `cuts` cuts."""
        began, report, told = time.monotonic(), self.report, 0
        warm = self._task("warm-up", "zarr", self._folder / "warm-up")
        sources = tuple(source for source in ARCHIVES if source != "openorganelle")
        self._zygote.warm_up(replace(warm, sources=sources))
        for output_format in _FORMATS:
            self._references[output_format] = self._undisturbed(output_format)
        while report.kills < cuts:
            self._round(_FORMATS[report.rounds % len(_FORMATS)], cuts)
            report.seconds = round(time.monotonic() - began, 1)
            tell(
                f"{report.kills} cuts in {report.seconds:.0f} s: {report.complete} complete "
                f"volumes in the copies, {len(report.wrong)} wrong"
            )
            for text in report.wrong[told:]:
                tell(f"  {text}")
            told = len(report.wrong)
        return report

    def _undisturbed(self, output_format: str) -> judge.Reference:
        where = self._folder / f"undisturbed-{output_format}"
        task = self._task(where.name, output_format, where)
        _, seconds = self._zygote.run(task, None)
        if errors := [what for kind, what in notes_of(task) if kind == "error"]:
            raise RuntimeError(f"the undisturbed run failed: {errors}")
        return judge.Reference(judge.digests(LocalStore(where)), seconds, ())

    def _round(self, output_format: str, cuts: int) -> None:
        """One run on the disk, and what its copies hold; the last is of the moment it ended.

        However slow the machine, that one holds what the run called complete.
        """
        name = f"round-{self.report.rounds}"
        self.report.rounds += 1
        task = self._task(name, output_format, self._disk.mounted / name)
        last = 1.2 * self._references[output_format].seconds
        waits = [self._random.uniform(0, last) for _ in range(_CUTS_A_RUN - 1)]
        with ThreadPoolExecutor(1) as pool:
            began = time.monotonic()
            running: Future[tuple[bool, float]] = pool.submit(self._zygote.run, task, None)
            for wait in sorted(waits):
                if self.report.kills >= cuts - 1:
                    break
                time.sleep(max(0.0, began + wait - time.monotonic()))
                self._cut(name, output_format)
            running.result()
        if not self._durable:
            time.sleep(_NAMES_ONLY)
        self._cut(name, output_format)
        self.report.errors += [f"{name}: {e}" for kind, e in notes_of(task) if kind == "error"]
        shutil.rmtree(self._disk.mounted / name)

    def _cut(self, name: str, output_format: str) -> None:
        copy = self._disk.cut()
        self.report.kills += 1
        self.report.kills_by_format[output_format] += 1
        what = f"{name}, cut {self.report.kills}"
        with self._disk.after_the_cut(copy) as mounted:
            store = LocalStore(mounted / name)
            for verdict in verify_store(store, digests=True):
                if verdict.status == "complete":
                    self.report.complete += 1
                    if verdict.problems:
                        said = f"{what}: {verdict.record_key}: {verdict.problems[0]}"
                        self.report.violations.append(said)
            if self.report.kills % _GONE_ON_WITH == 0:
                self._go_on(mounted / name, f"{name}-{self.report.kills}", output_format)

    def _go_on(self, where: Path, name: str, output_format: str) -> None:
        """Let the next run end what the cut left, and compare."""
        self.report.gone_on_with += 1
        copy = self._folder / name
        if where.exists():
            shutil.copytree(where, copy)
        task = self._task(f"{name}-next", output_format, copy)
        # The zygote is at work on the disk itself.
        with Zygote() as another:
            another.run(task, None)
        self.report.errors += [f"{name}: {e}" for kind, e in notes_of(task) if kind == "error"]
        found = judge.differences(judge.digests(LocalStore(copy)), self._references[output_format])
        self.report.differences += [f"{name}: {text}" for text in found]
        shutil.rmtree(copy)

    def _task(self, name: str, output_format: str, where: Path) -> Task:
        here = self._folder / "attempts" / name
        here.mkdir(parents=True)
        return Task(
            endpoints=self._endpoints,
            data_uri=str(where),
            output_format=output_format,
            scratch=str(here / "scratch"),
            log=str(here / "log"),
            store={"durable": self._durable},
            name=name,
        )


@contextmanager
def power_campaign(seed: int, *, durable: bool = True) -> Iterator[PowerCampaign]:
    """Archives, a zygote and a disk."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as made:
        folder = Path(made)
        with (
            stand_ins(folder / "samples") as endpoints,
            Zygote() as zygote,
            where_copies_are_instant(folder) as instant,
            CuttableDisk(instant, _MEGABYTES) as disk,
        ):
            yield PowerCampaign(zygote, endpoints, disk, folder, seed=seed, durable=durable)
