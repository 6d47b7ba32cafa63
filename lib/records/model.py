"""What a record is: the model that its JSON Schema, its proofs, and all that shows it come from.

``python -m docs.record_schema`` (part of ``make docs``) writes ``schemas/metadata_schema.json``; a
test holds the committed file to this model. Records are checked by the schema
(`lib.records.manager`) and read by the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import ConfigDict, Field
from pydantic.fields import FieldInfo

from lib.about import assumed_axes
from lib.geometry import LengthsZYX, ShapeZYX
from lib.records.fields import (
    ALWAYS,
    LENIENT,
    Count,
    DataType,
    Moment,
    OrAbsent,
    Part,
    Proof,
    Sha256,
    Shown,
    Voxels,
    Words,
)
from lib.records.lifecycle import Status
from lib.records.sections import Core, Files, Quality, Technical, VolumeProvenance
from lib.vocabulary import Kind

_FORM = Proof("the form that the schema asks for")
_WORDS = Proof("", "the archive's own words: only the archive can tell")
_TIME = Proof("", "the time of a run: nothing else in the store keeps it")


class Error(Part):
    """Why a volume failed."""

    type: Words
    message: Words
    archive: str | None = None
    location: str | None = None
    unit: str | None = None
    retryable: OrAbsent[bool] = None
    advice: str | None = None
    traceback: str | None = None


class Progress(Part):
    """How far a run is with the volume."""

    percentage: float = Field(ge=0, le=100)
    current_step: str | None


class Metadata(Part):
    """What is known of the volume."""

    core: Annotated[Core, ALWAYS] = Field(default_factory=Core)
    technical: Annotated[Technical, ALWAYS] = Field(default_factory=Technical)
    provenance: Annotated[VolumeProvenance, ALWAYS] = Field(default_factory=VolumeProvenance)
    quality: Annotated[Quality, ALWAYS] = Field(default_factory=Quality)


class Member(Part):
    """A label image that is made with its image, and shares the image's record.

    Its objects are those of a record, histograms left out; see `lib.records.lifecycle`.
    """

    name: Annotated[Words, Proof("its volume lies under it")]
    source_id: Annotated[Words, _WORDS]
    metadata: Annotated[dict[str, Any], Proof("as a record's own, of the member's volume")]
    files: Annotated[
        dict[str, Any], Proof("they are there, and what was written; see `files` of a record")
    ]
    additional_metadata: Annotated[dict[str, Any], _WORDS]


class Record(Part):
    """Metadata record of one volume.

    A record that was read may lack what the schema demands: what an older one does not say in
    today's form is None or empty, never guessed.
    """

    id: Annotated[
        str,
        ALWAYS,
        Proof("computed again from source, source_id and name"),
        Field(json_schema_extra={"format": "uuid"}),
    ] = ""
    schema_version: Annotated[OrAbsent[Literal["3.0"]], ALWAYS, _FORM] = None
    source: Annotated[
        str,
        ALWAYS,
        Proof("`id` is computed from it, and the record lies in its folder"),
        Shown("Archive", report="", column="source"),
        Field(pattern="^[a-z][a-z0-9_-]*$"),
    ] = ""
    source_id: Annotated[
        Words,
        ALWAYS,
        Proof("`id` is computed from it"),
        Shown("Accession", report="details", column="source_id"),
    ] = ""
    name: Annotated[Words, ALWAYS, Proof("`id` is computed from it, and the record lies under it")]
    status: Annotated[
        OrAbsent[Status],
        ALWAYS,
        Proof("`complete` is what all of this proves; its form where it is another"),
    ] = None
    created_at: Annotated[OrAbsent[Moment], ALWAYS, _TIME] = None
    updated_at: Annotated[
        OrAbsent[Moment], ALWAYS, _TIME, Shown("Updated", report="details", artifact=False)
    ] = None
    progress: Annotated[OrAbsent[Progress], ALWAYS, Proof("100 % where the status is complete")] = (
        None
    )
    error: Annotated[Error | None, ALWAYS, Proof("none where the status is complete")] = None
    metadata: Annotated[Metadata, ALWAYS] = Field(default_factory=Metadata)
    files: Annotated[Files, ALWAYS] = Field(default_factory=Files)
    members: Annotated[OrAbsent[list[Member]], Proof("", "the record names none")] = None
    additional_metadata: Annotated[dict[str, Any], ALWAYS, _WORDS] = Field(default_factory=dict)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Record:
        """Read a record of any schema version; `lib.records.manager` says whether it is valid."""
        return cls.model_validate(_in_todays_form(document), context=LENIENT, extra="ignore")

    @property
    def core(self) -> Core:
        return self.metadata.core

    @property
    def technical(self) -> Technical:
        return self.metadata.technical

    @property
    def provenance(self) -> VolumeProvenance:
        return self.metadata.provenance

    @property
    def quality(self) -> Quality:
        return self.metadata.quality

    @property
    def title(self) -> str:
        return self.core.title or self.name

    @property
    def kind(self) -> Kind:
        return self.core.kind or "image"

    @property
    def shape_zyx(self) -> ShapeZYX | None:
        return self.core.volume_shape

    @property
    def voxel_nm_zyx(self) -> LengthsZYX | None:
        return self.core.voxel_size_nm.zyx if self.core.voxel_size_nm else None

    @property
    def assumed_axes(self) -> str:
        """Of ``zyx``, those whose voxel length nobody states: 1 nm stands in its place."""
        return assumed_axes(self.provenance.stated or {})

    @property
    def voxel_bytes(self) -> int | None:
        """Size of the decompressed voxels."""
        shape, dtype = self.core.volume_shape, self.core.data_type
        if shape is None or dtype is None:
            return None
        digits = "".join(c for c in dtype if c.isdigit())
        return math.prod(shape) * (int(digits) // 8 if digits else 1)

    @property
    def stored_bytes(self) -> int:
        """Of the volume in the store, and of the label images that share its record."""
        inside = [one.metadata.get("technical") or {} for one in self.members or ()]
        sizes = [self.technical.file_size_bytes, *(one.get("file_size_bytes") for one in inside)]
        return sum(size or 0 for size in sizes)

    @property
    def released(self) -> str | None:
        """When the data were made public, as exactly as the archive says it."""
        return self.core.release_date or self.core.deposition_date

    @property
    def missing_chunks(self) -> int:
        """How many chunks the archive lacks."""
        return self.quality.missing_chunks_total or len(self.quality.missing_chunks or ())


def _in_todays_form(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with what earlier versions wrote at its top where its section has it now."""
    metadata = document.get("metadata")
    sections: dict[str, Any] = dict(metadata) if isinstance(metadata, Mapping) else {}
    for section, field in Metadata.model_fields.items():
        members = field.annotation.model_fields  # type: ignore[union-attr]
        above = {name: document[name] for name in members if name in document}
        own = sections.get(section)
        sections[section] = {**above, **(own if isinstance(own, Mapping) else {})}
    name = document.get("name") or str(document.get("source_id") or "unknown")
    return {**document, "name": name, "metadata": sections}


class RecordField(NamedTuple):
    """One field of the model, wherever it lies.

    ``name`` is dotted, without ``metadata.``, and a member of a list is ``[]``:
    ``technical.levels[].shape``.
    """

    name: str
    info: FieldInfo

    def mark(self, kind: type[Any]) -> Any:
        """The field's mark of a kind (`Proof`, `Shown`), or None."""
        return next((mark for mark in self.info.metadata if isinstance(mark, kind)), None)

    @property
    def shown(self) -> Shown | None:
        found: Shown | None = self.mark(Shown)
        return found

    @property
    def holds(self) -> type[Part] | None:
        """The part of a record that is its value, or of which its value is a list."""
        return _part_in(self.info.annotation)[0]

    def of(self, record: Record) -> Any:
        """The value that a record has of a field that is no member of a list."""
        value: Any = record
        for step in self.name.split("."):
            value = getattr(value, step, None)
        return value


@cache
def record_fields() -> tuple[RecordField, ...]:
    """Every field of a record, members of its objects and lists after the field itself."""
    return tuple(_fields_of(Record, ""))


def _fields_of(part: type[Part], within: str) -> Iterator[RecordField]:
    for key, info in part.model_fields.items():
        name = f"{within}{key}"
        yield RecordField(name, info)
        inner, listed = _part_in(info.annotation)
        if inner is not None:
            here = "" if inner is Metadata else f"{name}{'[]' if listed else ''}."
            yield from _fields_of(inner, here)


def _part_in(kind: Any, listed: bool = False) -> tuple[type[Part] | None, bool]:
    """The part that a field's type holds, if it holds one, and whether it is a list of them."""
    if isinstance(kind, type) and issubclass(kind, Part):
        return kind, listed
    for inner in get_args(kind):
        found = _part_in(inner, listed or getattr(kind, "__origin__", None) is list)
        if found[0] is not None:
            return found
    return None, False


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
