"""A batch that was begun before, by a worker that died or by an earlier try, is gone on with."""

from __future__ import annotations

from pathlib import Path

from emulators.serving import Samples
from lib.config.errors import build
from lib.config.loaders import LOADER_CONFIGS
from lib.ingest import stages
from lib.ingest.request import VolumeRequest
from lib.storage.base import StoreSettings
from lib.volumes.ledger import LedgerEntry


def test_a_batch_that_is_tried_again_makes_only_what_is_left_of_it(
    samples: Samples, tmp_path: Path
) -> None:
    settings = {**samples.endpoints["OPENORGANELLE"], "shard_mb": 0.1}
    config = build(LOADER_CONFIGS["openorganelle"], settings, archive="openorganelle")
    (plan,) = stages.plan_source("openorganelle", config, tmp_path).plans
    request = VolumeRequest(
        plan, config, str(tmp_path / "data"), StoreSettings(), tmp_path, "a run"
    )
    made: list[LedgerEntry] = []
    try:
        job = stages.fetch(request)
        (units,) = stages.batches(request, job)
        stages.convert_batch(request, job, units[:2])
        stages.convert_batch(request, job, units, on_shard=made.append)
        assert [entry.index_zyx for entry in made] == units[2:]
        stages.convert_batch(request, job, units, on_shard=made.append)
        assert len(made) == len(units) - 2
    finally:
        stages.close(request)
