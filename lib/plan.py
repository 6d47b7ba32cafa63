"""What is known of a volume before a voxel of it is read: plain data that every layer may hold.

An archive makes a `VolumePlan`; jobs, records, raw files and workers on other hosts are told by it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lib.geometry import Box, LengthsZYX, ShapeZYX


class Plain(BaseModel):
    """Frozen, JSON-able, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceFile(Plain):
    """One file, or one array of objects, that a volume is made from."""

    url: str
    name: str
    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    publisher_checksum: str | None = None  # "md5:...", or None where the publisher gives none


class About(Plain):
    """What the archive says about a volume; absent stays absent, nothing is guessed."""

    title: str | None = None
    description: str | None = None
    modality: str | None = None
    organism: str | None = None
    specimen: str | None = None
    authors: tuple[str, ...] = ()
    licence: str | None = None  # SPDX id, or None where none is stated
    citation: str | None = None
    doi: str | None = None
    imaging_date: str | None = None  # ISO 8601
    release_date: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


class VolumePlan(Plain):
    """One volume to be made.

    ``reader`` is private to the archive: whatever its ``open`` needs to find the voxels again.
    ``shape_zyx``, ``origin_nm_zyx`` and the voxel size describe what will be delivered, that is,
    the ``box_zyx`` of the source where only a part was chosen.
    """

    source: str  # the registry name
    source_id: str  # the accession as the archive writes it
    name: str  # file stem, stable from run to run
    shape_zyx: ShapeZYX
    dtype: str  # numpy name, native byte order: "uint8", "int16", ...
    voxel_nm_zyx: LengthsZYX
    voxel_size_provenance: str  # "file", "api", "configuration", ...
    voxel_size_approximate: bool = False
    origin_nm_zyx: LengthsZYX = (0.0, 0.0, 0.0)  # centre of the first voxel
    box_zyx: Box | None = None  # the chosen part, in the source's own voxels
    kind: Literal["image", "labels"] = "image"
    scale_level: str | None = None
    internal_path: str | None = None
    reader: dict[str, Any]
    # whole files, read plane by plane, which ``keep_raw`` keeps; or boxes, asked for one by one
    stored_as: Literal["files", "boxes"] = "files"
    files: tuple[SourceFile, ...]
    about: About
    download_bytes: int  # what a run will fetch for this volume
    download_requests: int
    notes: tuple[str, ...] = ()  # disagreements and doubts, copied to the record

    def identity(self) -> dict[str, Any]:
        """What decides the voxels: not the words about them, nor the server that gave them."""
        words = {"about", "notes", "download_bytes", "download_requests", "stored_as"}
        decided = self.model_dump(mode="json", exclude=words)
        for file in decided["files"]:
            del file["url"]
        return decided
