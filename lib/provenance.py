"""Where a value came from: a measurement, a statement, a setting or an assumption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

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


@dataclass(frozen=True, slots=True)
class Stated(Generic[T]):
    """A value together with who states it."""

    value: T
    source: Source
    where: str | None = None

    @property
    def provenance(self) -> Provenance:
        return Provenance(source=self.source, where=self.where)
