"""``datasets.yaml``: many addresses with their options, as sources with settings.

A list of addresses, or of mappings with an address and options; options that all share stand under
``defaults``, those of a group under its name in ``groups``::

    defaults: {level: s2}
    groups:
      liver: {licence: CC0-1.0}
    datasets:
      - EMPIAR-10310
      - {address: "s3://bucket/x.zarr|zarr:em", name: liver-1, group: liver, box: "z=0:64"}
      - {address: "data/stack.tif", set: {mrc_mode0: uint8}}
      - {address: "openorganelle:jrc_hela-2/recon-1/labels/groundtruth", crops: all, padding: 64}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lib.archives.address.grammar import is_named, named_form, parse_address, settings_of
from lib.archives.registry import archive
from lib.config.errors import Refusals, suggestion
from lib.config.manager import LoadedSettings
from lib.config.sources import read_yaml
from lib.errors import ConfigError

MOST_DATASETS = 10_000

SETTING_OF = {"level": "scale_level", "format": "output_format", "voxel_size": "voxel_size_nm"}
"""Options that are called otherwise among a source's settings."""
_OPTION_OF = {setting: option for option, setting in SETTING_OF.items()}


class Options(BaseModel):
    """What may be said of a dataset; what is left out comes from the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: str | list[str] | None = Field(
        default=None,
        title="Scale level",
        description="Number or name of a level, several, or all.",
        examples=["s2"],
    )
    box: str | None = Field(
        default=None,
        title="Box",
        description="Part of the volume, in voxels or nanometres.",
        examples=["z=0:64,y=100:300,x=0:2400nm"],
    )
    kind: Literal["auto", "image", "labels"] | None = Field(
        default=None, title="Kind", description="Image or labels, where the data do not say."
    )
    format: Literal["zarr", "npy"] | None = Field(
        default=None, title="Output format", description="OME-Zarr 0.5, or one .npy file."
    )
    voxel_size: str | list[float] | dict[str, float] | None = Field(
        default=None,
        title="Voxel size",
        description="Nanometres, z,y,x, or z, y and x by name.",
        examples=["40,4,4", "z=40,y=4,x=4"],
    )
    padding: int | None = Field(
        default=None, title="Padding", ge=0, description="Voxels of EM on each side of a crop."
    )
    title: str | None = Field(
        default=None,
        title="Title",
        description="For the record.",
        examples=["Liver of a zebrafish"],
    )
    licence: str | None = Field(
        default=None,
        title="Licence",
        description="SPDX id, where you know it.",
        examples=["CC0-1.0"],
    )
    citation: str | None = Field(
        default=None,
        title="Citation",
        description="What to cite.",
        examples=["doi:10.6019/EMPIAR-10310"],
    )
    set: dict[str, Any] = Field(
        default_factory=dict,
        title="Further settings",
        description="Any setting of the source, by its name in config/config.yaml.",
        examples=[{"mrc_mode0": "uint8"}],
    )

    def given(self) -> dict[str, Any]:
        """The settings that the options stand for; later ones win."""
        apart = {"set", "address", "name", "group", "crops"}
        own = self.model_dump(exclude_none=True, exclude=apart)
        return {**{SETTING_OF.get(k, k): v for k, v in own.items()}, **self.set}


class Dataset(Options):
    """One address with its options."""

    address: str = Field(
        title="Address",
        description="A path, https://, s3://, gs://, ftp://, or a named archive's.",
        examples=["empiar:10310", "s3://bucket/x.zarr|zarr:em"],
    )
    name: str | None = Field(
        default=None,
        title="Name",
        description="Of the volume; else made from the address.",
        examples=["liver_1"],
    )
    labels: str | list[str] | None = Field(
        default=None,
        title="Labels",
        description="Of the image, by their address; of FlyEM a version and an instance.",
        examples=["s3://bucket/x.zarr|zarr:labels/mito"],
    )
    crops: str | list[str] | None = Field(
        default=None,
        title="Crops",
        description="Of OpenOrganelle, below the address: their names, or all. Each is brought in "
        "with the EM around it and all its classes, as one volume with one record.",
        examples=["all", ["crop234", "crop237"]],
    )
    group: str | None = Field(
        default=None,
        title="Group",
        description="Under which report and catalogue show it.",
        examples=["livers"],
    )

    def given(self) -> dict[str, Any]:
        """The settings that the options stand for."""
        name = {} if self.name is None else {"name": self.name}
        crops = {} if self.crops is None else {"with_em": True}
        return {**super().given(), **name, **crops}


class DatasetsFile(BaseModel):
    """The whole document."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    defaults: Options = Field(default_factory=Options)
    groups: dict[str, Options] = Field(default_factory=dict)
    datasets: list[Dataset]


@dataclass(frozen=True, slots=True)
class Job:
    """One dataset as a run takes it.

    Attributes
    ----------
    label
        What people call it; no two jobs of a run have the same.
    settings
        Of its source.
    where
        Where it was read, for errors.
    """

    label: str
    source: str
    settings: dict[str, Any]
    group: str | None = None
    where: str = ""


def read_datasets(path: str | Path) -> tuple[list[Dataset], list[Job]]:
    """The datasets of a file, with defaults and groups laid under the options of each; their jobs.

    Paths are counted from the file's folder.

    Raises
    ------
    ConfigError
        The file cannot be read, or entries are wrong: all of them are told with their lines.
    """
    where = Path(path).expanduser()
    node, document = read_yaml(path)
    if isinstance(document, list):
        document, shift = {"datasets": document}, 1
    else:
        shift = 0
    if not isinstance(document, dict):
        raise ConfigError(
            "a list of addresses, or datasets: with one, is needed", location=str(path)
        )
    document = {key: value for key, value in document.items() if value is not None}
    listed = document.get("datasets")
    if isinstance(listed, list):
        document["datasets"] = [{"address": x} if isinstance(x, str) else x for x in listed]
    refused = Refusals()

    def line_of(loc: Sequence[Any]) -> str:
        return f"{path}, line {_line(node, loc[shift:])}"

    try:
        found = DatasetsFile.model_validate(document)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            with refused.noting():
                raise refusal(detail, line_of(detail["loc"])) from None
        refused.raise_all()
        raise
    merged = []
    for number, one in enumerate(found.datasets):
        with refused.noting():
            merged.append(_merged(one, found, where.parent, line_of(("datasets", number))))
    if not found.datasets or len(found.datasets) > MOST_DATASETS:
        with refused.noting():
            raise ConfigError(
                f"datasets: {len(found.datasets)} are named, from 1 to {MOST_DATASETS} can be",
                location=str(path),
            )
    refused.raise_all()
    lines = [line_of(("datasets", number)) for number in range(len(merged))]
    return merged, jobs_of(merged, lines)


def jobs_of(datasets: Sequence[Dataset], lines: Sequence[str] | None = None) -> list[Job]:
    """Source and settings of each dataset.

    Parameters
    ----------
    lines
        Where each stands, for errors.

    Raises
    ------
    ConfigError
        An address cannot be read, an option is none of its source, or two entries ask for the same.
    """
    refused, jobs, seen = Refusals(), list[Job](), dict[str, str]()
    for number, one in enumerate(datasets):
        where = lines[number] if lines else f"dataset {number + 1}"
        with refused.noting():
            job = _job(one, where)
            key = repr((job.source, sorted(job.settings.items(), key=lambda pair: pair[0])))
            if key in seen:
                raise ConfigError(
                    f"{where}: {_short(one.address)} is there already, at {seen[key]}",
                    location=where,
                )
            seen[key] = where
            jobs.append(job)
    refused.raise_all()
    return [*_told_apart(jobs)]


def check(jobs: Iterable[Job], loaded: LoadedSettings) -> None:
    """Raise `ConfigError` for every setting that its source refuses."""
    refused = Refusals()
    for job in jobs:
        with refused.noting():
            try:
                loaded.loader(job.source, job.settings)
            except ConfigError as error:
                where = job.where or job.label
                raise ConfigError(f"{where}: {error.message}", location=where) from None
    refused.raise_all()


def refusal(detail: Mapping[str, Any], where: str) -> ConfigError:
    """What pydantic has against a list of datasets, for people.

    Parameters
    ----------
    detail
        One of ``ValidationError.errors()``; its ``loc`` is that in the whole list.
    """
    key = ".".join(str(part) for part in detail["loc"][-2:] if not isinstance(part, int))
    reason = str(detail["msg"]).replace("Input should be", "must be")
    if detail["type"] == "extra_forbidden":
        name, known = str(detail["loc"][-1]), _options_at(detail["loc"])
        if name in Dataset.model_fields and name not in known:
            reason = "this is said of a dataset, in its own entry"
        else:
            reason = f"there is no such option; {suggestion(name, known)} (other settings: set)"
    return ConfigError(f"{where}: {key}: {reason}", location=where)


# --- inside ---------------------------------------------------------------------------------


def _options_at(loc: Sequence[Any]) -> Iterable[str]:
    if len(loc) == 1:
        return DatasetsFile.model_fields
    return Options.model_fields if loc[0] in ("defaults", "groups") else Dataset.model_fields


def _job(one: Dataset, where: str) -> Job:
    try:
        source, own = settings_of(one.address)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", location=where) from None
    _refuse_twice(one, where)
    fields = archive(source).config_model.model_fields
    given = one.given()
    if one.crops is not None and "with_em" not in fields:
        raise ConfigError(
            f"{where}: crops: {source} has no crops with EM around them", location=where
        )
    if one.crops is None and one.padding and not given.get("with_em"):
        raise ConfigError(f"{where}: padding is that of crops: name them, or all", location=where)
    if source == "flyem" and isinstance(given.get("labels"), str):
        given["labels"] = given["labels"].removeprefix("flyem:")
    if "name" not in fields:
        given.pop("name", None)  # what people call it, no more: the archive names its volumes
    for key in given:
        if key in one.set and key in own:
            raise ConfigError(f"{where}: set: the address itself says {key}", location=where)
        if key not in fields:
            raise ConfigError(
                f"{where}: {key} is no setting of {source}; {suggestion(key, fields)}",
                location=where,
            )
    if one.crops is not None and one.crops != "all":
        names = [one.crops] if isinstance(one.crops, str) else one.crops
        folder = str(own.get("zarr_path") or "")
        own = {**own, "zarr_path": [f"{folder}/{name}".strip("/") for name in names]}
    label = one.name or _short(one.address)
    level = given.get("scale_level")
    told = f" {level if isinstance(level, str) else '+'.join(level)}" if level else ""
    return Job(f"{label}{told}", source, {**given, **own}, one.group, where)


def _refuse_twice(options: Options, where: str) -> None:
    """Raise `ConfigError` for a setting that an option and ``set`` both say."""
    for setting in options.set:
        option = _OPTION_OF.get(setting, setting)
        if getattr(options, option, None) is not None:
            raise ConfigError(
                f"{where}: {option} is said, and {setting} in set: leave one out", location=where
            )


def _short(address: str) -> str:
    """An address in at most 60 letters: its end tells more than its beginning."""
    if is_named(address):
        return named_form(address)[:60]
    text = str(parse_address(address))
    return text if len(text) <= 60 else f"...{text[-57:]}"


def _told_apart(jobs: Sequence[Job]) -> Iterable[Job]:
    """The same jobs, each with a label that no other has: a number follows where it is shared."""
    taken, natural = set[str](), {job.label for job in jobs}
    for job in jobs:
        label, number = job.label, 1
        while label in taken or (number > 1 and label in natural):
            number += 1
            label = f"{job.label} ({number})"
        taken.add(label)
        yield replace(job, label=label)


def _merged(one: Dataset, file: DatasetsFile, folder: Path, where: str) -> Dataset:
    """A dataset with what its group and the defaults add: options that its source has."""
    if one.group is not None and file.groups and one.group not in file.groups:
        raise ConfigError(
            f"{where}: there is no group {one.group!r}; {suggestion(one.group, file.groups)}",
            location=where,
        )
    try:
        address = one.address
        if not is_named(address):
            address = parse_address(address, folder.absolute()).whole
        source, _ = settings_of(address)
        labels = [one.labels] if isinstance(one.labels, str) else one.labels or []
        if source == "address":
            labels = [
                text if is_named(text) else parse_address(text, folder.absolute()).whole
                for text in labels
            ]
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", location=where) from None
    fields = archive(source).config_model.model_fields
    told: dict[str, Any] = {}
    further: dict[str, Any] = {}
    apart = {"set", "address"}
    for layer in (file.defaults, file.groups.get(one.group or "", Options()), one):
        _refuse_twice(layer, where)
        said = layer.model_dump(exclude_none=True, exclude=apart)
        for key, value in said.items():
            setting = SETTING_OF.get(key, key)
            if layer is one or setting in fields:
                told[key] = value
                further.pop(setting, None)
        for setting, value in layer.set.items():
            if layer is one or setting in fields:
                further[setting] = value
                told.pop(_OPTION_OF.get(setting, setting), None)
    if one.labels is not None and source == "address":
        told["labels"] = labels
    return Dataset.model_validate({**told, "address": address, "set": further})


def _line(node: yaml.Node | None, loc: Sequence[Any]) -> int:
    """The line, from 1, of the nearest node on the way to a place of the document."""
    line = 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pairs = {key.value: (key, value) for key, value in node.value}
            if part not in pairs:
                return line
            key, node = pairs[part]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                return line
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
