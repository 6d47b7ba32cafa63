"""What a plan says of PUTs and GETs is what a run then sends."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulators.serving import Samples
from lib.config.errors import build
from lib.config.loaders import LOADER_CONFIGS
from lib.ingest.costs import cost_of, row_of
from tests.end_to_end.bucket import Bucket
from tests.faults.bench import Bench


@pytest.mark.parametrize("source", ["openorganelle", "epfl", "ebi", "flyem"])
def test_planned_requests_are_those_that_are_sent(
    samples: Samples, bucket: Bucket, tmp_path: Path, source: str
) -> None:
    settings = bucket.settings(lease_seconds=600.0)  # renewals depend on time
    bench = Bench(samples, tmp_path, source, uri=bucket.uri, store_settings=settings)
    ended = bench.run()
    assert ended.complete, ended.errors
    (plan,), (result,) = ended.plans, ended.results
    config = build(
        LOADER_CONFIGS[source], {**bench.settings, "output_dir": bucket.uri}, archive=source
    )
    cost = cost_of(plan, config, 1.5)
    assert abs(cost.store_puts - result.store_requests["PUT"]) <= 2
    asked = result.store_requests["GET"]  # a ledger is read once more where levels follow
    assert abs(cost.store_gets - asked) <= 0.4 * asked
    assert row_of(cost)["PUT, GET"] == f"{cost.store_puts}, {cost.store_gets}"
    folder = config.model_copy(update={"output_dir": str(tmp_path)})
    assert cost_of(plan, folder, 1.5).store_puts == 0
