"""A mirror's nodes describe one file in two ways: nothing is made twice, and nothing is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulators.control import Control
from emulators.serving import Samples
from tests.faults.bench import Bench


@pytest.mark.parametrize("keep_raw", [True, False])
def test_a_volume_that_one_node_gave_is_known_when_another_answers(
    samples: Samples, faults: Control, tmp_path: Path, keep_raw: bool
) -> None:
    bench = Bench(samples, tmp_path, "epfl", keep_raw=keep_raw)
    first = bench.run()
    assert first.complete, first.errors
    faults.add("other_node", "epfl")
    again = bench.run()
    assert again.complete, again.errors
    assert not any(result.made for result in again.results)


def test_a_half_that_one_node_gave_is_finished_by_another(
    samples: Samples, faults: Control, tmp_path: Path
) -> None:
    bench = Bench(samples, tmp_path, "epfl", chunk_zyx=(4, 32, 64), shard_mb=0.03, keep_raw=False)
    faults.add("status_503", "epfl", skip=12, methods=["GET"])
    half = bench.run()
    assert half.errors
    assert half.shards_made
    faults.clear()
    faults.add("other_node", "epfl")
    rest = bench.run()
    assert rest.complete, rest.errors
    faults.clear()
    whole = Bench(samples, tmp_path / "whole", "epfl", chunk_zyx=(4, 32, 64), shard_mb=0.03).run()
    assert half.shards_made + rest.shards_made == whole.shards_made


def test_a_replaced_file_is_made_anew(samples: Samples, faults: Control, tmp_path: Path) -> None:
    bench = Bench(samples, tmp_path, "epfl")
    assert bench.run().complete
    faults.add("changed_file", "epfl", skip=0)
    again = bench.run()
    assert again.complete, again.errors
    assert all(result.made for result in again.results)
