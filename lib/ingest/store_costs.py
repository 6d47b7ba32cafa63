"""What a volume will ask of a bucket, before it is made: whole requests, from the grid it will get.

How a file stores its planes is only known once it is open, so for files the grid is an estimate.
"""

from __future__ import annotations

import itertools
import math

from lib.config.loaders import LoaderConfig
from lib.formats.base import Layout
from lib.plan import VolumePlan
from lib.volumes.job import VolumeJob, fit_job

_LEASE_AND_RECORD_PUT = 3 + 5
_RECORD_GET = 16  # record, job and lease before each of their writes, and the documents
_CHUNK = (64, 64, 64)


def planned_job(plan: VolumePlan, config: LoaderConfig) -> VolumeJob:
    """The grid and the levels that a volume will get, as far as they are known by now."""
    grid = plan.source_grid
    chunk = _CHUNK if grid is None else grid.chunk_zyx
    if plan.downsample_steps:
        by = [math.prod(axis) for axis in zip(*plan.downsample_steps, strict=True)]
        z, y, x = (math.ceil(n / f) for n, f in zip(chunk, by, strict=True))
        chunk = (z, y, x)
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
            chunks = math.prod(
                math.ceil(n / c) for n, c in zip(grid.shape_zyx, grid.chunk_zyx, strict=True)
            )
            get += len(grid) + chunks
    return (put, get)
