"""Batches: gone on with where they were begun before, and without a pause between them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from emulators.serving import Samples
from lib.config.errors import build
from lib.config.loaders import LOADER_CONFIGS
from lib.errors import MissingChunksError, SourceChangedError
from lib.ingest import life, stages
from lib.ingest.context import VolumeRequest, close_context, volume_context
from lib.ingest.previews import PreviewRenderer
from lib.storage.base import StoreSettings
from lib.volumes.job import VolumeJob
from lib.volumes.ledger import Ledger, LedgerEntry


def request_of(samples: Samples, tmp_path: Path) -> VolumeRequest:
    settings = {**samples.endpoints["OPENORGANELLE"], "shard_mb": 0.1}
    config = build(LOADER_CONFIGS["openorganelle"], settings, archive="openorganelle")
    (plan,) = stages.plan_source("openorganelle", config, tmp_path).plans
    return VolumeRequest(plan, config, str(tmp_path / "data"), StoreSettings(), tmp_path, "a run")


def test_one_process_makes_the_batches_of_a_volume_in_one_go(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two calls the archive would not be asked until the last shard is written."""
    request = request_of(samples, tmp_path)
    calls, shares, convert_batch = list[int](), list[float](), stages.convert_batch

    def counted(*arguments: Any, **named: Any) -> stages.Batch:
        calls.append(len(arguments[2]))
        return convert_batch(*arguments, **named)

    monkeypatch.setattr(stages, "convert_batch", counted)
    try:
        job = stages.fetch(request)
        (units,) = stages.batches(request, job)
        assert len(units) == 4
        life.convert_here(request, job, [units[:1], units[1:2], units[2:]], shares.append)
    finally:
        close_context(request)
    assert calls == [len(units)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) >= 3


def test_a_batch_that_is_tried_again_makes_only_what_is_left_of_it(
    samples: Samples, tmp_path: Path
) -> None:
    request = request_of(samples, tmp_path)
    made: list[LedgerEntry] = []
    try:
        job = stages.fetch(request)
        (units,) = stages.batches(request, job)
        stages.convert_batch(request, job, units[:2])
        stages.convert_batch(request, job, units, on_shard=made.append)
        assert sorted(entry.index_zyx for entry in made) == units[2:]
        stages.convert_batch(request, job, units, on_shard=made.append)
        assert len(made) == len(units) - 2
    finally:
        close_context(request)


def converted(request: VolumeRequest) -> VolumeJob:
    job = stages.fetch(request)
    stages.convert_batch(request, job, list(job.grid.shards()))
    return job


def test_all_but_publication_is_made_during_the_last_look_at_the_source(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And publication waits for it: of a source that has changed nothing is left."""
    request = request_of(samples, tmp_path)
    drawn, seen = threading.Event(), list[bool]()

    def thumbnail(*_: object) -> None:
        drawn.set()

    def last_look(*_: object) -> None:
        seen.append(drawn.wait(60))
        raise SourceChangedError("the array changed while it was read")

    monkeypatch.setattr(PreviewRenderer, "thumbnail", thumbnail)
    try:
        with stages.lock(request):
            job = converted(request)
            context = volume_context(request)
            monkeypatch.setattr(type(context.archive), "verify_source_unchanged", last_look)
            with pytest.raises(SourceChangedError):
                stages.finish_volume(request, job)
        assert seen == [True]
        assert context.store.size(f"{job.final_key}/zarr.json") is None
        assert Ledger(context.store, job).pending(0, job.grid.shards()) == [*job.grid.shards()]
    finally:
        close_context(request)


def test_that_the_source_has_changed_is_told_before_what_came_of_it(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(samples, tmp_path)

    def changed(*_: object) -> None:
        raise SourceChangedError("the array changed while it was read")

    def holes(*_: object, **__: object) -> None:
        raise MissingChunksError("the archive lacks chunks")

    monkeypatch.setattr(stages, "finish", holes)
    try:
        with stages.lock(request):
            job = converted(request)
            with pytest.raises(MissingChunksError):
                stages.finish_volume(request, job)
            archive = type(volume_context(request).archive)
            monkeypatch.setattr(archive, "verify_source_unchanged", changed)
            with pytest.raises(SourceChangedError):
                stages.finish_volume(request, job)
    finally:
        close_context(request)
