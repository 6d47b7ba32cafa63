"""A volume in the words of its metadata record (``schemas/metadata_schema.json``)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from lib.about import SAID
from lib.geometry import LengthsZYX
from lib.ingest.members import MadeMember
from lib.ingest.stages import IngestedVolume
from lib.plan import SourceFile, VolumePlan, absent_note
from lib.records.lifecycle import NO_CHECKSUM, Key
from lib.safety import redact
from lib.transport.partial import Fetched
from lib.volumes.finish import PublishedVolume
from lib.volumes.job import VolumeJob
from lib.volumes.label_ids import MOST_IDS

PIPELINE = "macroscope"
_MOST_NAMED_HOLES = 1000
_SOFTWARE = ("macroscope", "numpy", "numcodecs", "imagecodecs", "urllib3", "prefect")
_NAMES = {"imaging_date": "imaging_start_date"}  # of an About, where the record has another


def core(plan: VolumePlan) -> dict[str, Any]:
    """``metadata.core``: what the volume is."""
    about = plan.about
    return {
        **{_NAMES.get(field, field): getattr(about, field) for field in SAID},
        "description": about.description or about.title or plan.source_id,
        "volume_shape": list(plan.shape_zyx),
        "voxel_size_nm": named_axes(plan.voxel_nm_zyx),
        "data_type": plan.dtype,
        "kind": plan.kind,
        "authors": list(about.authors),
    }


def provenance(plan: VolumePlan, files: Iterator[dict[str, Any]] | None = None) -> dict[str, Any]:
    """``metadata.provenance`` as far as a plan knows it; `files` is what came of its own.

    Its ``source_files`` are read once, by whoever writes the record.
    """
    return {
        "download_url": redact(plan.files[0].url) if plan.files else None,
        "processing_pipeline": f"{PIPELINE} {version('macroscope')}",
        "internal_zarr_path": plan.internal_path,
        "scale_level": plan.scale_level,
        "box": str(plan.box_zyx) if plan.box_zyx is not None else None,
        "voxel_size_provenance": {
            "source": plan.voxel_size_provenance,
            "approximate": plan.voxel_size_approximate,
        },
        "stated": _all_stated(plan),
        "source_files": files or (_planned_file(file) for file in plan.files),
        # a version in a record means that it had a part in it
        "software": {
            name: version(name) for name in _SOFTWARE if name == PIPELINE or name in sys.modules
        },
    }


def _all_stated(plan: VolumePlan) -> dict[str, dict[str, str]]:
    """Who states what: the geometry, and those words that are there or could not be read."""
    about = plan.about
    words = {
        _NAMES.get(field, field): about.stated.get(field, about.origin)
        for field in (*SAID, "authors")
        if field not in ("title", "description")
        if getattr(about, field) or (field in about.stated and about.stated[field].said)
    }
    every = {**plan.stated, **words}
    return {name: one.model_dump(exclude_none=True) for name, one in every.items()}


def placed(plan: VolumePlan) -> dict[str, Any]:
    """``metadata.technical`` as far as a plan knows it: how large the volume is, and where."""
    extent = tuple(n * v for n, v in zip(plan.shape_zyx, plan.voxel_nm_zyx, strict=True))
    return {
        "dimensions_nm": named_axes(extent),  # type: ignore[arg-type]
        "axes": ["z", "y", "x"],
        "translation": named_axes(plan.origin_nm_zyx),
    }


def technical(job: VolumeJob, published: PublishedVolume) -> dict[str, Any]:
    """``metadata.technical``: how it is stored, and what its voxels are like."""
    plan, statistics = job.plan, published.statistics
    zarr = job.output_format == "zarr"
    return {
        **placed(plan),
        "format": job.output_format,
        "file_size_bytes": published.stored_bytes,
        "sha256": published.sha256,
        "compression": job.codec.get("id", "none") if zarr else "none",
        "compression_level": (job.codec.get("level", job.codec.get("clevel")) if zarr else None),
        "chunk_size": list(job.chunk_zyx) if zarr else None,
        "shard": list(job.shard_zyx) if zarr else None,
        "global_mean": statistics.mean,
        "global_min": statistics.minimum,
        "global_max": statistics.maximum,
        "histogram": {
            "counts": list(statistics.histogram.counts),
            "first": statistics.histogram.exact_start,
            "bin_width": statistics.histogram.width,
        },
        "levels": [
            {
                "path": str(level.index),
                "shape": list(level.grid.shape_zyx),
                "chunk_size": list(level.grid.chunk_zyx),
                "shard": list(level.grid.shard_zyx),
                "scale_nm": named_axes(level.scale_nm_zyx),
                "translation_nm": named_axes(level.translation_nm_zyx),
            }
            for level in job.levels
        ]
        if zarr
        else [],
        **_labels(plan, published),
    }


def _labels(plan: VolumePlan, published: PublishedVolume) -> dict[str, Any]:
    """How coarser levels of labels were made, and which ids there are; nothing of an image."""
    rule, facts = plan.labels, published.labels
    if rule is None:
        return {}
    said: dict[str, Any] = {"ties": rule.ties, "yielding": list(rule.yielding)}
    if facts is not None and facts.background is not None:
        ids, *_ = facts.ids_of_levels
        said |= {
            **({"ids_above": MOST_IDS} if ids is None else {"ids": ids}),
            "largest": published.statistics.maximum,
            "background_fraction": facts.background / max(1, published.statistics.voxels),
            "ids_of_levels": list(facts.ids_of_levels),
        }
        if facts.values:
            said["values"] = list(facts.values)
    return {"labels": said}


def member(made: MadeMember) -> dict[str, Any]:
    """Of ``members``: a label image of the group, as a record of its own would state it.

    Histograms are left out: of forty classes they would be most of the record.
    """
    plan, published = made.plan, made.published
    return {
        "name": plan.name,
        "source_id": plan.source_id,
        "metadata": {
            "core": core(plan),
            "technical": {**technical(made.job, published), "histogram": None},
            "provenance": provenance(plan),
            "quality": {
                **_completeness(published),
                "notes": [*notes(plan), *_unstored(plan, published), *made.notes],
            },
        },
        "files": {"volume": Key(published.volume_key), "sums": Key(published.sums_key)},
        "additional_metadata": {**plan.about.extra, "fingerprint": made.job.fingerprint},
    }


def made_provenance(
    plan: VolumePlan, made: IngestedVolume, seconds: float, run: str
) -> dict[str, Any]:
    """``metadata.provenance`` of a published volume: the plan's, with digests and costs."""
    files: Iterator[dict[str, Any]] | None = None
    if len(made.source_files) == len(plan.files):
        came = zip(plan.files, made.source_files, made.source_keys, strict=True)
        files = (_fetched_file(*one) for one in came)
    return {
        **provenance(plan, files),
        "requests": made.requests,
        "store_requests": made.store_requests,
        "bytes": made.received_bytes,
        "run": run,
        "seconds": round(seconds, 3),
    }


def quality(plan: VolumePlan, made: IngestedVolume) -> dict[str, Any]:
    """``metadata.quality``: how complete it is, and every doubt."""
    published = made.published
    return {
        **_completeness(published),
        "damaged": [],
        "notes": [*notes(plan), *_unstored(plan, published), *made.notes],
    }


def _completeness(published: PublishedVolume) -> dict[str, Any]:
    return {
        "completeness_score": published.completeness,
        "missing_chunks": list(published.missing_chunks[:_MOST_NAMED_HOLES]),
        "missing_chunks_total": len(published.missing_chunks),
    }


def _unstored(plan: VolumePlan, published: PublishedVolume) -> list[str]:
    """How many chunks were absent and what they were read as, where the plan could not say."""
    grid = plan.source_grid
    if grid is None:
        return []
    missing, value = len(published.missing_chunks), published.fill_value
    said = absent_note(missing, published.expected_chunks, value)
    return [note for note in said if note not in plan.notes]


def notes(plan: VolumePlan) -> list[str]:
    """Every doubt that is known before a voxel is fetched."""
    return [*plan.notes, *plan.about.remarks]


def named_axes(lengths_zyx: LengthsZYX) -> dict[str, float]:
    """A triple with its axes' names, so that no reader has to guess the order."""
    return dict(zip("zyx", (float(n) for n in lengths_zyx), strict=True))


def _planned_file(file: SourceFile) -> dict[str, Any]:
    return {
        "name": file.name,
        "url": redact(file.url),
        "size": file.size,
        "sha256": None,
        "etag": file.etag,
        "last_modified": file.last_modified,
        "publisher_checksum": file.publisher_checksum or NO_CHECKSUM,
    }


def _fetched_file(file: SourceFile, fetched: Fetched, key: str | None) -> dict[str, Any]:
    """A file with what was measured of it.

    Entity tag and time stay those of the plan, though another node or protocol gave the bytes: the
    volume's identity holds them, and the next run compares with them.
    """
    return {
        **_planned_file(file),
        **({} if key is None else {"key": Key(key)}),
        "size": fetched.size,
        "sha256": fetched.sha256,
        "publisher_checksum": fetched.publisher_checksum or file.publisher_checksum or NO_CHECKSUM,
    }
