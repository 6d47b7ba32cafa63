"""Finished volumes and their records made from arrays, by the engine and the record writer.

For tests, pictures and benchmarks that need a store with something in it but no archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lib.config.loaders import LoaderConfig
from lib.formats.base import Block, Layout, VolumeReader
from lib.geometry import Box, LengthsZYX, ShapeZYX
from lib.ingest import describe
from lib.plan import About, SourceFile, VolumePlan
from lib.records.lifecycle import RecordDict
from lib.records.manager import MetadataManager
from lib.storage.base import Store
from lib.vocabulary import Kind
from lib.volumes.downsample import make_coarse_levels
from lib.volumes.engine import convert
from lib.volumes.finish import PublishedVolume, finish
from lib.volumes.job import ConcurrencyLimits, VolumeJob, make_job
from lib.volumes.ledger import Ledger


class ArrayReader(VolumeReader):
    """An array in memory as a `lib.formats.base.VolumeReader`."""

    def __init__(self, voxels: NDArray[Any]) -> None:
        self._voxels = voxels
        z, y, x = voxels.shape
        self.shape_zyx: ShapeZYX = (z, y, x)
        self.dtype = voxels.dtype
        self.layout = Layout((64, 64, 64))

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield the box as one block."""
        yield Block(box, np.ascontiguousarray(self._voxels[box.slices()]))


def plan_of(
    voxels: NDArray[Any],
    source: str,
    name: str,
    voxel_nm_zyx: LengthsZYX,
    *,
    kind: Kind = "image",
    origin_nm_zyx: LengthsZYX = (0.0, 0.0, 0.0),
    within: str | None = None,
    about: About | None = None,
) -> VolumePlan:
    """The plan that an archive would have made for these voxels."""
    z, y, x = voxels.shape
    url = f"https://archive.example/{source}/{name}"
    return VolumePlan(
        source=source,
        source_id=name,
        name=name,
        shape_zyx=(z, y, x),
        dtype=voxels.dtype.name,
        voxel_nm_zyx=voxel_nm_zyx,
        voxel_size_provenance="file",
        origin_nm_zyx=origin_nm_zyx,
        kind=kind,
        within=within,
        reader={},
        files=(SourceFile(url=url, name=name, size=voxels.nbytes),),
        about=about or About(title=name, modality="FIB-SEM"),
        download_bytes=voxels.nbytes,
        download_requests=1,
    )


def make_volume(
    store: Store,
    voxels: NDArray[Any],
    plan: VolumePlan,
    *,
    output_format: Literal["zarr", "npy"] = "zarr",
) -> PublishedVolume:
    """Make and publish a volume.

    Parameters
    ----------
    voxels
        Shape and dtype of the plan.
    """
    return _make(store, voxels, plan, output_format)[1]


def make_recorded_volume(
    store: Store,
    voxels: NDArray[Any],
    plan: VolumePlan,
    *,
    output_format: Literal["zarr", "npy"] = "zarr",
    seconds: float = 1.0,
) -> RecordDict:
    """Make and publish a volume and write its record, complete."""
    job, finished = _make(store, voxels, plan, output_format)
    manager = MetadataManager(store)
    record = manager.begin(plan.source, plan.source_id, plan.name)
    record = manager.move(record, "processing")
    record = manager.move(record, "saving-data")
    return manager.move(
        record,
        "complete",
        core=describe.core(plan),
        technical=describe.technical(job, finished),
        provenance={
            **describe.provenance(plan),
            "requests": 1,
            "seconds": seconds,
            "bytes": voxels.nbytes,
        },
        quality={"completeness_score": finished.completeness, "missing_chunks": []},
        files={"volume": finished.volume_key, "sums": finished.sums_key},
    )


def _make(
    store: Store, voxels: NDArray[Any], plan: VolumePlan, output_format: Literal["zarr", "npy"]
) -> tuple[VolumeJob, PublishedVolume]:
    reader = ArrayReader(voxels)
    job = make_job(plan, reader, LoaderConfig(output_format=output_format))
    ledger = Ledger(store, job)
    ledger.open()
    convert(job, reader, store, job.grid.shards())
    make_coarse_levels(job, store, limits=ConcurrencyLimits())
    finished = finish(job, store, max_missing_fraction=0.0)
    ledger.close()
    return job, finished
