"""Pauses: a run is stopped past its lease, another one takes over and finishes, the first goes on.

All sources at once, into a bucket. The next run has other settings: other shards, or other bytes
under the same names; sometimes the very ones that the bucket held before. When it has ended, and
again when the first run has, each volume must be what one run alone would have made, byte for byte,
and nothing else may be there. That one is the next run, or the first where it began that volume
only after its pause.
"""

from __future__ import annotations

import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.chaos import judge
from tests.chaos.harness import notes_of
from tests.chaos.pausing import ANY_MOMENT, BEFORE, BODY, POINTS, SHARD, Pause
from tests.chaos.places import Destination, bucket_where_wanted, stand_ins
from tests.chaos.report import PauseReport
from tests.chaos.worker import ARCHIVES, SMALL, Task
from tests.chaos.zygote import Zygote

LEASE_S = 1.0  # of the run that is paused
_LONG_LEASE_S = 120.0  # of all others: a busy machine must not end theirs
Variant = dict[str, dict[str, Any]]
VARIANTS: dict[str, Variant] = {
    "small shards": {},
    "larger shards": {s: {"shard_mb": 2 * SMALL[s]["shard_mb"]} for s in ARCHIVES},
    "uncompressed": {s: {"codec": "none"} for s in ARCHIVES},
}
_MOST = {BEFORE: 120, BODY: 400, "a write, signed": 120, SHARD: 80}
_FEW = 5
_ENOUGH = 4  # times the pauses that were asked for
_TOLD = 6  # of all that is wrong with one round
# What a run says that lost its lease; everything else is an error of the campaign.
_EXPECTED = re.compile(
    r"the lease on .* is over|is being worked on by|another run has changed it"
    r"|another run writes|something else is there|what was to be replaced is gone"
)


class PauseCampaign:
    """Rounds of one pause each, until there are enough."""

    def __init__(
        self,
        zygote: Zygote,
        endpoints: dict[str, dict[str, str]],
        destination: Destination,
        folder: Path,
        *,
        seed: int,
    ) -> None:
        self._zygote, self._endpoints, self._destination = zygote, endpoints, destination
        self._folder, self._random = folder, random.Random(seed)
        self.report = PauseReport(seed, "s3")
        self._references: dict[str, judge.Reference] = {}

    def run(self, pauses: int, tell: Callable[[str], None] = lambda text: None) -> PauseReport:
        """Pause until `pauses` runs were stopped in the middle of their work.

        Until one of them was refused something, too.
        """
        began, report, told = time.monotonic(), self.report, 0
        warm = self._task("warm-up", "small shards")
        sources = tuple(source for source in ARCHIVES if source != "openorganelle")
        away = str(self._folder / "warm-up")
        self._zygote.warm_up(replace(warm, sources=sources, data_uri=away, store={}))
        for variant in VARIANTS:
            self._references[variant] = self._undisturbed(variant)
        # First where a volume is surely in the making, of which the paused run must be refused.
        points, number = [SHARD], 1
        while report.kills < pauses or not (report.refused or report.kills >= _ENOUGH * pauses):
            self._round(points.pop(self._random.randrange(len(points))), number)
            points, number = points or [*POINTS], None
            report.seconds = round(time.monotonic() - began, 1)
            tell(
                f"{report.kills} pauses in {report.seconds:.0f} s: {report.refused} volumes "
                f"refused to the paused run, {len(report.wrong)} wrong"
            )
            for text in report.wrong[told:]:
                tell(f"  {text}")
            told = len(report.wrong)
        return report

    def _undisturbed(self, variant: str) -> judge.Reference:
        name = _plain(f"undisturbed-{variant}")
        task = self._task(name, variant)
        _, seconds = self._zygote.run(task, None)
        notes = notes_of(task)
        if errors := [what for kind, what in notes if kind == "error"]:
            raise RuntimeError(f"the undisturbed run failed: {errors}")
        store = self._destination.store(name)
        units = tuple(what for kind, what in notes if kind == "unit")
        return judge.Reference(judge.digests(store), seconds, units)

    def _round(self, point: str, number: int | None) -> None:
        """One pause, where the run comes so far; at that point for the `number`-th time, or any."""
        report, name = self.report, f"round-{self.report.rounds}"
        report.rounds += 1
        first, second = self._random.sample(sorted(VARIANTS), 2)
        before = self._random.choice([None, *(v for v in VARIANTS if v != first)])
        if before is not None:
            self._copy(_plain(f"undisturbed-{before}"), name)
        pause = Pause(
            point,
            number or self._random.randint(1, _MOST.get(point, _FEW)),
            self._random.uniform(0.0, self._references[first].seconds),
        )
        paused = self._task(f"{name}-paused", first, to=name, lease_seconds=LEASE_S)
        process = self._zygote.run_until(paused, pause)
        if process is None:
            report.not_reached += 1
            return
        what = f"{name} ({first}, then {second}, over {before or 'nothing'}; {point}" + (
            f" after {pause.after:.2f} s)" if point == ANY_MOMENT else f" {pause.number})"
        )
        try:
            taking = self._task(f"{name}-taking", second, to=name)
            self._zygote.run(taking, None)
            found = self._what_is_wrong(name, (second,), f"{what}, before it went on")
        finally:
            self._zygote.go_on(process, paused)
        report.kills += 1
        report.kills_by_format[point] += 1
        found += self._what_is_wrong(name, (second, first), what)
        report.violations += found
        errors = [error for kind, error in notes_of(paused) if kind == "error"]
        report.refused += len(errors)
        report.errors += [f"{what}: {e}" for e in errors if not _EXPECTED.search(e)]
        report.errors += [f"{what}: next: {e}" for kind, e in notes_of(taking) if kind == "error"]
        shutil.rmtree(self._folder / "attempts", ignore_errors=True)

    def _what_is_wrong(self, name: str, variants: tuple[str, ...], what: str) -> list[str]:
        """How the volumes differ from what one of these variants is, each volume for itself."""
        store = self._destination.store(name)
        digests, wanted = judge.digests(store), dict[str, str]()
        for source in ARCHIVES:
            there = _of_source(digests, source)
            made = [_of_source(self._references[v].digests, source) for v in variants]
            wanted |= there if there in made else made[0]
        reference = judge.Reference(wanted, 0.0, ())
        found = judge.differences(digests, reference) + judge.violations(store, reference)
        return [f"{what}: {text}" for text in found[:_TOLD]]

    def _copy(self, source: str, target: str) -> None:
        """What an earlier run had made."""
        here, there = self._destination.store(source), self._destination.store(target)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: there.put(item.key, here.get(item.key)), here.list()))

    def _task(
        self,
        name: str,
        variant: str,
        to: str | None = None,
        lease_seconds: float = _LONG_LEASE_S,
    ) -> Task:
        here = self._folder / "attempts" / _plain(name)
        here.mkdir(parents=True)
        task = self._destination.task(
            to or name,
            "zarr",
            self._endpoints,
            here,
            settings=VARIANTS[variant],
            lease_seconds=lease_seconds,
        )
        return replace(task, name=name)


def _of_source(digests: dict[str, str], source: str) -> dict[str, str]:
    return {key: digest for key, digest in digests.items() if key.startswith(f"{source}/")}


def _plain(name: str) -> str:
    return name.replace(" ", "-")


@contextmanager
def pause_campaign(seed: int) -> Iterator[PauseCampaign]:
    """Archives, a zygote and an empty bucket."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as made:
        folder = Path(made)
        with (
            stand_ins(folder / "samples") as endpoints,
            Zygote() as zygote,
            bucket_where_wanted("s3") as server,
        ):
            place = Destination(folder / "stores", server)
            yield PauseCampaign(zygote, endpoints, place, folder, seed=seed)
