"""The job of a finished volume, found again from its record and one of its documents."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lib.errors import IntegrityError
from lib.geometry import LengthsZYX, zyx
from lib.plan import EARLIER_POOLING, About, LabelPooling, VolumePlan
from lib.storage.base import Store
from lib.storage.keys import image_of
from lib.verify.documents import read_document
from lib.verify.voxels import histogram_of
from lib.volumes.codecs import numcodecs_config
from lib.volumes.job import VolumeJob
from lib.volumes.statistics import Statistics

_AXES = ("z", "y", "x")


def job_of(store: Store, record: dict[str, Any], is_whole: Callable[[str], bool]) -> VolumeJob:
    """What levels and documents of an OME-Zarr are made with. It opens no source.

    Parameters
    ----------
    is_whole
        Whether a key of the volume holds what was written; one document has to.

    Raises
    ------
    IntegrityError
        Every document is damaged, or the pyramid is not the one that is made of this record now.
    """
    core, technical = record["metadata"]["core"], record["metadata"]["technical"]
    array = _any_array(store, record, is_whole)
    sharding = array["codecs"][0]["configuration"]
    fill = array["fill_value"]
    plan = VolumePlan(
        source=record["source"],
        source_id=record["source_id"],
        name=record["name"],
        shape_zyx=tuple(core["volume_shape"]),
        dtype=core["data_type"],
        voxel_nm_zyx=_lengths(core["voxel_size_nm"]),
        voxel_size_provenance="record",
        origin_nm_zyx=_lengths(technical["translation"]),
        kind=core.get("kind", "image"),
        label_pooling=pooling_of(record),
        within=image_of(record["files"]["volume"]),
        reader={},
        files=(),
        about=About(modality=core.get("modality")),
        download_bytes=0,
        download_requests=0,
    )
    job = VolumeJob(
        plan=plan,
        output_format="zarr",
        chunk_zyx=tuple(technical["chunk_size"]),
        shard_zyx=tuple(technical["shard"]),
        codec=numcodecs_config(sharding["codecs"]),
        fill_value=float(fill) if isinstance(fill, str) else fill,
    )
    made = [[*level.grid.shape_zyx] for level in job.levels]
    if made != [level["shape"] for level in technical["levels"]]:
        raise IntegrityError(
            "this version makes another pyramid than the one that is there",
            location=record["files"]["volume"],
        )
    return job


def pooling_of(record: dict[str, Any]) -> LabelPooling:
    """How a record's labels were pooled; records of earlier versions do not say."""
    said = record["metadata"]["technical"].get("labels")
    if not said:
        return EARLIER_POOLING
    return LabelPooling(ties=said["ties"], yielding=tuple(said["yielding"]))


def statistics_of(record: dict[str, Any]) -> Statistics:
    """Minimum, maximum and histogram as the record states them; sums are left out."""
    technical = record["metadata"]["technical"]
    histogram = histogram_of(technical.get("histogram"))
    return Statistics(
        voxels=math.prod(record["metadata"]["core"]["volume_shape"]),
        finite=sum(histogram.counts),
        minimum=technical.get("global_min"),
        maximum=technical.get("global_max"),
        histogram=histogram,
    )


def _any_array(
    store: Store, record: dict[str, Any], is_whole: Callable[[str], bool]
) -> dict[str, Any]:
    """``zarr.json`` of level 0, or of another level, whose codec and fill value are the same."""
    volume = record["files"]["volume"]
    keys = [
        f"{volume}/{level['path']}/zarr.json" for level in record["metadata"]["technical"]["levels"]
    ]
    for key in filter(is_whole, keys):
        return read_document(store, key)
    if is_whole(f"{volume}/zarr.json"):
        group = read_document(store, f"{volume}/zarr.json")
        try:
            arrays: dict[str, dict[str, Any]] = group["consolidated_metadata"]["metadata"]
            return arrays["0"]
        except (KeyError, TypeError):
            pass
    raise IntegrityError(
        "every document of the volume is damaged, so that nothing says how it is compressed",
        location=volume,
    )


def _lengths(lengths: dict[str, float]) -> LengthsZYX:
    return zyx(float(lengths[axis]) for axis in _AXES)
