"""The forms of the deployments: what Prefect shows of a flow's parameters, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validation

from flows.macroscope import macroscope
from flows.sources import source_flow
from lib.archives.registry import REGISTRY
from lib.config.loader_base import AddressConfig
from lib.execution import MODES
from lib.ingest.datasets import Dataset


def schema_of(flow: Any) -> dict[str, Any]:
    """As a deployment keeps it: ``parameter_openapi_schema``."""
    return dict(parameter_schema(flow).model_dump())


def resolved(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A part of the schema without null and without references."""
    for one in part.get("anyOf", part.get("allOf", [])):
        if one.get("type") != "null":
            return {**{k: v for k, v in part.items() if k != "anyOf"}, **resolved(one, schema)}
    if "$ref" in part:
        return dict(schema["definitions"][part["$ref"].rpartition("/")[2]])
    return part


FULL = schema_of(macroscope)


@pytest.mark.parametrize("name", sorted(FULL["properties"]))
def test_each_parameter_of_the_full_run_says_what_it_is(name: str) -> None:
    part = FULL["properties"][name]
    assert part["title"] not in ("", name) and len(part["description"]) > 20 and part["examples"]


def test_what_there_is_to_choose_from_is_listed() -> None:
    assert resolved(FULL["properties"]["mode"], FULL)["enum"] == [*MODES, None]
    sources = resolved(FULL["properties"]["sources"], FULL)
    assert sources["items"]["enum"] == [*REGISTRY]
    dataset = FULL["definitions"]["Dataset"]
    assert set(dataset["properties"]) == set(Dataset.model_fields)
    assert all(p["title"] and p["description"] for p in dataset["properties"].values())
    kind = resolved(dataset["properties"]["kind"], FULL)
    assert kind["enum"] == ["auto", "image", "labels"]


@pytest.mark.parametrize(
    ("flow", "model"), [(FULL, "Dataset"), (schema_of(source_flow("address")), "AddressConfig")]
)
def test_what_a_person_writes_of_a_dataset_has_an_example(flow: dict[str, Any], model: str) -> None:
    fields = flow["definitions"][model]["properties"]
    written = {"name", "title", "licence", "citation", "voxel_size", "voxel_size_nm", "box"}
    written |= {"group", "doi", "organism", "specimen", "level", "scale_level"}
    found = {name: part["description"] for name, part in fields.items() if name in written}
    assert len(found) >= 7
    assert [name for name, said in found.items() if "or example" not in said] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "stagged"},
        {"sources": ["empiar"]},
        {"datasets": [{"address": "empiar:1", "levle": "s1"}]},
        {"datasets": [{"group": "no address"}]},
        {"datasets": [{"address": "empiar:1", "kind": "picture"}]},
        {"addresses": {"not": "a list"}},
    ],
)
def test_the_form_refuses_wrong_input(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterTypeError):
        macroscope.validate_parameters(wrong)
    errors = validation.validate(wrong, FULL, raise_on_error=False)
    assert errors, "the server would take it"


def test_the_form_takes_what_it_shows() -> None:
    right: dict[str, Any] = {
        "mode": "parallel",
        "sources": ["ebi"],
        "addresses": ["empiar:10310"],
        "datasets": [{"address": "empiar:10310", "level": "s1", "set": {"max_workers": 2}}],
        "parameters": {"flyem": {"crop_size": "z=64,y=128,x=128"}},
        "dry_run": True,
    }
    assert macroscope.validate_parameters(right)["datasets"][0].address == "empiar:10310"
    assert not validation.validate(right, FULL, raise_on_error=False)
    for name, part in FULL["properties"].items():
        for example in resolved(part, FULL).get("examples", []):
            macroscope.validate_parameters({name: example})


@pytest.mark.parametrize("source", sorted(REGISTRY))
def test_each_setting_of_a_source_says_what_it_is(source: str) -> None:
    schema = schema_of(source_flow(source))
    config = resolved(schema["properties"]["config"], schema)
    for name, part in config["properties"].items():
        assert part.get("title") and part.get("description"), name
    assert resolved(config["properties"]["output_format"], schema)["enum"] == ["zarr", "npy"]
    assert config["additionalProperties"] is False
    first = {"address": "addresses", "ebi": "entry_id", "idr": "image_ids", "flyem": "crop_size"}
    for name in ("box", first.get(source, "box")):
        for example in config["properties"][name]["examples"]:
            source_flow(source).validate_parameters({"config": {name: example}})
    with pytest.raises(ParameterTypeError):
        source_flow(source).validate_parameters({"config": {"output_format": "tiff"}})
    assert validation.validate(
        {"config": {"output_format": "tiff"}}, schema, raise_on_error=False
    ), "the server would take it"


@pytest.mark.parametrize("source", sorted(REGISTRY))
def test_what_is_left_out_of_a_form_stays_as_the_installation_sets_it(source: str) -> None:
    """The UI sends each default that the schema states, and of a boolean always one of both."""
    schema = schema_of(source_flow(source))
    assert schema["properties"]["config"]["default"] == {}
    config = resolved(schema["properties"]["config"], schema)
    for name, part in config["properties"].items():
        assert "default" not in part and part.get("type") != "boolean", name
    text = config["properties"]["keep_raw"]["description"]
    assert text.endswith("Empty: as this installation sets it, else true.")
    for given in ({}, {"keep_raw": False}, {"max_workers": None}):
        assert not validation.validate({"config": given}, schema, raise_on_error=False)
    wrong = {"config": {"keep_raw": "perhaps"}}
    assert validation.validate(wrong, schema, raise_on_error=False)


def test_what_the_form_of_the_full_run_sends_by_itself_is_a_run_that_names_nothing() -> None:
    sent = {name: part["default"] for name, part in FULL["properties"].items()}
    assert not any(sent.values())
    assert not validation.validate(sent, FULL, raise_on_error=False)
    assert macroscope.validate_parameters(sent) == sent
    dataset = FULL["definitions"]["Dataset"]["properties"]
    assert next(iter(dataset)) == "address"
    assert not [name for name, part in dataset.items() if "default" in part]


def test_no_form_asks_for_a_secret_or_for_what_no_run_may_change() -> None:
    schema = schema_of(source_flow("address"))
    shown = resolved(schema["properties"]["config"], schema)["properties"]
    assert next(iter(shown)) == "addresses"
    hidden = {"s3_key", "s3_secret", *AddressConfig.OPERATOR_ONLY}
    assert set(shown) == set(AddressConfig.model_fields) - hidden
    with_secret = {"config": {"s3_key": "k", "s3_secret": "s"}}
    assert validation.validate(with_secret, schema, raise_on_error=False), "kept by the server"
