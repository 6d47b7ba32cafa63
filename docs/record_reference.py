"""``docs/records.md``: every field of a record, from the model.

``python -m docs.record_reference`` writes it; a test holds the committed page to the model.
"""

from __future__ import annotations

from pathlib import Path

from lib.records.fields import Presence
from lib.records.model import RecordField, record_fields

PATH = Path(__file__).with_name("records.md")
_HEAD = """# Records

The record of a volume lies beside it, as `<source>/metadata_<name>.json`, and is valid against
`schemas/metadata_schema.json`. Page and schema are written from `lib/records/model.py` by
`make docs`.

`core`, `technical`, `provenance` and `quality` lie in `metadata`, the others at the top. `[]` is a
member of a list. A field that is needed `complete` is there once the volume is, be it null. How
each is proven from the store is in [reliability](reliability.md).

| field | needed | what it is | shown as | where |
|---|---|---|---|---|
"""


def reference() -> str:
    """The page."""
    rows = (_row(field) for field in record_fields() if field.name[-2:] not in (".x", ".y", ".z"))
    return _HEAD + "".join(rows)


def _row(field: RecordField) -> str:
    presence: Presence | None = field.mark(Presence)
    needed = presence.when if presence else ""
    label = field.shown.label if field.shown else ""
    cells = (f"`{field.name}`", needed, _meaning(field), label, _where(field))
    return f"| {' | '.join(cells)} |\n"


def _meaning(field: RecordField) -> str:
    """Its own description, else that of what it holds."""
    words: str = field.info.description or (field.holds.__doc__ if field.holds else None) or ""
    return " ".join(words.partition("\n\n")[0].split())


def _where(field: RecordField) -> str:
    """Who shows the field."""
    shown = field.shown
    if shown is None:
        return ""
    crate = f"RO-Crate ({shown.crate})" if shown.crate else ""
    column = f"Croissant (`{shown.column}`)" if shown.column else ""
    report, artifact = "report" if shown.report else "", "artifact" if shown.artifact else ""
    return ", ".join(part for part in (report, artifact, crate, column) if part)


if __name__ == "__main__":
    PATH.write_text(reference(), "utf-8")
