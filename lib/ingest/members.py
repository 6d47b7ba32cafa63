"""Label images that are made with their image: one lock, one record, a volume of its own for each.

The classes of a crop of ground truth are many and small. Each gets its ledger, its proof and its
list of digests as any volume does, so that a run that was ended goes on with the class that it was
at; what they share is the image's lock, session and record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from lib.archives.base import service_of
from lib.concurrency import cancel as stopping
from lib.ingest.context import VolumeRequest, volume_context
from lib.ingest.kind import doubts_of_values
from lib.ingest.result import emit
from lib.plan import VolumePlan
from lib.storage.keys import VOLUME_SUFFIXES, labels_of, state_key
from lib.volumes.engine import convert, take_over
from lib.volumes.finish import SUMS_SUFFIX, PublishedVolume
from lib.volumes.job import ConcurrencyLimits, VolumeJob, make_job
from lib.volumes.ledger import Ledger, LedgerEntry

_told = logging.getLogger("macroscope")


@dataclass(frozen=True, slots=True)
class MadeMember:
    """A published label image of a group, and what the way to it left to be noted."""

    plan: VolumePlan
    job: VolumeJob
    published: PublishedVolume
    notes: tuple[str, ...] = ()


Publish = Callable[[VolumeRequest, VolumePlan, VolumeJob], tuple[object, PublishedVolume]]
"""Coarse levels, last look at the source, proof and publication of one of a request's volumes."""


def make_members(
    request: VolumeRequest, image_key: str, publish: Publish
) -> tuple[MadeMember, ...]:
    """Make every label image of a group, one after another; the caller holds the image's lock.

    Parameters
    ----------
    image_key
        Of the image, which is published already.
    publish
        What the image was published by.

    Raises
    ------
    SourceChangedError
        An array changed while it was read; what was made from the old one is discarded.
    IntegrityError, MissingChunksError, TransportError, ...
        As for any volume; the error says which label image. What is made by then is kept.
    """
    members = request.plan.members
    if members:
        _drop_others(request, image_key)
    made = []
    for number, plan in enumerate(members, start=1):
        stopping.check()
        made.append(_make(request, plan, publish))
        if request.config.verbose:
            _told.info("%s: label image %d of %d", request.volume_key, number, len(members))
    return tuple(made)


def clean_members(request: VolumeRequest, *, complete: bool) -> None:
    """Clear away what killed runs left of the label images; `complete`: their ledgers, too."""
    if not request.plan.members or request.config.output_format != "zarr":
        return
    store, plan = volume_context(request).store, request.plan
    states = [state_key(f"{plan.source}/{one.name}") for one in plan.members]
    there = set(store.list_folder(states[0].rpartition("/")[0]).folders)
    for state in (one for one in states if one in there):
        if complete:
            store.delete_tree(state)
        elif store.local_path(state) is not None:
            store.sweep_temporaries(state)
    volumes = {f"{one.name}{VOLUME_SUFFIXES[0]}" for one in plan.members}
    names = volumes | {name + SUMS_SUFFIX for name in volumes}
    image = f"{plan.source}/{plan.name}{VOLUME_SUFFIXES[0]}"
    store.sweep_temporaries(labels_of(image), names=names)


def _make(request: VolumeRequest, plan: VolumePlan, publish: Publish) -> MadeMember:
    context, config = volume_context(request), request.config
    archive, session, store = context.archive, context.session, context.store
    with archive.open(plan, config, session, context.raw) as reader:
        job = make_job(plan, reader, config)
        damaged = take_over(job, store)
        limits = ConcurrencyLimits(
            workers=config.max_workers,
            connections=session.limiter(service_of(archive, plan)).connections,
            shards=config.max_workers,
        )
        pending = Ledger(store, job).pending(0, job.grid.shards())
        emit(context.labels_done(found=len(job.grid), more=len(job.grid) - len(pending)))

        def finished(entry: LedgerEntry) -> None:
            emit(context.labels_done(more=1))

        convert(job, reader, store, pending, limits=limits, on_shard=finished)
    _, published = publish(request, plan, job)
    doubts = doubts_of_values(plan, published.statistics)
    if damaged:
        doubts.append(f"{len(damaged)} shards of an earlier run were damaged and made again")
    return MadeMember(plan, job, published, tuple(doubts))


def _drop_others(request: VolumeRequest, image_key: str) -> None:
    """Remove label images of an earlier run that asked for others: no record vouches for them."""
    store, group = volume_context(request).store, labels_of(image_key)
    wanted = {f"{group}/{one.name}{VOLUME_SUFFIXES[0]}" for one in request.plan.members}
    found = store.list_folder(group)
    for key in set(found.folders) - wanted:
        store.delete_tree(key)
    sums = {key + SUMS_SUFFIX for key in wanted}
    for item in found.objects:
        if item.key.endswith(SUMS_SUFFIX) and item.key not in sums:
            store.delete(item.key)
