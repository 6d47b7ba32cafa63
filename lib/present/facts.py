"""What a record says of a volume, in one flat form for people and for other machines.

Older (2.x) records lack much of it: what is absent is None or empty, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib.archives.base import Publisher
from lib.archives.registry import REGISTRY, archive
from lib.geometry import LengthsZYX, ShapeZYX
from lib.present.described import beside, voxel_of

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that a volume was made from."""

    name: str
    url: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """One volume as its record tells it. Lengths in nm, sizes in bytes, times in seconds."""

    id: str
    source: str
    source_id: str
    name: str
    status: str
    step: str | None
    created_at: str
    updated_at: str
    title: str
    description: str | None
    shape_zyx: ShapeZYX | None
    voxel_nm_zyx: LengthsZYX | None
    voxel_provenance: str | None
    voxel_approximate: bool
    dtype: str | None
    kind: str
    modality: str | None
    organism: str | None
    specimen: str | None
    authors: tuple[str, ...]
    licence: str | None
    citation: str | None
    doi: str | None
    released: str | None
    stored_bytes: int | None
    sha256: str | None
    volume_key: str | None
    preview_key: str | None
    sums_key: str | None
    download_url: str | None
    source_files: tuple[SourceFile, ...]
    seconds: float | None
    received_bytes: int | None
    completeness: float | None
    missing_chunks: int
    missing_examples: tuple[str, ...]
    notes: tuple[str, ...]
    error: Json | None

    @property
    def voxel_bytes(self) -> int | None:
        """Size of the decompressed voxels."""
        if self.shape_zyx is None or self.dtype is None:
            return None
        digits = "".join(c for c in self.dtype if c.isdigit())
        return math.prod(self.shape_zyx) * (int(digits) // 8 if digits else 1)

    @property
    def archive(self) -> Publisher:
        """The publisher; a source that is not known here keeps its own name."""
        return (
            archive(self.source).publisher
            if self.source in REGISTRY
            else Publisher(self.source, "")
        )


def facts_of(record: Json) -> Facts:
    """Read a record.

    Parameters
    ----------
    record
        A valid record of any schema version.
    """
    metadata = record.get("metadata") or {}
    core, technical = metadata.get("core") or {}, metadata.get("technical") or {}
    provenance, quality = metadata.get("provenance") or {}, metadata.get("quality") or {}
    listed = record.get("files")
    files = listed if isinstance(listed, Mapping) else {}  # older records have a list
    origin = provenance.get("voxel_size_provenance") or {}
    volume = _text(files.get("volume"))
    name = _text(record.get("name")) or str(record.get("source_id", ""))
    missing = [str(m) for m in quality.get("missing_chunks") or ()]
    shape = core.get("volume_shape")
    error = record.get("error")
    return Facts(
        id=str(record.get("id", "")),
        source=str(record.get("source", "")),
        source_id=str(record.get("source_id", "")),
        name=name,
        status=str(record.get("status", "unknown")),
        step=_text((record.get("progress") or {}).get("current_step")),
        created_at=str(record.get("created_at", "")),
        updated_at=str(record.get("updated_at", "")),
        title=_text(core.get("title")) or name,
        description=_text(core.get("description")) or _text(record.get("description")),
        shape_zyx=(shape[0], shape[1], shape[2]) if shape and len(shape) == 3 else None,
        voxel_nm_zyx=voxel_of(core.get("voxel_size_nm") or record.get("voxel_size_nm")),
        voxel_provenance=_text(origin.get("source")),
        voxel_approximate=bool(origin.get("approximate")),
        dtype=_text(core.get("data_type")),
        kind=_text(core.get("kind")) or "image",
        modality=_text(core.get("modality")),
        organism=_text(core.get("organism")),
        specimen=_text(core.get("specimen")),
        authors=tuple(str(a) for a in core.get("authors") or ()),
        licence=_text(core.get("licence")),
        citation=_text(core.get("citation")),
        doi=_text(core.get("doi")),
        released=_text(core.get("release_date")) or _text(core.get("deposition_date")),
        stored_bytes=technical.get("file_size_bytes"),
        sha256=_text(technical.get("sha256")),
        volume_key=volume,
        preview_key=_text(files.get("preview"))
        or (beside(volume, ".preview.png") if volume else None),
        sums_key=_text(files.get("sums")),
        download_url=_text(provenance.get("download_url")),
        source_files=tuple(
            SourceFile(f["name"], f["url"], f.get("size"), f.get("sha256"))
            for f in provenance.get("source_files") or ()
        ),
        seconds=provenance.get("seconds"),
        received_bytes=provenance.get("bytes"),
        completeness=quality.get("completeness_score"),
        missing_chunks=int(quality.get("missing_chunks_total") or len(missing)),
        missing_examples=tuple(missing[:5]),
        notes=tuple(str(n) for n in quality.get("notes") or ()),
        error=error if isinstance(error, Mapping) else None,
    )


def how_to_cite(facts: Facts) -> str:
    """The archive's own citation; else one made of what the record holds."""
    if facts.citation:
        doi = (
            f" https://doi.org/{facts.doi}" if facts.doi and facts.doi not in facts.citation else ""
        )
        return facts.citation + doi
    parts = [
        ", ".join(facts.authors),
        facts.title,
        f"{facts.archive.name}, {facts.source_id}",
        f"https://doi.org/{facts.doi}" if facts.doi else facts.download_url or facts.archive.url,
    ]
    return ". ".join(part for part in parts if part)


def licence_url(licence: str) -> str:
    """The page of an SPDX licence identifier."""
    return f"https://spdx.org/licenses/{licence}"


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None
