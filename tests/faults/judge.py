"""How a cell ended: every voxel right, or a named error with nothing lost; nothing else passes."""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import SecretStr

from emulators.s3 import S3Server
from emulators.serving import Samples
from lib.errors import MacroscopeError
from lib.records.manager import schema_errors
from lib.storage.base import StoreSettings
from tests.archives.conftest import truth_of
from tests.faults.bench import Bench, Ended
from tests.faults.cells import Cell, Truth


@dataclass(frozen=True)
class Verdict:
    """``exact``, or the name of the error; and how often the fault went off."""

    ended: str
    fired: int


class Judge:
    """Proves cells. Volumes that were there before are made once for each lane, and copied."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._folder = tempfile.TemporaryDirectory(prefix="fault-matrix-")
        self._earlier: dict[str, Path] = {}
        self._server: S3Server | None = None
        self._address, self._cells = "", 0

    def close(self) -> None:
        self._folder.cleanup()
        if self._server is not None:
            self._server.stop()
        self._samples.control.clear()

    def prove(self, cell: Cell, folder: Path) -> Verdict:
        """Bring the fault about, look at what became of it, and run again without it.

        Raises
        ------
        AssertionError
            It ended in a third way.
        """
        self._samples.control.clear()
        bench = self.bench(cell, folder)
        with bench.at_end:
            return self._prove(cell, folder, bench)

    def _prove(self, cell: Cell, folder: Path, bench: Bench) -> Verdict:
        control = self._samples.control
        if cell.ends and cell.situation is None and not cell.mended and not cell.bucket:
            self._lay_earlier(cell, folder)
        before = _digests(bench)
        situation = cell.situation(self._samples, bench) if cell.situation else nullcontext()
        with situation:
            for one in cell.rules:
                control.add(**{"service": cell.lane.service, "match": cell.lane.match, **one})
            ended = bench.run()
            log, fired = control.counters.log(cell.lane.service), control.faults.fired()
        for one in cell.rules:
            assert fired.get(one["kind"]), f"the fault {one['kind']} never went off"
        control.clear()
        count = sum(fired.values())
        if not cell.ends:
            assert not ended.errors, f"no recovery: {ended.errors[0]!r} {ended.errors[0]}"
            is_exact(bench, ended, truth=cell.truth)
            _waited(cell, log)
            return Verdict("exact", count)
        assert ended.errors, "no error where one must come"
        says_what_failed(cell, ended.error)
        if cell.once:
            assert count == 1, f"a permanent error was asked for {count} times"
        assert _digests(bench) == before, "what was complete before was touched"
        if not cell.unwritable:
            _recorded(bench, ended)
        later = bench.run(**cell.mended)
        assert not later.errors, f"a later run fails: {later.errors[0]!r} {later.errors[0]}"
        is_exact(bench, later, holes=bool(cell.mended))
        if not cell.new_source:
            kept = sum(_shards(bench.record(plan)) for plan in later.plans) - later.shards_made
            assert kept == ended.shards_made, f"{ended.shards_made} shards done, {kept} kept"
        return Verdict(type(ended.error).__name__, count)

    def bench(self, cell: Cell, folder: Path) -> Bench:
        settings = {**cell.lane.settings, **cell.settings}
        place: dict[str, Any] = {}
        if cell.bucket:
            self._cells += 1
            place = {"uri": f"s3://volumes/{self._cells}", "store_settings": self._bucket()}
        return Bench(self._samples, folder, cell.lane.source, **place, **settings)

    def _bucket(self) -> StoreSettings:
        """A bucket with credentials, behind the stand-ins' control; started when needed."""
        if self._server is None:
            self._server = S3Server("volumes", key="macroscope", secret="kept-to-itself")
            self._server.start()
            self._address = self._samples.put_before(self._server)
        return StoreSettings(
            endpoint_url=self._address,
            key=SecretStr(self._server.key),
            secret=SecretStr(self._server.secret),
            attempts=4,
            timeout_seconds=5.0,
        )

    def _lay_earlier(self, cell: Cell, folder: Path) -> None:
        """The same volume, complete, from a run with another codec."""
        lane = cell.lane.name
        if lane not in self._earlier:
            made = Path(self._folder.name, f"{len(self._earlier)}")
            ended = self.bench(cell, made).run(codec="none")
            assert ended.complete, ended.errors
            shutil.rmtree(made / "data" / cell.lane.source / "downloads", ignore_errors=True)
            self._earlier[lane] = made
        shutil.copytree(self._earlier[lane], folder, dirs_exist_ok=True)


def is_exact(
    bench: Bench, ended: Ended, *, holes: bool = False, truth: Truth = lambda voxels: voxels
) -> None:
    """Records are complete, digests and documents hold, and every voxel is the archive's."""
    assert ended.complete, [one.status for one in ended.results]
    for plan in ended.plans:
        assert bench.problems(plan) == []
        expected = truth(truth_of(plan))
        voxels = bench.voxels(plan)
        quality = bench.record(plan)["metadata"]["quality"]
        assert (quality["completeness_score"] < 1) == holes
        if holes:
            assert quality["missing_chunks"]
            expected = np.where(voxels == 0, 0, expected)
            assert 0 < (voxels == 0).sum() < voxels.size
        np.testing.assert_array_equal(voxels, expected)


def says_what_failed(cell: Cell, error: BaseException) -> None:
    assert isinstance(error, cell.ends), f"another error: {error!r} {error}"
    assert isinstance(error, MacroscopeError)
    assert cell.said in str(error), str(error)
    assert error.archive == cell.lane.source, f"no archive in: {error}"
    assert error.location, f"no location in: {error}"
    assert error.advice, f"no advice in: {error}"


def _recorded(bench: Bench, ended: Ended) -> None:
    """A record that was begun is failed and says why; none says complete."""
    for plan, result in zip(ended.plans, ended.results, strict=False):
        if result.status == "complete":
            continue
        record = bench.record(plan)
        assert schema_errors(record) == []
        assert record["status"] == "failed"
        assert record["error"]["type"] == type(ended.error).__name__
        assert record["error"]["message"]


def _shards(record: dict[str, Any]) -> int:
    level = record["metadata"]["technical"]["levels"][0]
    return math.prod(math.ceil(n / s) for n, s in zip(level["shape"], level["shard"], strict=True))


def _digests(bench: Bench) -> dict[str, str]:
    store = bench.store()
    return {key: hashlib.sha256(store.get(key)).hexdigest() for key in bench.published()}


def _waited(cell: Cell, log: list[Any]) -> None:
    """Where a server asked for patience, its own log shows it."""
    asked = [one["retry_after"] for one in cell.rules if "retry_after" in one]
    if asked and cell.lane.service != "s3":  # obstore hides the header: backing off must do
        times = [line.time for line in log]
        gaps = [b - a for a, b in pairwise(times)]
        assert max(gaps) >= 0.95 * asked[0], f"Retry-After {asked[0]} s, waited {max(gaps):.2f} s"
