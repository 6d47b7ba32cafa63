"""The parameters of the flow ``macroscope``, typed: its form explains itself."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from lib.archives.registry import REGISTRY
from lib.errors import ConfigError
from lib.execution import MODES, check_sources, mode
from lib.ingest.datasets import Dataset


def _known(name: str) -> str:
    try:
        check_sources([name], REGISTRY)
    except ConfigError as error:
        raise ValueError(error.message) from None
    return name


def _known_mode(name: str) -> str:
    try:
        return mode(name).name
    except ConfigError as error:
        raise ValueError(error.message) from None


def _shown(title: str, description: str, *examples: Any) -> Any:
    """What a form shows of a parameter; Prefect replaces a field's own title and description."""
    said = {"title": title, "description": description}
    return Field(json_schema_extra={**said, **({"examples": [*examples]} if examples else {})})


KnownMode = Annotated[str, AfterValidator(_known_mode), Field(json_schema_extra={"enum": [*MODES]})]
ModeName = Annotated[
    KnownMode | None,
    _shown("Mode", "In which order sources run; empty: as the installation sets it.", "staged"),
]
SourceName = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": [*REGISTRY]})]
SourceNames = Annotated[
    list[SourceName] | None,
    _shown(
        "Sources",
        "Only these; empty: all, or none where addresses or datasets are given.",
        ["ebi", "idr"],
    ),
]
SourceSettings = Annotated[
    dict[str, dict[str, Any]] | None,
    _shown(
        "Settings by source",
        "Settings of single sources, by their names in config/config.yaml.",
        {"flyem": {"crop_size": "z=64,y=128,x=128"}},
    ),
]
DryRun = Annotated[bool, _shown("Plan only", "Show what it would cost; fetch no voxels.", True)]
AddressList = Annotated[
    list[str] | None,
    _shown(
        "Addresses", "Volumes by their addresses.", ["empiar:10310", "s3://bucket/x.zarr|zarr:em"]
    ),
]
DatasetList = Annotated[
    list[Dataset] | None,
    _shown(
        "Datasets",
        "Addresses with options of their own, each a run of its own; one that fails stops no "
        "other.",
        [{"address": "empiar:10310", "group": "worms"}],
    ),
]
