"""The whole life of one volume, its record included: hold, fetch, convert, finish, let go.

The order of the steps, and what becomes of the record between them, is the same wherever they run.
Who runs them is given: functions of this process, or tasks of a scheduler.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lib.concurrency import cancel as stopping
from lib.geometry import ShapeZYX
from lib.ingest import stages
from lib.ingest.costs import require_space
from lib.ingest.keeper import Keeper
from lib.ingest.order import WorkOrder
from lib.ingest.result import VolumeResult
from lib.ingest.workplace import workplace
from lib.records.model import Record
from lib.volumes.job import VolumeJob

Batches = list[list[ShapeZYX]]
OnShare = Callable[[float], None]
"""Told how much of the volume's level 0 is done, from 0 to 1."""


def fetch_here(order: WorkOrder) -> tuple[VolumeJob, Batches]:
    """Bring the raw files; returns the job and the batches of shards still to be made."""
    job = stages.fetch(order)
    return job, stages.batches(order, job)


def convert_here(order: WorkOrder, job: VolumeJob, todo: Batches, on_share: OnShare) -> None:
    """Make all batches, one after another, several shards at once."""
    for number, units in enumerate(todo, start=1):
        stages.convert_batch(order, job, units, shards_at_once=order.config.max_workers)
        on_share(number / len(todo))


def _show_nothing(order: WorkOrder, record: Record) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Steps:
    """Who runs the steps; by default this process does."""

    fetch: Callable[[WorkOrder], tuple[VolumeJob, Batches]] = fetch_here
    convert: Callable[[WorkOrder, VolumeJob, Batches, OnShare], Any] = convert_here
    finish: Callable[[WorkOrder, VolumeJob], stages.Made] = stages.finish_volume
    show: Callable[[WorkOrder, Record], Any] = _show_nothing  # told of the complete record


def make_volume(order: WorkOrder, run_name: str, steps: Steps | None = None) -> VolumeResult:
    """One volume, from its plan to its record.

    Errors become the record's and the result's; only a request to end the process is passed on,
    after the record says ``cancelled``.

    Parameters
    ----------
    run_name
        What the record calls the run that made it.
    """
    began = time.monotonic()
    keeper = Keeper(order, run_name)
    try:
        stopping.check()
        with stages.hold(order):
            result = _make(order, keeper, steps or Steps(), began)
        return result.model_copy(update={"store_requests": stages.store_requests(order)})
    except Exception as error:  # nothing was begun, or the lock was lost
        return keeper.failed(error, time.monotonic() - began)
    finally:
        stages.leave(order)


def _make(order: WorkOrder, keeper: Keeper, steps: Steps, began: float) -> VolumeResult:
    """The part that needs the volume's lock; the record of a failure is written under it too."""
    try:
        keeper.require_own_name()
        known = keeper.complete_already()
        stages.tidy(order, complete=known is not None)
        if known is not None:
            return known
        require_space(order.plan, order.config, workplace(order).store)
        keeper.begin()
        job, todo = steps.fetch(order)
        keeper.processing(job)
        if todo:
            steps.convert(order, job, todo, keeper.progress)
        keeper.saving()
        made = steps.finish(order, job)
        result = keeper.complete(job, made, time.monotonic() - began)
        stages.tidy(order, complete=True)
        steps.show(order, keeper.record)
        return result
    except Exception as error:
        return keeper.failed(error, time.monotonic() - began)
    except BaseException as error:
        stopping.request_stop()
        keeper.failed(error, time.monotonic() - began)
        raise
