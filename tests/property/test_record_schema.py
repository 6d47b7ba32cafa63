"""The schema that the model is written out as judges records as the one written by hand did.

``tests/fixtures/record_schema_by_hand.json`` is that one, as it was when the model took its place.
Records are drawn from it, and from it with one value changed; both schemas must agree on each. A
field that came later is unknown to the old schema and in no record drawn from it.
"""

from __future__ import annotations

import copy
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lib.records.lifecycle import SCHEMA_VERSION, Status
from lib.records.manager import schema_errors
from lib.records.model import Record

FIXTURES = Path(__file__).parents[1] / "fixtures"
BY_HAND: dict[str, Any] = json.loads((FIXTURES / "record_schema_by_hand.json").read_text())
VALIDATOR = Draft202012Validator(BY_HAND, format_checker=Draft202012Validator.FORMAT_CHECKER)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=8)
NUMBERS = st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9)
OBJECTS = st.dictionaries(WORDS, st.none() | NUMBERS | WORDS, max_size=2)
OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "object": OBJECTS,
    "array": st.lists(NUMBERS, max_size=2),
}
OF_FORMAT: dict[str, st.SearchStrategy[Any]] = {
    "uuid": st.uuids().map(str),
    "date": st.dates().map(str),
    "date-time": st.datetimes().map(lambda t: f"{t.isoformat(timespec='milliseconds')}Z"),
}
MANY = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a record takes minutes
)


def value(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a node of the schema accepts; of the keywords that the schema by hand has."""
    if "$ref" in node:
        return value(BY_HAND["$defs"][node["$ref"].rpartition("/")[2]])
    if "const" in node:
        return st.just(node["const"])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if "anyOf" in node:
        return st.one_of([value(one) for one in node["anyOf"]])
    kinds = node.get("type", "object")
    return st.one_of([typed(node, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)])


def typed(node: dict[str, Any], kind: str) -> st.SearchStrategy[Any]:
    if kind == "string":
        if "format" in node:
            return OF_FORMAT[node["format"]]
        if "pattern" in node:
            return st.from_regex(node["pattern"].replace("$", r"\Z"))
        return WORDS.filter(lambda text: len(text) >= node.get("minLength", 0))
    if kind in ("integer", "number"):
        least, most = node.get("minimum", -1e6), node.get("maximum", 1e6)
        if kind == "integer":
            return st.integers(int(least), int(most))
        above = node.get("exclusiveMinimum")
        return st.floats(least if above is None else above, most, exclude_min=above is not None)
    if kind == "array" and "items" in node:
        unique = node.get("uniqueItems", False)
        return st.lists(
            value(node["items"]),
            min_size=node.get("minItems", 0),
            max_size=node.get("maxItems", node.get("minItems", 0) + 2),
            unique=unique,
        )
    if kind == "object" and "properties" in node:
        members = {name: value(one) for name, one in node["properties"].items()}
        needed = {name: members.pop(name) for name in node.get("required", ())}
        return st.fixed_dictionaries(needed, optional=members)
    if kind == "object" and isinstance(node.get("additionalProperties"), dict):
        return st.dictionaries(WORDS, value(node["additionalProperties"]), max_size=2)
    return OF_TYPE[kind]


@st.composite
def current(draw: st.DrawFn) -> dict[str, Any]:
    """A record of version 3.0, with what its status demands."""
    definitions = BY_HAND["$defs"]
    record: dict[str, Any] = draw(value(definitions["current"]))
    record["status"] = draw(st.sampled_from(Status))
    if record["status"] == "failed":
        record["error"] = draw(value(definitions["error"]["anyOf"][1]))
    if record["status"] == "complete":
        record["error"], record["progress"]["percentage"] = None, 100
        demands = definitions["current"]["allOf"][0]["then"]["properties"]
        for section, demand in demands["metadata"]["properties"].items():
            for name in demand["required"]:
                member = definitions[section]["properties"][name]
                record["metadata"][section].setdefault(name, draw(value(member)))
        record["files"].setdefault("volume", "ebi/x.npy")
    return record


OLDER = value(BY_HAND["$defs"]["older"])
RECORDS = st.one_of(current(), OLDER)


def accepted(record: Any) -> bool:
    return VALIDATOR.is_valid(record)


@MANY
@given(RECORDS)
def test_what_was_valid_is_valid_and_can_be_read(record: dict[str, Any]) -> None:
    assert accepted(record), "the drawing is wrong"
    assert schema_errors(record) == []
    read = Record.read(record)
    if record.get("schema_version") == SCHEMA_VERSION:
        assert Record.model_validate(record) == read, "the model refuses nothing of it, either"


CHANGES: list[Any] = [
    None, True, -1, 0, 0.5, 1.5, 3, 101, 1e300, "", "x", "2018-06-11", "0" * 64, "Complete",
    [], [1], [0, 1, 2], [1, 2, 3], [1, 2, 3, 4, 5, 6], ["z", "y"], {}, {"a": 1}, {"a": -1},
    {"x": 1, "y": 1, "z": 1}, {"x": 1, "y": 1, "z": 0}, {"counts": [1]}, {"counts": [-1]},
]  # fmt: skip
WORDS_OF_PATTERNS = (
    "2026-11-21T10:52:54.123Z", "0" * 64, "https://a/b", "10.1234/x", "ebi", "md5:0", "2018",
    "2018-06-11T10:52:54", "2018-06-11", "00000000-0000-5000-8000-000000000000",
)  # fmt: skip


def example(node: dict[str, Any]) -> Any:
    """One value that a node of the schema by hand accepts, with every field that it may have."""
    if "$ref" in node:
        return example(BY_HAND["$defs"][node["$ref"].rpartition("/")[2]])
    if "const" in node or "enum" in node:
        return node.get("const", node.get("enum", [None])[0])
    if "anyOf" in node:
        return example(next(one for one in node["anyOf"] if one != {"type": "null"}))
    kinds = node.get("type", "object")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if kind == "string":
        judge = Draft202012Validator(node, format_checker=VALIDATOR.format_checker)
        return next(word for word in WORDS_OF_PATTERNS if judge.is_valid(word))
    if kind == "array":
        if node.get("uniqueItems"):
            return node["items"]["enum"][-3:]
        return [example(node.get("items", {}))] * node.get("minItems", 1)
    if kind == "object":
        named = {name: example(one) for name, one in node.get("properties", {}).items()}
        more = node.get("additionalProperties")
        return named or {"a": example(more) if isinstance(more, dict) else 1}
    return {"boolean": True, "null": None}.get(kind, 1)


def whole(status: str) -> dict[str, Any]:
    """A valid record with every field, or an older one with every field that one may have."""
    if status == "older":
        found: dict[str, Any] = example(BY_HAND["$defs"]["older"])
        return found
    record: dict[str, Any] = example(BY_HAND["$defs"]["current"])
    record["status"] = status
    record["progress"]["percentage"] = 100 if status == "complete" else 5
    if status == "complete":
        record["error"] = None
    return record


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of every value of a document."""
    members = node.items() if isinstance(node, dict) else ()
    members = enumerate(node) if isinstance(node, list) else members
    return [path, *(place for key, one in members for place in places(one, (*path, key)))]


@pytest.mark.long  # some thousand documents
@pytest.mark.parametrize("status", ["complete", "older"])
def test_every_field_changed_removed_or_joined_is_judged_as_before(status: str) -> None:
    record = whole(status)
    assert accepted(record)
    tried = 0
    for *within, key in places(record)[1:]:
        changed = copy.deepcopy(record)
        holder: Any = changed
        for step in within:
            holder = holder[step]
        kept = holder[key]
        for one in CHANGES:
            holder[key] = one
            assert (schema_errors(changed) == []) == accepted(changed), (within, key, one)
        del holder[key]
        assert (schema_errors(changed) == []) == accepted(changed), (within, key, "removed")
        if isinstance(holder, dict):
            holder[key], holder["surprise"] = kept, 1
            assert (schema_errors(changed) == []) == accepted(changed), (within, "joined")
        tried += 1
    assert tried > 60


def in_fixtures() -> list[tuple[str, dict[str, Any]]]:
    """Records that earlier versions wrote, and the smallest one that may be complete."""
    found = [(path.name, json.loads(path.read_text())) for path in FIXTURES.glob("records_v2/*")]
    with tarfile.open(FIXTURES / "store_0_1_0" / "store.tar.xz") as store:
        for member in store:
            name = member.name.rpartition("/")[2]
            file = store.extractfile(member) if name.startswith("metadata_") else None
            if file is not None and name.endswith(".json"):
                found.append((name, json.load(file)))
    return found


@pytest.mark.parametrize(
    "record", [pytest.param(record, id=name) for name, record in in_fixtures()]
)
def test_what_earlier_versions_wrote_is_valid_and_read(record: dict[str, Any]) -> None:
    assert accepted(record)
    assert schema_errors(record) == []
    read = Record.read(record)
    assert (read.source, read.source_id) == (record["source"], record["source_id"])
    assert read.shape_zyx is None or len(read.shape_zyx) == 3
    if record.get("schema_version") == SCHEMA_VERSION:
        assert Record.model_validate(record) == read


def test_there_are_enough_of_them() -> None:
    assert len(in_fixtures()) >= 9
