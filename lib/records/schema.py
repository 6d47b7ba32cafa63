"""Whether a record is valid, by the JSON Schema that `lib.records.model` is written out as."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from lib.errors import RecordError
from lib.records.lifecycle import RecordDict
from lib.safety import redact_text


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema of records."""
    text = resources.files("schemas").joinpath("metadata_schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@cache
def _validator() -> Any:
    return Draft202012Validator(schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)


def schema_errors(record: object) -> list[str]:
    """Return everything that is wrong with a record, each as ``field: what``, sorted by field."""
    found = sorted(_validator().iter_errors(record), key=lambda e: [str(p) for p in e.path])
    return list(dict.fromkeys(_sentence(error) for error in found))


def check_schema(record: RecordDict, location: str) -> None:
    """Raise `RecordError` with all errors of an invalid record."""
    errors = schema_errors(record)
    if errors:
        raise RecordError(
            f"the record is invalid: {'; '.join(errors)}",
            location=location,
            advice="Report this: the record was not written",
        )


def _sentence(error: ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path) or "(record)"
    why = error.message
    if error.context:
        reasons = dict.fromkeys(cause.message for cause in error.context)
        why = " and ".join(reason[:200] for reason in reasons)
    return redact_text(f"{where}: {why[:500]}")
