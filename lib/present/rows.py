"""The fields of a record as people read them, in the order of the model; and how to cite it.

What a field is called and where it is shown is stated with the field (`lib.records.fields.Shown`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lib.archives.base import Publisher
from lib.archives.registry import REGISTRY, archive
from lib.present.formatting import duration_text, shape_text, size_text, voxel_text
from lib.records.fields import Form, Shown
from lib.records.model import Record, record_fields

Json = Mapping[str, Any]
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One field of one record.

    ``name`` is the field's (``core.licence``); ``href`` is an address that it leads to, which is
    checked before it becomes a link; ``code`` texts are keys and digests.
    """

    name: str
    label: str
    text: str
    href: str | None = None
    code: bool = False


def shown_fields(record: Record) -> Iterator[tuple[str, Shown, Any]]:
    """Name, mark and value of every field that is shown anywhere."""
    for field in record_fields():
        if (shown := field.shown) is not None:
            yield field.name, shown, field.of(record)


def rows(record: Record, place: Literal["card", "details", "artifact"]) -> list[Row]:
    """What one place shows of a record; a field without a value has no row, or says so."""
    found = []
    for name, shown, value in shown_fields(record):
        if not (shown.artifact if place == "artifact" else shown.report == place):
            continue
        text = value_text(value, shown.form, record.assumed_axes) or shown.absent
        if text:
            href = _LEADS[shown.form](value) if value and shown.form in _LEADS else None
            found.append(Row(name, shown.label, text, href, shown.form == "code"))
    return found


def value_text(value: Any, form: Form, assumed_axes: str = "") -> str:
    """A value in words; empty for one that is absent.

    Of lengths, those along axes of which nobody states any are not shown as such.
    """
    if value is None:
        return ""
    if form == "lengths":
        return voxel_text(value.zyx, assumed_axes)
    return _FORMS.get(form, str)(value)


def _names(values: Sequence[Any]) -> str:
    more = len(values) - _MOST_NAMED
    named = ", ".join(str(value) for value in values[:_MOST_NAMED])
    return f"{named} and {more} more" if more > 0 else named


_FORMS: Mapping[str, Callable[[Any], str]] = {
    "shape": shape_text,
    "nm": lambda value: f"{value:.6g} nm",
    "bytes": size_text,
    "share": lambda value: f"{100 * value:.6g} %",
    "duration": duration_text,
    "count": lambda value: str(value) if value else "",
    "names": _names,
    "sentences": "; ".join,
}
_LEADS: Mapping[str, Callable[[str], str]] = {
    "licence": lambda value: licence_url(value),
    "doi": lambda value: f"https://doi.org/{value}",
    "address": str,
}


# --- whose it is ----------------------------------------------------------------------------


def publisher(source: str) -> Publisher:
    """Who publishes a source's data; a source that is not known here keeps its own name."""
    return archive(source).publisher if source in REGISTRY else Publisher(source, "")


def how_to_cite(record: Record) -> str:
    """The archive's own citation; else one made of what the record holds."""
    core, whose = record.core, publisher(record.source)
    if core.citation:
        doi = f" https://doi.org/{core.doi}" if core.doi and core.doi not in core.citation else ""
        return core.citation + doi
    parts = [
        ", ".join(core.authors or ()),
        record.title,
        f"{whose.name}, {record.source_id}",
        f"https://doi.org/{core.doi}" if core.doi else record.provenance.download_url or whose.url,
    ]
    return ". ".join(part for part in parts if part)


def licence_url(licence: str) -> str:
    """The page of an SPDX licence identifier."""
    return f"https://spdx.org/licenses/{licence}"
