"""The whole life of one volume, its record included: hold, fetch, convert, finish, let go.

The order of the steps, and what becomes of the record between them, is the same wherever they run.
Who runs them is given: functions of this process, or tasks of a scheduler.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lib.concurrency import cancel as stopping
from lib.geometry import ShapeZYX
from lib.ingest import stages
from lib.ingest.context import VolumeRequest, close_context, volume_context
from lib.ingest.costs import require_space
from lib.ingest.naming import require_own_name
from lib.ingest.record_tracker import RecordTracker
from lib.ingest.result import VolumeResult
from lib.records.lifecycle import RecordDict
from lib.volumes.job import VolumeJob
from lib.volumes.ledger import LedgerEntry

Batches = list[list[ShapeZYX]]
OnShare = Callable[[float], None]
"""Told how much of the volume's level 0 is done, from 0 to 1."""


def fetch_here(request: VolumeRequest) -> tuple[VolumeJob, Batches]:
    """Bring the raw files; returns the job and the batches of shards still to be made."""
    job = stages.fetch(request)
    return job, stages.batches(request, job)


def convert_here(request: VolumeRequest, job: VolumeJob, todo: Batches, on_share: OnShare) -> None:
    """Make the shards of all batches, several at once and without a pause between batches."""
    shards = [index for batch in todo for index in batch]
    lock, made = threading.Lock(), 0

    def one_more(entry: LedgerEntry) -> None:
        nonlocal made
        with lock:
            made += 1
            if made % len(todo[0]) == 0 or made == len(shards):
                on_share(made / len(shards))

    at_once = request.config.max_workers
    stages.convert_batch(request, job, shards, shards_at_once=at_once, on_shard=one_more)


@dataclass(frozen=True, slots=True)
class Steps:
    """Who runs the steps; by default this process does."""

    fetch: Callable[[VolumeRequest], tuple[VolumeJob, Batches]] = fetch_here
    convert: Callable[[VolumeRequest, VolumeJob, Batches, OnShare], Any] = convert_here
    finish: Callable[[VolumeRequest, VolumeJob], stages.IngestedVolume] = stages.finish_volume
    show: Callable[[VolumeRequest, RecordDict], Any] | None = None  # told of the complete record


def make_volume(request: VolumeRequest, run_name: str, steps: Steps | None = None) -> VolumeResult:
    """One volume, from its plan to its record.

    Errors become the record's and the result's; only a request to end the process is passed on,
    after the record says ``cancelled``.

    Parameters
    ----------
    run_name
        What the record calls the run that made it.
    """
    began = time.monotonic()
    tracker = RecordTracker(request, run_name)
    try:
        stopping.check()
        with stages.lock(request):
            result = _make(request, tracker, steps or Steps(), began)
        asked = volume_context(request).store_requests()
        return result.model_copy(update={"store_requests": asked})
    except Exception as error:  # nothing was begun, or the lock was lost
        return tracker.failed(error, time.monotonic() - began)
    finally:
        close_context(request)


def _make(
    request: VolumeRequest, tracker: RecordTracker, steps: Steps, began: float
) -> VolumeResult:
    """The part that needs the volume's lock; the record of a failure is written under it too."""
    try:
        require_own_name(volume_context(request).store, request.plan)
        known = tracker.complete_already()
        stages.cleanup(request, complete=known is not None)
        if known is not None:
            return known
        require_space(request.plan, request.config, volume_context(request).store)
        tracker.begin()
        labels = stages.labels_within(request)
        try:
            job, todo = steps.fetch(request)
            tracker.processing(job)
            if todo:
                steps.convert(request, job, todo, tracker.progress)
            tracker.saving()
            made = steps.finish(request, job)
        finally:  # in a bucket they are gone as soon as the old volume makes room
            tracker.labels_replaced(labels)
        result = tracker.complete(job, made, time.monotonic() - began)
        stages.cleanup(request, complete=True)
        if steps.show is not None:
            steps.show(request, tracker.record)
        return result
    except Exception as error:
        return tracker.failed(error, time.monotonic() - began)
    except BaseException as error:
        stopping.request_stop()
        tracker.failed(error, time.monotonic() - began)
        raise
