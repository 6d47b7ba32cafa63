"""What archives and files say about a volume, in the words of a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lib import vocabulary
from lib.provenance import Provenance

_READ: Mapping[str, tuple[Callable[[str], str | None], str]] = {
    "title": (vocabulary.plain_text, "text"),
    "description": (vocabulary.plain_text, "text"),
    "modality": (vocabulary.modality, "modality"),
    "organism": (vocabulary.plain_text, "text"),
    "specimen": (vocabulary.plain_text, "text"),
    "licence": (vocabulary.licence, "licence with an SPDX identifier"),
    "citation": (vocabulary.plain_text, "text"),
    "doi": (vocabulary.doi, "DOI"),
    "imaging_date": (vocabulary.day, "date"),
    "release_date": (vocabulary.day, "date"),
}
_PLAIN_TEXTS = frozenset(field for field, (_, what) in _READ.items() if what == "text")


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
        for field, (read, _) in _READ.items():
            text = fields.get(field)
            if not isinstance(text, str):
                continue
            fields[field] = read(text)
            if fields[field] != text and field not in _PLAIN_TEXTS:
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
            f"{field.replace('_', ' ')}: {one.said!r} is no {_READ[field][1]} that is understood"
            for field, one in self.stated.items()
            if one.said is not None and field in _READ and getattr(self, field) in (None, "other")
        )
