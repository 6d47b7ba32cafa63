"""What a volume will cost before a byte of it is fetched: requests, bytes, memory, disk, time.

Downloads are known from metadata. What is written depends on how well the voxels compress, so the
assumption is stated beside every estimate. Nothing here asks the archive for anything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from lib.archives.registry import archive
from lib.config.loaders import LoaderConfig
from lib.errors import DestinationFullError
from lib.formats.base import Layout
from lib.geometry import LengthsZYX, ShapeZYX, ceil_divide, multiply, zyx
from lib.ingest.coarse import GATHER_BYTES
from lib.plan import VolumePlan
from lib.present.formatting import duration_text, lengths_text, size_text
from lib.present.preview import THUMBNAIL
from lib.records.lifecycle import record_key
from lib.storage.base import Store
from lib.vocabulary import Kind
from lib.volumes.job import VolumeJob, fit_job

PROCESS_BYTES = 350 * 2**20
"""A process with nothing in flight: interpreter, libraries, compiled loops, thread stacks."""
SHARD_FACTOR = 2.0
"""Memory of a shard in flight relative to its raw bytes: voxels, compressed chunks, half level."""
_ALIKE = frozenset({"zstd", "blosc", "gzip", "zlib", "lz4", "bz2", "lzma", "xz"})
"""Codecs whose chunks take about as much room in the store as in the source."""
LABELS_COMPRESSION = 8.0
"""Of labels at the least: 12 (8 bits) to 60 (64 bits) measured, see `lib.volumes.job`."""
THUMBNAIL_BYTES = 0.22
"""Of a thumbnail's JPEG for each pixel: 0.17 to 0.29 measured."""

CAREFUL_MB_S = 5.0
"""For an archive from which no transfer was measured."""


class VolumeCost(BaseModel):
    """The cost of one volume; bytes are bytes, times seconds."""

    model_config = ConfigDict(frozen=True)

    source: str
    source_id: str
    name: str
    shape_zyx: ShapeZYX
    dtype: str
    kind: Kind
    voxel_nm_zyx: LengthsZYX
    assumed_axes: str  # of ``zyx``, those whose length nobody states: 1 nm stands in its place
    origin_nm_zyx: LengthsZYX  # centre of the first voxel
    scale_level: str | None
    licence: str | None
    download_requests: int
    download_bytes: int
    write_bytes: int
    store_puts: int  # to a bucket; 0 for a folder
    store_gets: int
    assumed_compression: float
    peak_memory_bytes: int
    disk_bytes: int
    expected_seconds: float
    assumed_mb_per_second: float
    notes: tuple[str, ...] = ()


def cost_of(plan: VolumePlan, config: LoaderConfig, assumed_compression: float) -> VolumeCost:
    """Estimate one volume.

    Parameters
    ----------
    assumed_compression
        Raw bytes over compressed bytes; ignored for npy, and for chunks that pass through.
    """
    if plan.members:
        return _of_group(plan, config, assumed_compression)
    if plan.kind == "labels":
        assumed_compression = max(assumed_compression, LABELS_COMPRESSION)
    itemsize = np.dtype(plan.dtype).itemsize
    job = planned_job(plan, config)
    raw, *coarse = (math.prod(level.grid.shape_zyx) * itemsize for level in job.levels)
    coarser = sum(coarse) / assumed_compression
    if config.output_format == "npy":
        written, assumed_compression = float(raw), 1.0
    elif _keeps_chunks(plan):
        written = sum(file.size or 0 for file in plan.files) + coarser
    else:
        written = raw / assumed_compression + coarser
    if config.output_format != "npy":
        written += _thumbnail_bytes(plan)
    files = plan.files if config.keep_raw and plan.stored_as == "files" else ()
    kept = sum(file.size or 0 for file in files)
    puts, gets = store_requests(job, config, len(files))
    shard = SHARD_FACTOR * min(raw, math.prod(job.shard_zyx) * itemsize)
    if plan.downsample_steps:
        shard += GATHER_BYTES
    rate = archive(plan.source).observed_mb_s or CAREFUL_MB_S
    return VolumeCost(
        source=plan.source,
        source_id=plan.source_id,
        name=plan.name,
        shape_zyx=plan.shape_zyx,
        dtype=plan.dtype,
        kind=plan.kind,
        voxel_nm_zyx=plan.voxel_nm_zyx,
        assumed_axes=plan.assumed_axes,
        origin_nm_zyx=plan.origin_nm_zyx,
        scale_level=plan.scale_level,
        licence=plan.about.licence,
        download_requests=plan.download_requests,
        download_bytes=plan.download_bytes,
        write_bytes=round(written),
        store_puts=puts,
        store_gets=gets,
        assumed_compression=assumed_compression,
        peak_memory_bytes=round(PROCESS_BYTES + shard * config.max_workers),
        disk_bytes=round(written + kept),
        expected_seconds=round(plan.download_bytes / (rate * 1e6), 1),
        assumed_mb_per_second=rate,
        notes=plan.notes,
    )


_ADD_UP = (
    "download_requests", "download_bytes", "write_bytes", "store_puts", "store_gets", "disk_bytes",
)  # fmt: skip


def _of_group(plan: VolumePlan, config: LoaderConfig, assumed_compression: float) -> VolumeCost:
    """An image with its label images: one lease, one record, and what each costs by itself."""
    image = cost_of(plan.alone, config, assumed_compression)
    every = [image, *(cost_of(one, config, assumed_compression) for one in plan.members)]
    total = {field: sum(getattr(cost, field) for cost in every) for field in _ADD_UP}
    shared = len(plan.members) if total["store_puts"] else 0
    total["store_puts"] -= shared * _LEASE_AND_RECORD_PUT
    rate = image.assumed_mb_per_second
    return image.model_copy(
        update={
            **total,
            "peak_memory_bytes": max(cost.peak_memory_bytes for cost in every),
            "expected_seconds": round(total["download_bytes"] / (rate * 1e6), 1),
        }
    )


def _keeps_chunks(plan: VolumePlan) -> bool:
    """Whether a volume's chunks take about as much room as the source's own."""
    if plan.downsample_steps or plan.source_grid is None:
        return False
    return plan.source_grid.codec.get("id") in _ALIKE


def warnings_for(costs: Iterable[VolumeCost], store: Store, memory_bytes: int | None) -> list[str]:
    """Sentences about what will not do: disk at the destination, memory of this machine."""
    costs = list(costs)
    needed, free = sum(cost.disk_bytes for cost in costs), store.free_bytes()
    found = []
    if free is not None and needed > free:
        found.append(
            f"{store.uri} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed: "
            "choose a part with --box or a coarser --level, or another destination"
        )
    peak = max((cost.peak_memory_bytes for cost in costs), default=0)
    if memory_bytes is not None and peak > memory_bytes:
        found.append(
            f"a volume needs {peak / 2**20:.0f} MiB of memory, {memory_bytes / 2**20:.0f} MiB are "
            "there: lower max_workers or shard_mb"
        )
    return found


def least_bytes(plan: VolumePlan, config: LoaderConfig) -> int:
    """Bytes that a volume takes at the destination however well it compresses.

    Files that are kept, chunks that pass through and ``.npy`` have sizes that are known; 0 where a
    part was chosen of something that is not ``.npy``.
    """
    if plan.members:
        return sum(least_bytes(one, config) for one in (plan.alone, *plan.members))
    files = 0 if plan.box_zyx else sum(file.size or 0 for file in plan.files)
    kept = files if config.keep_raw and plan.stored_as == "files" else 0
    if config.output_format == "npy":
        return kept + math.prod(plan.shape_zyx) * np.dtype(plan.dtype).itemsize
    through = _keeps_chunks(plan) and config.codec == "auto" and config.chunk_zyx is None
    return kept + (files // 2 if through else 0)


def require_space(plan: VolumePlan, config: LoaderConfig, store: Store) -> None:
    """Refuse a volume that cannot find room, before anything of it is fetched.

    Only what is certain is counted, see `least_bytes`, and only of a volume that is new: part of
    another is there already.

    Raises
    ------
    DestinationFullError
    """
    needed, free = least_bytes(plan, config), store.free_bytes()
    if free is None or needed <= free:
        return
    if store.size(record_key(plan.source, plan.name)) is None:
        raise DestinationFullError(
            f"{size_text(needed)} are needed at least, {size_text(free)} are free",
            location=store.uri,
            advice="Free space, choose another destination, or a part with --box or --level",
        )


def available_memory() -> int | None:
    """Bytes this process may use: the container's limit (cgroup v2), else what is free."""
    try:
        with open("/sys/fs/cgroup/memory.max") as limit:
            text = limit.read().strip()
        if text.isdigit():
            return int(text)
    except OSError:
        pass
    try:
        with open("/proc/meminfo") as info:
            for line in info:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def in_words(costs: Collection[VolumeCost]) -> str:
    """All of them in one line: ``Volumes: 2, requests: 12, to fetch: 3.21 GB, ...``."""
    total = {
        field: sum(getattr(cost, field) for cost in costs)
        for field in ("download_bytes", "download_requests", "write_bytes", "expected_seconds")
    }
    return (
        f"Volumes: {len(costs)}, requests: {total['download_requests']}, "
        f"to fetch: {size_text(total['download_bytes'])}, "
        f"to write: {size_text(total['write_bytes'])}, "
        f"about {duration_text(max(1, total['expected_seconds']))}"
    )


def row_of(cost: VolumeCost) -> dict[str, Any]:
    """A cost as a person reads it."""
    return {
        "volume": cost.name,
        "accession": cost.source_id,
        "shape z,y,x": " x ".join(map(str, cost.shape_zyx)),
        "dtype": cost.dtype,
        "voxel nm z,y,x": lengths_text(cost.voxel_nm_zyx, cost.assumed_axes, " x "),
        "level": cost.scale_level or "",
        "licence": cost.licence or "not stated",
        "requests": cost.download_requests,
        "download MB": round(cost.download_bytes / 1e6, 3),
        "write MB": round(cost.write_bytes / 1e6, 3),
        **({"PUT, GET": f"{cost.store_puts}, {cost.store_gets}"} if cost.store_puts else {}),
        "compression": f"{cost.assumed_compression:g} assumed",
        "memory MiB": round(cost.peak_memory_bytes / 2**20),
        "disk MB": round(cost.disk_bytes / 1e6, 3),
        "time": f"{cost.expected_seconds:g} s at {cost.assumed_mb_per_second:g} MB/s",
    }


def _thumbnail_bytes(plan: VolumePlan) -> float:
    _, y, x = multiply(plan.shape_zyx, plan.voxel_nm_zyx)
    return THUMBNAIL_BYTES * THUMBNAIL**2 * min(y, x) / max(y, x)


_LEASE_AND_RECORD_PUT = 3 + 5
_RECORD_GET = 16  # record, job and lease before each of their writes, and the documents
_CHUNK = (64, 64, 64)


def planned_job(plan: VolumePlan, config: LoaderConfig) -> VolumeJob:
    """The grid and the levels that a volume will get, as far as they are known by now."""
    grid = plan.source_grid
    chunk = _CHUNK if grid is None else grid.chunk_zyx
    if plan.downsample_steps:
        by = zyx(math.prod(axis) for axis in zip(*plan.downsample_steps, strict=True))
        chunk = ceil_divide(chunk, by)
    elif config.output_format == "zarr" and config.chunk_zyx is None and grid is not None:
        config = config.model_copy(update={"chunk_zyx": grid.chunk_zyx})
    return fit_job(plan, Layout(chunk, by_planes=plan.stored_as == "files"), config)


def store_requests(job: VolumeJob, config: LoaderConfig, raw_files: int) -> tuple[int, int]:
    """PUTs and GETs to the destination; nothing where it is a folder.

    Parameters
    ----------
    raw_files
        Source files that are kept beside the volume: one PUT each, and one for what is known of it.
    """
    if not str(config.output_dir).startswith("s3://") or config.output_format != "zarr":
        return (0, 0)
    levels = job.levels
    shards = sum(len(level.grid) for level in levels)
    own = [level for level in levels if level.index == 0 or not level.in_pass]
    entries = sum(len(level.grid) for level in own)
    documents = len(levels) + 4  # the root, the thumbnail, the list of digests, the job
    put = shards + entries + documents + 2 * raw_files + _LEASE_AND_RECORD_PUT
    get = entries + raw_files + _RECORD_GET
    for finer, level in itertools.pairwise(levels):
        if not level.in_pass:  # made from the finer level: each of its indices and chunks
            grid = finer.grid
            chunks = math.prod(ceil_divide(grid.shape_zyx, grid.chunk_zyx))
            get += len(grid) + chunks
    return (put, get)
