"""The life of one volume: prepare, fetch, convert, finish.

Plain functions on a request, one for each task of the schedule. They know archives, readers,
the engine and the store, but neither records nor Prefect.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lib.archives.base import service_of
from lib.archives.registry import archive
from lib.concurrency.bounded_map import GRACE_S, Crew, result_of
from lib.config.loaders import LoaderConfig
from lib.errors import (
    MacroscopeError,
    NameTakenError,
    NotFoundError,
    SourceChangedError,
    StoppedError,
)
from lib.geometry import ShapeZYX
from lib.ingest.coarse import fit_plan
from lib.ingest.context import VolumeRequest, open_session, volume_context
from lib.ingest.kind import doubts_of_values, settle_kind
from lib.ingest.members import MadeMember, clean_members, make_members
from lib.ingest.naming import name_plans
from lib.ingest.previews import PreviewRenderer
from lib.ingest.result import emit
from lib.plan import VolumePlan
from lib.present.preview import preview_key
from lib.storage.base import Store
from lib.storage.keys import VOLUME_SUFFIXES, labels_of, state_key
from lib.transport.partial import Fetched
from lib.volumes import kernels
from lib.volumes.downsample import make_coarse_levels
from lib.volumes.engine import convert, take_over
from lib.volumes.finish import SUMS_SUFFIX, PublishedVolume, finish
from lib.volumes.job import ConcurrencyLimits, VolumeJob, make_job
from lib.volumes.ledger import Ledger, LedgerEntry
from lib.volumes.ome import Draw

_log = logging.getLogger(__name__)
_told = logging.getLogger("macroscope")  # what a run has to tell, see `flows.logs`

MAX_BATCHES = 128
BATCH_BYTES = 256 * 2**20
"""Raw bytes of a batch, at most about: large enough that scheduling costs nothing beside it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch of shards came to.

    Attributes
    ----------
    worker
        The process that made it.
    traffic, store_requests
        What that process has asked of archive and destination for this volume, in all.
    """

    worker: str
    traffic: dict[str, int]
    store_requests: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sources:
    """What a source was planned into; ``skipped`` volumes exceed ``max_array_size_mb``.

    Of several addresses ``failed`` says why some have no plan. ``requests`` is what the archive was
    asked for; a run asks it once more.
    """

    plans: tuple[VolumePlan, ...]
    skipped: tuple[VolumePlan, ...]
    failed: tuple[MacroscopeError, ...] = ()
    requests: int = 0


def plan_source(
    source: str, config: LoaderConfig, scratch_dir: Path, store: Store | None = None
) -> Sources:
    """Ask the archive what there is; nothing but metadata is fetched.

    Parameters
    ----------
    store
        Where the volumes will lie; their names are then no other source's there. A dry run goes on
        without it where it cannot be read.

    Raises
    ------
    NameTakenError
        The archive gives one volume twice.
    ConfigError
        Labels are demanded of voxels that are none.
    MacroscopeError
        The archive's or the store's own.
    """
    if not config.dry_run:  # what is planned will be made: best while the archive is asked
        kernels.load_meanwhile("uint8", labels=False)
    with open_session(config, source, scratch_dir=scratch_dir) as session:
        try:
            plans, failed = archive(source).plan_possible(config, session)
        except MacroscopeError as error:
            raise error.located(archive=source) from error.__cause__
        requests = sum(one["requests"] for one in session.counters.snapshot().values())
    plans = [_settled(plan, config) for plan in plans]
    fitted = [fit_plan(plan, config) for plan in plans]
    # Those that are left out take part, so that the names of the others do not depend on it.
    every = [fit or plan for plan, fit in zip(plans, fitted, strict=True)]
    named = within_images(_named(source, every, config, store), config)
    named = [with_members(plan) for plan in named]
    made = [fit is not None for fit in fitted]
    return Sources(
        tuple(plan for plan, kept in zip(named, made, strict=True) if kept),
        tuple(plan for plan, kept in zip(named, made, strict=True) if not kept),
        tuple(failed),
        requests,
    )


def _settled(plan: VolumePlan, config: LoaderConfig) -> VolumePlan:
    """The plan, and those of the label images in it, with their kind decided."""
    members = tuple(settle_kind(member, config) for member in plan.members)
    settled = settle_kind(plan.alone, config)
    return settled.model_copy(update={"members": members}) if members else settled


def with_members(plan: VolumePlan) -> VolumePlan:
    """The plan whose label images lie in its group ``labels``, each called as image and class are.

    Image and lock have their name for themselves, so nothing else is called like its members.
    """
    if not plan.members:
        return plan
    within = _final_key(plan)
    members = [
        member.model_copy(update={"name": f"{plan.name}.{member.name}", "within": within})
        for member in plan.members
    ]
    return plan.model_copy(update={"members": tuple(members), "labelled": True})


def within_images(plans: list[VolumePlan], config: LoaderConfig) -> list[VolumePlan]:
    """The same plans; labels of an image among them know the volume that they will lie in."""
    images = {plan.path_in_source: plan for plan in plans if plan.image_path is None}
    wanted = {plan.image_path for plan in plans}
    placed = []
    for plan in plans:
        image = images.get(plan.image_path) if plan.image_path is not None else None
        if image is not None and config.output_format == "zarr":
            within = _final_key(image)
            plan = plan.model_copy(update={"within": within})
        elif plan.path_in_source in wanted:
            plan = plan.model_copy(update={"labelled": True})
        placed.append(plan)
    return placed


def _named(
    source: str, plans: list[VolumePlan], config: LoaderConfig, store: Store | None
) -> list[VolumePlan]:
    try:
        return name_plans(plans, store)
    except MacroscopeError as error:
        final = isinstance(error, NameTakenError | StoppedError)
        if final or not config.dry_run or store is None:
            raise error.located(archive=source) from error.__cause__
        _log.warning("names are planned without the store, which cannot be read: %s", error)
        return name_plans(plans, None)


def lock(request: VolumeRequest) -> AbstractContextManager[None]:
    """The volume's lock: one run works, another is told who holds it."""
    return volume_context(request).store.lock(request.volume_key, request.holder)


def fetch(request: VolumeRequest) -> VolumeJob:
    """Bring the raw files, fit the grid to them, and prove what an earlier run left.

    Returns
    -------
    VolumeJob
        The same for the same source and settings, whatever was done before.
    """
    context, plan = volume_context(request), request.plan
    if plan.within is not None and context.store.size(f"{plan.within}/zarr.json") is None:
        raise NotFoundError(
            "the image of these labels was not made",
            archive=plan.source,
            location=plan.within,
            advice="See why the image failed, then run again",
        )
    context.begun = True
    kernels.load_meanwhile(plan.dtype, labels=plan.kind == "labels")
    context.archive.fetch(plan, request.config, context.session, context.raw)
    job = make_job(plan, context.reader(), request.config)
    if damaged := take_over(job, context.store):
        context.notes.append(f"{len(damaged)} shards of an earlier run were damaged and made again")
    return job


def batches(request: VolumeRequest, job: VolumeJob) -> list[list[ShapeZYX]]:
    """The shards still to be made, in batches; see `in_batches`."""
    context = volume_context(request)
    pending = Ledger(context.store, job).pending(0, job.grid.shards())
    emit(context.shards_done(len(job.grid), known=len(job.grid) - len(pending)))
    return in_batches(job, pending, request.config.max_workers)


def in_batches(job: VolumeJob, pending: list[ShapeZYX], workers: int) -> list[list[ShapeZYX]]:
    """Shards in batches of at most about `BATCH_BYTES`, alike in size and as many for each worker.

    At most `MAX_BATCHES`, however large the volume, and one where it is small.
    """
    full = len(pending) * math.prod(job.shard_zyx) * job.dtype.itemsize / BATCH_BYTES
    count = min(math.ceil(full / workers) * workers, int(8 * full), MAX_BATCHES)
    size = math.ceil(len(pending) / max(count, 1)) or 1
    return [pending[start : start + size] for start in range(0, len(pending), size)]


def convert_batch(
    request: VolumeRequest,
    job: VolumeJob,
    shard_indices: Sequence[ShapeZYX],
    *,
    shards_at_once: int = 1,
    on_shard: Callable[[LedgerEntry], None] = lambda entry: None,
) -> Batch:
    """Make one batch of shards. Runs alike in a thread, in a process and on another host.

    What a worker that died, or an earlier try, has made of the batch is not made again.
    """
    context = volume_context(request)
    context.store.follow(request.volume_key, request.holder)
    shard_indices = rest_of(request, job, shard_indices)
    service = context.session.limiter(service_of(context.archive, request.plan))
    limits = ConcurrencyLimits(
        workers=request.config.max_workers,
        connections=service.connections,
        shards=shards_at_once,
        idle=lambda: service.idle,
    )

    def finished(entry: LedgerEntry) -> None:
        emit(context.shards_done(len(job.grid), more=1))
        if request.config.verbose:
            _told.info("%s: shard %s", request.volume_key, "/".join(map(str, entry.index_zyx)))
        on_shard(entry)

    convert(job, context.reader(), context.store, shard_indices, limits=limits, on_shard=finished)
    return Batch(
        context.worker,
        context.own_traffic(),
        context.store.counts(),
    )


def rest_of(
    request: VolumeRequest, job: VolumeJob, shard_indices: Sequence[ShapeZYX]
) -> list[ShapeZYX]:
    """What is still to be made of a batch that somebody may have begun."""
    return Ledger(volume_context(request).store, job).rest_of(0, shard_indices)


@dataclass(frozen=True, slots=True)
class IngestedVolume:
    """A published volume: what was stored, what it was made from, what it cost.

    Attributes
    ----------
    source_files
        One for each file of the plan, in its order; none where none came whole.
    source_keys
        Where each of them is kept in the store.
    """

    published: PublishedVolume
    source_files: tuple[Fetched, ...]
    source_keys: tuple[str | None, ...]
    raw_keys: tuple[str, ...]
    preview: tuple[str, str] | None  # key and sha256
    notes: tuple[str, ...]
    requests: int
    received_bytes: int
    store_requests: dict[str, int]
    members: tuple[MadeMember, ...] = ()

    @property
    def stored_bytes(self) -> int:
        """Of the volume, and of the label images that were made with it."""
        own = self.published.stored_bytes
        return own + sum(member.published.stored_bytes for member in self.members)


def finish_volume(request: VolumeRequest, job: VolumeJob) -> IngestedVolume:
    """The coarse levels, the last look at the source, the proof, and publication.

    Raises
    ------
    SourceChangedError
        The archive's file is another one now; what was made from the old one is discarded.
    IntegrityError, MissingChunksError, EmptyVolumeError
        See `lib.volumes.finish.finish`.
    """
    context = volume_context(request)
    renderer = PreviewRenderer(request)
    sources, published = _publish(request, request.plan, job, renderer.thumbnail)
    raw_keys = context.raw.finish(complete=True)
    doubts = doubts_of_values(request.plan, published.statistics)
    for doubt in doubts:
        _told.warning("%s: %s", request.volume_key, doubt)
    preview = renderer.preview(published)
    if preview:
        context.store.persist(preview[0])
    members = make_members(request, published.volume_key, _publish)
    traffic = context.traffic()
    return IngestedVolume(
        published,
        tuple(sources),
        tuple(context.raw.key_of(file) for file in sources),
        tuple(raw_keys),
        preview,
        (*context.notes, *context.raw.notes, *renderer.notes, *doubts),
        traffic["requests"],
        traffic["bytes_received"],
        context.store_requests(),
        members,
    )


def labels_within(request: VolumeRequest) -> list[str]:
    """Keys of the label images in the volume that a request's is about to replace."""
    store, group = volume_context(request).store, labels_of(_final_key(request.plan))
    if request.plan.within is not None or request.config.output_format != "zarr":
        return []
    listed = store.list_folder(group).folders
    return sorted(key for key in listed if key.endswith(VOLUME_SUFFIXES[0]))


def _final_key(plan: VolumePlan) -> str:
    return f"{plan.source}/{plan.name}{VOLUME_SUFFIXES[0]}"


def _publish(
    request: VolumeRequest, plan: VolumePlan, job: VolumeJob, draw: Draw | None = None
) -> tuple[list[Fetched], PublishedVolume]:
    """The end of a request's volume, or of a label image in its group; see `finish_volume`."""
    context, config = volume_context(request), request.config

    def last_look() -> list[Fetched]:
        return context.archive.verify_source_unchanged(plan, config, context.session, context.raw)

    # while it waits for the archive, all is made that only publication has to wait for
    crew: Crew[list[Fetched]] = Crew(1, "last look", abandons=True)
    look = crew.begin(last_look)
    try:
        limits = ConcurrencyLimits(workers=config.max_workers)
        try:
            make_coarse_levels(job, context.store, limits=limits)
            published = finish(
                job,
                context.store,
                max_missing_fraction=config.max_missing_fraction,
                allow_empty=config.allow_empty,
                draw=draw,
                proven=lambda: result_of(look),
            )
        except StoppedError:
            raise
        except MacroscopeError:
            result_of(look)  # that the source has changed says more
            raise
        return result_of(look), published
    except SourceChangedError:
        Ledger(context.store, job).discard()
        raise
    finally:
        crew.dismiss(GRACE_S)


def cleanup(request: VolumeRequest, *, complete: bool) -> None:
    """Clear away what killed runs left of this volume; the caller holds its lock.

    Parameters
    ----------
    complete
        The volume's record is complete: the ledger and all that is half-made go as well.
    """
    store, plan = volume_context(request).store, request.plan
    final = [f"{plan.name}{suffix}" for suffix in VOLUME_SUFFIXES]
    beside = {name + SUMS_SUFFIX for name in final} | {preview_key(name) for name in final}
    names = {*final, *beside, f"metadata_{plan.name}.json"}
    state = state_key(request.volume_key)
    store.sweep_temporaries(plan.source, names=names)
    store.sweep_temporaries(state.rpartition("/")[0], names={plan.name})
    if plan.within is not None:
        store.sweep_temporaries(labels_of(plan.within), names=names)
    clean_members(request, complete=complete)
    if complete:
        store.delete_tree(state)
    else:
        trees = [f"{plan.source}/{name}" for name in final]
        on_disk = store.local_path(state) is not None
        # In a bucket only shards are large enough to be uploaded in parts, and npy is not made.
        for folder in (state, *trees) if on_disk else trees[:1]:
            store.sweep_temporaries(folder)


def note_batch(request: VolumeRequest, batch: Batch) -> None:
    """Count what another process asked for; batches of this process are counted already."""
    volume_context(request).note(batch.worker, batch.traffic, batch.store_requests)
