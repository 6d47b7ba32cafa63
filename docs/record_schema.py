"""``schemas/metadata_schema.json``, from the model of a record.

``python -m docs.record_schema`` writes it; a test holds the committed file to the model.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from lib.records.fields import COMPLETE, Part
from lib.records.lifecycle import SCHEMA_VERSION
from lib.records.model import Metadata, OlderRecord, Record
from lib.records.sections import Files

PATH = Path(__file__).parents[1] / "schemas" / "metadata_schema.json"
_LIST = re.compile(r'\[\n\s+((?:"[^"\n]*"|null)(?:,\n\s+(?:"[^"\n]*"|null))*)\n\s+\]')
_OLDER = {"not": {"type": "string", "pattern": "^[12](\\.|$)"}}


class _Plainly(GenerateJsonSchema):
    """Without titles that only repeat a name, without defaults, and null as a type."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        if isinstance(inner.get("type"), str) and "const" not in inner:
            values = {"enum": [*inner["enum"], None]} if "enum" in inner else {}
            return {**inner, **values, "type": [inner["type"], "null"]}
        return {"anyOf": [inner, {"type": "null"}]}


def generated() -> dict[str, Any]:
    """The JSON Schema of a record of this version or an older one."""
    _, written = models_json_schema(
        [(Record, "validation"), (OlderRecord, "validation")], schema_generator=_Plainly
    )
    definitions = {name: _briefly(part) for name, part in written["$defs"].items()}
    definitions["Record"]["allOf"] = [
        _if_status("complete", _complete()),
        _if_status("failed", {"error": {"type": "object"}}),
    ]
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:macroscope:schema:metadata:{SCHEMA_VERSION}",
        "title": "Metadata record of one volume",
        "description": f"Version {SCHEMA_VERSION} is what macroscope writes; every field outside "
        "additional_metadata is named here. Records without schema_version, or of 2.x, are older "
        "ones and are read leniently.",
        "type": "object",
        "if": {"required": ["schema_version"], "properties": {"schema_version": _OLDER}},
        "then": {"$ref": "#/$defs/Record"},
        "else": {"$ref": "#/$defs/OlderRecord"},
        "$defs": definitions,
    }


def _briefly(part: dict[str, Any]) -> dict[str, Any]:
    """Without its title, which is its name, and with the first paragraph of its docstring."""
    kept = {key: value for key, value in part.items() if key != "title"}
    if "description" in kept:
        kept["description"] = " ".join(kept["description"].partition("\n\n")[0].split())
    return kept


def _if_status(status: str, properties: dict[str, Any]) -> dict[str, Any]:
    is_it = {"required": ["status"], "properties": {"status": {"const": status}}}
    return {"if": is_it, "then": {"properties": properties}}


def _complete() -> dict[str, Any]:
    """What a complete record must have beside the rest."""
    sections = {
        name: _with_all_of(field.annotation) for name, field in Metadata.model_fields.items()
    }
    return {
        "error": {"type": "null"},
        "progress": {"properties": {"percentage": {"const": 100}}},
        "metadata": {"properties": sections},
        "files": _with_all_of(Files),
    }


def _with_all_of(part: type[Part] | None) -> dict[str, Any]:
    assert part is not None
    return {
        "required": [
            name for name, field in part.model_fields.items() if COMPLETE in field.metadata
        ]
    }


def text() -> str:
    """The file; lists of words are one line each."""
    spread = json.dumps(generated(), indent=2, ensure_ascii=False)
    return _LIST.sub(lambda found: f"[{' '.join(found[1].split())}]", spread) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), "utf-8")
