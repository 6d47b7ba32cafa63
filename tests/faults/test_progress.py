"""Progress while an archive is slow: bytes are told long before the shard that they belong to."""

from __future__ import annotations

from pathlib import Path

from emulators.control import Control
from emulators.serving import Samples
from lib.ingest.context import progress_events
from lib.ingest.result import ProgressEvent, subscribe
from tests.faults.bench import Bench


def test_bytes_are_told_while_no_shard_is_done(
    samples: Samples, faults: Control, tmp_path: Path
) -> None:
    faults.set_latency("dvid", bytes_per_second=1_000_000)
    told: list[ProgressEvent] = []
    with subscribe(told.append, progress_events, every_s=0.02):
        ended = Bench(samples, tmp_path, "flyem", crop_size=(160, 160, 160)).run()
    assert ended.complete, ended.errors
    waiting = [one.received_bytes for one in told if one.done_shards == 0]
    between = {count for count in waiting if 0 < count < told[-1].expected_bytes}
    assert len(between) >= 2, waiting
    assert waiting == sorted(waiting)
    assert told[-1].done_shards == told[-1].total_shards > 0


def test_a_volume_that_is_only_looked_at_is_not_told_of(samples: Samples, tmp_path: Path) -> None:
    bench = Bench(samples, tmp_path, "flyem")
    assert bench.run().complete
    told: list[ProgressEvent] = []
    with subscribe(told.append, progress_events, every_s=0.001):
        kept = bench.run()
    assert not kept.results[0].made
    assert told == []
