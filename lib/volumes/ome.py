"""The metadata documents of an OME-Zarr 0.5: the group, its levels, the display window.

Zarr v3 core specification and NGFF 0.5. The group carries consolidated metadata, so that opening a
volume from an object store costs one request for all its levels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lib.plan import EARLIER_POOLING
from lib.volumes.grid import Level
from lib.volumes.job import VolumeJob, zarr_v3_codecs
from lib.volumes.label_ids import colour_of
from lib.volumes.statistics import Statistics

_EXACT = 2**53 - 1  # the largest integer that every reader of JSON keeps


def _axes(assumed: str) -> list[dict[str, str]]:
    """Axes in nanometres, but for those whose length nobody states: NGFF's unit may be left out."""
    unit = {"unit": "nanometer"}
    return [{"name": a, "type": "space", **({} if a in assumed else unit)} for a in "zyx"]


def array_document(job: VolumeJob, level: Level) -> dict[str, Any]:
    """``zarr.json`` of one level."""
    grid = level.grid
    fill: Any = _fill(job.fill_value) if job.dtype.kind == "f" else int(job.fill_value)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(grid.shape_zyx),
        "data_type": job.dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": list(grid.shard_zyx)},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": list(grid.chunk_zyx),
                    "codecs": zarr_v3_codecs(job.codec, job.dtype),
                    "index_codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        {"name": "crc32c"},
                    ],
                    "index_location": "end",
                },
            }
        ],
        "attributes": {},
        "dimension_names": ["z", "y", "x"],
        "storage_transformers": [],
    }


def _fill(value: float) -> float | str:
    """A float as Zarr v3 writes it: JSON has neither NaN nor infinity."""
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def group_document(
    job: VolumeJob,
    statistics: Statistics,
    values: Sequence[int] = (),
    drawn: Any = None,
    *,
    consolidated: bool | None = None,
    assumed_axes: str | None = None,
) -> dict[str, Any]:
    """``zarr.json`` of the volume: multiscales, display window, provenance, all levels.

    Parameters
    ----------
    values
        Of labels: their ids, where they are few.
    drawn
        What the source says of them: ``colors`` and ``properties`` as NGFF's ``image-label`` has
        them.
    consolidated
        Whether it repeats what each level says. By default, where no labels will lie in the volume:
        to readers a group that is not repeated is not there, and labels come after their image.
    assumed_axes
        Those without a unit: by default, those of which the plan says that nobody states a length.
    """
    assumed = job.plan.assumed_axes if assumed_axes is None else assumed_axes
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [
            {
                "name": job.plan.name,
                "axes": _axes(assumed),
                "datasets": [
                    {
                        "path": str(level.index),
                        "coordinateTransformations": [
                            {"type": "scale", "scale": list(level.scale_nm_zyx)},
                            {"type": "translation", "translation": list(level.translation_nm_zyx)},
                        ],
                    }
                    for level in job.levels
                ],
                "type": "mode" if job.plan.kind == "labels" else "mean",
                "metadata": _pooled(job),
            }
        ],
    }
    if job.plan.kind == "labels":
        source = {"source": {"image": "../../"}} if job.plan.within else {}
        # volumes of earlier versions are repaired byte for byte: they have no colours
        earlier = job.plan.labels == EARLIER_POOLING
        shown = {} if earlier else _image_label(values, drawn if isinstance(drawn, dict) else {})
        ome["image-label"] = {"version": "0.5", **source, **shown}
    else:
        ome["omero"] = _omero(job, statistics)
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
    if not job.plan.labelled if consolidated is None else consolidated:
        document["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": {str(level.index): array_document(job, level) for level in job.levels},
        }
    return document


def _image_label(values: Sequence[int], drawn: dict[str, Any]) -> dict[str, Any]:
    """A colour for each id, the source's if it gives one, and what the source says of ids.

    Background is clear. No colours where JavaScript would misread an id.
    """
    said = {one["label-value"]: one["rgba"] for one in drawn.get("colors") or ()}
    shown: dict[str, Any] = {}
    if values and all(abs(value) <= _EXACT for value in values):
        shown["colors"] = [
            {
                "label-value": value,
                "rgba": said.get(value) or [*colour_of(value), 255 if value else 0],
            }
            for value in values
        ]
    named = [
        one for one in drawn.get("properties") or () if not values or one["label-value"] in values
    ]
    return shown | ({"properties": named} if named else {})


def labels_document(names: list[str]) -> dict[str, Any]:
    """``zarr.json`` of an image's group ``labels``, which lists its label images."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": {"version": "0.5", "labels": names}},
    }


def _pooled(job: VolumeJob) -> dict[str, Any]:
    """How coarser levels were made; NGFF leaves the words of it free."""
    rule = job.plan.labels
    if rule in (None, EARLIER_POOLING):  # byte for byte as documents of earlier versions
        return {"description": "made by macroscope; ties round up, edges round up"}
    assert rule is not None
    return {
        "description": "made by macroscope; the most frequent id, no id that the finer level lacks",
        "method": "mode",
        "kwargs": {"ties": rule.ties, "yielding": list(rule.yielding)},
    }


def _omero(job: VolumeJob, statistics: Statistics) -> dict[str, Any]:
    """A display window from the data: the 0.5th to the 99.5th percentile."""
    low = statistics.percentile(0.5) or 0.0
    high = statistics.percentile(99.5) or 0.0
    if high <= low:
        low, high = float(statistics.minimum or 0), float(statistics.maximum or 0) + 1.0
    info = np.iinfo(job.dtype) if job.dtype.kind in "iu" else None
    return {
        "version": "0.5",
        "channels": [
            {
                "label": job.plan.about.modality or "EM",
                "color": "FFFFFF",
                "active": True,
                "window": {
                    "min": float(info.min if info else statistics.minimum or 0),
                    "max": float(info.max if info else statistics.maximum or 0),
                    "start": low,
                    "end": high,
                },
            }
        ],
        "rdefs": {"model": "greyscale", "defaultZ": job.plan.shape_zyx[0] // 2},
    }


def encode(document: dict[str, Any]) -> bytes:
    """Stable JSON: the same document always gives the same bytes."""
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


# NGFF 0.5 knows no thumbnail. The convention (a proposal, version 1, read by viewers of OME-Zarr
# today) lists pictures in a group's attributes; one lies below the group as a plain object, which
# Zarr readers leave alone. https://github.com/clbarnes/zarr-convention-thumbnails
THUMBNAIL_KEY = "thumbnails/xy.jpg"

Draw = Callable[[str, dict[str, Any], Statistics], tuple[bytes, int, int] | None]
"""Draws a volume whose shards are in the store: from its key, its root document and the statistics
of its voxels to a JPEG, its width and height in pixels; None where it cannot be drawn."""

_SPEC = "https://github.com/zarr-conventions/thumbnails/blob/v1/README.md"
_SCHEMA = "https://raw.githubusercontent.com/zarr-conventions/thumbnails/refs/tags/v1/schema.json"
_CONVENTION = {
    "uuid": "49326c01-1180-4743-b15f-f7157038a6ab",
    "name": "thumbnails",
    "spec_url": _SPEC,
    "schema_url": _SCHEMA,
}


def thumbnail_attributes(width: int, height: int) -> dict[str, Any]:
    """What a group says of its thumbnail.

    Both ``uri`` (the proposal now) and ``path`` (what its first readers look for) name it.
    """
    return {
        "zarr_conventions": [_CONVENTION],
        "thumbnails": [
            {
                "width": width,
                "height": height,
                "media_type": "image/jpeg",
                "uri": THUMBNAIL_KEY,
                "path": THUMBNAIL_KEY,
                "description": "Middle xy plane",
            }
        ],
    }
