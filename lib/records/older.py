"""Records of schema 2.x and before, as loosely as they were written.

Nothing is written in this form any more; it tells which older records still count as valid.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from lib.records.fields import Count, DataType, OrAbsent, Part, Sha256, Voxels, Words
from lib.records.lifecycle import Status

_Length = Annotated[float, Field(gt=0)]


class _Older(Part):
    model_config = ConfigDict(extra="allow")


class OlderLengths(_Older):
    """Lengths along the axes, in nanometres."""

    x: OrAbsent[_Length] = None
    y: OrAbsent[_Length] = None
    z: OrAbsent[_Length] = None


_Lengths = Annotated[list[_Length], Field(min_length=2, max_length=4)] | OlderLengths | None
_Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None


class OlderCore(_Older):
    """What the volume is."""

    description: str | None = None
    title: str | None = None
    volume_shape: Annotated[list[Voxels], Field(min_length=2, max_length=5)] | None = None
    voxel_size_nm: _Lengths = None
    data_type: DataType | None = None
    modality: str | None = None
    imaging_start_date: str | None = None


class OlderTechnical(_Older):
    """How the volume is stored."""

    file_size_bytes: Count | None = None
    sha256: Sha256 | None = None
    compression: str | None = None
    chunk_size: list[Voxels] | None = None
    global_mean: float | None = None
    dimensions_nm: _Lengths = None


class OlderProvenance(_Older):
    """Where the volume comes from."""

    download_url: str | None = None
    processing_pipeline: str | None = None
    internal_zarr_path: str | None = None


class OlderQuality(_Older):
    """How complete the volume is."""

    completeness_score: Annotated[float, Field(ge=0, le=1)] | None = None


class OlderMetadata(_Older):
    """What is known of the volume."""

    core: OrAbsent[OlderCore] = None
    technical: OrAbsent[OlderTechnical] = None
    provenance: OrAbsent[OlderProvenance] = None
    quality: OrAbsent[OlderQuality] = None


class OlderProgress(_Older):
    """How far the run was."""

    percentage: OrAbsent[Annotated[float, Field(ge=0, le=100)]] = None
    current_step: str | None = None


class OlderRecord(OlderCore, OlderTechnical, OlderProvenance):
    """Record of schema 2.x or before: fields in their sections, or at the top."""

    source: Words
    source_id: Words
    id: OrAbsent[str] = None
    status: OrAbsent[Status] = None
    created_at: _Time = None
    updated_at: _Time = None
    progress: OlderProgress | float | None = None
    error: str | dict[str, Any] | None = None
    metadata: OrAbsent[OlderMetadata] = None
    files: OrAbsent[dict[str, Any]] = None
    additional_metadata: dict[str, Any] | None = None
