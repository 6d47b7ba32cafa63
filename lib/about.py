"""What archives and files say about a volume, in the words of a record, and who says it:
a measurement, a statement, a setting or an assumption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lib import vocabulary

T = TypeVar("T")

Source = Literal["file", "api", "archive", "name", "configuration", "assumed"]
"""``file``: the data's own header or document. ``api``: the archive's catalogue. ``archive``: what
the publisher says of all its data, or of this data set on its pages, as kept in this program.
``name``: a file's or folder's name. ``configuration``: a setting. ``assumed``: nobody says it."""


class Provenance(BaseModel):
    """Who states a value.

    Attributes
    ----------
    where
        The field, tag, page or setting that states it.
    said
        The words themselves, where they had to be mapped or could not be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Source
    where: str | None = None
    said: str | None = None


def assumed_axes(stated: Mapping[str, Provenance]) -> str:
    """Of ``zyx``, those whose voxel length nobody states: 1 nm stands in its place."""
    by = {axis: stated.get(f"voxel_size_nm.{axis}") for axis in "zyx"}
    return "".join(axis for axis, one in by.items() if one and one.source == "assumed")


@dataclass(frozen=True, slots=True)
class Stated(Generic[T]):
    """A value together with who states it."""

    value: T
    source: Source
    where: str | None = None

    @property
    def provenance(self) -> Provenance:
        return Provenance(source=self.source, where=self.where)


class _Reading(NamedTuple):
    """How foreign text becomes a field, and what it is called where it cannot be read."""

    read: Callable[[str], str | None]
    what: str


_TEXT = _Reading(vocabulary.plain_text, "text")
_DAY = _Reading(vocabulary.day, "date")


class About(BaseModel):
    """What is said about a volume; absent stays absent, nothing is guessed.

    Whatever text an archive or a file has may be given. It is turned into the record's words here,
    before any voxel is fetched, so that no record can be refused for it later; what cannot be read
    becomes None, and `stated` keeps its words.

    Attributes
    ----------
    origin
        Who says what `stated` does not list by itself.
    stated
        Field by field, who says it, and in which words where they were mapped or not understood.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Annotated[str | None, _TEXT] = None
    description: Annotated[str | None, _TEXT] = None
    modality: Annotated[str | None, _Reading(vocabulary.modality, "modality")] = None
    organism: Annotated[str | None, _TEXT] = None
    specimen: Annotated[str | None, _TEXT] = None
    authors: tuple[str, ...] = ()
    licence: Annotated[  # SPDX id, or None where none is stated
        str | None, _Reading(vocabulary.licence, "licence with an SPDX identifier")
    ] = None
    citation: Annotated[str | None, _TEXT] = None
    doi: Annotated[str | None, _Reading(vocabulary.doi, "DOI")] = None
    imaging_date: Annotated[str | None, _DAY] = None  # ISO 8601
    release_date: Annotated[str | None, _DAY] = None
    extra: dict[str, Any] = Field(default_factory=dict)
    origin: Provenance = Provenance(source="api")
    stated: dict[str, Provenance] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read_foreign_text(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        fields = dict(data)
        origin = Provenance.model_validate(fields.get("origin", {"source": "api"}))
        stated = {
            field: Provenance.model_validate(one)
            for field, one in dict(fields.get("stated") or {}).items()
        }
        for field, (read, what) in _READ.items():
            text = fields.get(field)
            if not isinstance(text, str):
                continue
            fields[field] = read(text)
            if fields[field] != text and what != "text":
                quoted = {"said": vocabulary.plain_text(text, 200)}
                stated[field] = stated.get(field, origin).model_copy(update=quoted)
        authors = fields.get("authors") or ()
        if not isinstance(authors, str):
            names = (vocabulary.plain_text(name, 200) for name in authors if isinstance(name, str))
            fields["authors"] = tuple(name for name in names if name)
        return {**fields, "stated": stated}

    def revised(self, **changes: Any) -> Self:
        """The same with other fields, read as if they had been given at first."""
        kept = {field: one for field, one in self.stated.items() if field not in changes}
        given = {field: getattr(self, field) for field in type(self).model_fields}
        return type(self)(**{**given, **changes, "stated": {**kept, **changes.get("stated", {})}})

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was said and could not be read, in words for the record's notes."""
        return tuple(
            f"{field.replace('_', ' ')}: {one.said!r} is no {_READ[field].what} that is understood"
            for field, one in self.stated.items()
            if one.said is not None and field in _READ and getattr(self, field) in (None, "other")
        )


_READ = {
    field: mark
    for field, info in About.model_fields.items()
    for mark in info.metadata
    if isinstance(mark, _Reading)
}
SAID = tuple(_READ)
"""The fields that hold what archives and files say, but for the authors, who are several."""
