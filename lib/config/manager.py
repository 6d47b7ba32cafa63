"""All settings as one typed model, and where each of them came from.

Layers, strongest first: flow parameters, the environment, ``.env``, the endpoints of stand-in
archives, ``config/config.yaml``, sizes that keep a run on stand-ins small, defaults. Inside one
layer a loader's own value is stronger than the value common to all loaders.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lib.archives.registry import loader_configs
from lib.config.errors import Refusals, build, is_secret, suggestion
from lib.config.loaders import LoaderConfig
from lib.config.settings import Settings
from lib.config.sources import (
    DEFAULT_CONFIG_PATH,
    Keys,
    Layer,
    SettingValue,
    environment_layer,
    read_dotenv,
    services_layer,
    yaml_layer,
)
from lib.errors import ConfigError
from lib.execution import default_subflows, on_kubernetes

#: Sizes that keep a run on stand-ins small where the real archive's default is a gigabyte.
SAMPLE_SIZES: dict[str, dict[str, Any]] = {"flyem": {"crop_size": (96, 80, 72)}}

#: What the stand-ins' synthetic tissue compresses to: it is noisier than real images.
SAMPLE_COMPRESSION = 1.15


@dataclass(frozen=True)
class LoadedSettings:
    """The settings in force, and the origin of each by dotted key."""

    settings: Settings
    origins: Mapping[str, str]
    keys: Keys
    # merged, before typing, secrets in plain text: what loaders are built from with overrides
    given: Layer = field(repr=False)

    @property
    def needs_samples(self) -> bool:
        """Stand-ins are wanted, and nobody has said where they are."""
        return self.settings.archives == "samples" and self.settings.services is None

    def loader(
        self, name: str, overrides: Mapping[str, Any] | LoaderConfig | None = None
    ) -> LoaderConfig:
        """One loader's settings, with a run's own values on top.

        Parameters
        ----------
        overrides
            Plain values, or a config of which only the fields that were set count. None means
            "not given".

        Raises
        ------
        ConfigError
            There is no such source, a value is impossible, or stand-ins are wanted but unknown.
        """
        if name not in self.keys.loaders:
            raise ConfigError(
                f"sources: there is no {name!r}; {suggestion(name, self.keys.loaders)}",
                location="sources",
            )
        if self.needs_samples:
            raise ConfigError(
                "archives: samples are wanted, but nothing says where they are",
                location="EM_SERVICES",
                advice="Start `macroscope samples` and set EM_SERVICES, or set EM_ARCHIVES=public",
            )
        if isinstance(overrides, LoaderConfig):
            overrides = {key: getattr(overrides, key) for key in overrides.model_fields_set}
        own = self.keys.loader(name, overrides, "parameter")
        self._refuse_operators(name, own)
        given = self.given | own
        if self.settings.archives == "samples" and not _has_address(name, given, self.keys):
            raise ConfigError(
                f"services: no endpoint of {name} is given, and its public one is not a sample",
                archive=name,
                location="EM_SERVICES",
                advice="Name it in the services document, or set EM_ARCHIVES=public",
            )
        config = _loader(name, given, self.keys, self.settings.data_dir)
        if config.output_format == "npy" and str(config.output_dir).startswith("s3://"):
            raise ConfigError(
                "output_format: npy cannot be made in a bucket: a .npy file is written piece by "
                "piece, and an object only as a whole",
                archive=name,
                location=str(config.output_dir),
                advice="Set output_format=zarr, or a folder as data_dir",
            )
        return config

    def _refuse_operators(self, name: str, own: Layer) -> None:
        """A run's parameters may repeat what an operator alone may set, never change it."""
        for key in self.keys.loaders[name].OPERATOR_ONLY:
            full = f"sources.{name}.{key}"
            if full in own and own[full].value != getattr(self.settings.sources[name], key):
                raise ConfigError(
                    f"{full}: whoever runs this installation sets this, a run cannot",
                    archive=name,
                    location=full,
                    advice=f"Set {name.upper()}_{key.upper()} where the flow runs",
                )

    def explain(self) -> list[tuple[str, str, str]]:
        """Rows of dotted key, value fit to be shown, and origin."""
        rows = []
        for key in Settings.model_fields:
            if key != "sources":
                rows.append((key, _shown(self.settings, key), self.origins.get(key, "default")))
        for name, config in self.settings.sources.items():
            for key in type(config).model_fields:
                dotted = f"sources.{name}.{key}"
                origin = self.origins.get(dotted, "default")
                rows.append((dotted, _shown(config, key), origin))
        return rows


class ConfigManager:
    """Reads the layers. `loaders` says which sources there are."""

    def __init__(self, loaders: Mapping[str, type[LoaderConfig]] | None = None) -> None:
        top = frozenset(Settings.model_fields) - {"sources"}
        self.keys = Keys(top, loader_configs() if loaders is None else loaders)

    def load(
        self,
        parameters: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        dotenv: str | Path | None = ".env",
        path: str | Path | None = None,
    ) -> LoadedSettings:
        """Read, merge and check every layer.

        Parameters
        ----------
        parameters
            A document of the same form as the YAML file; nulls mean "not given".
        environ
            The runtime environment; this process's own by default.
        dotenv
            A file of variables; absent is fine.
        path
            The YAML file. Otherwise EM_CONFIG_PATH, otherwise config/config.yaml where present.

        Raises
        ------
        ConfigError
            A layer cannot be read, keys are unknown, or values are impossible; all of them are
            named.
        """
        refused = Refusals()
        given, variables = self.layers(refused, parameters, environ, dotenv, path)
        loaded = self._type(given, variables, refused)
        refused.raise_all()
        assert loaded is not None  # otherwise its refusal was noted
        return loaded

    def layers(
        self,
        refused: Refusals,
        parameters: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        dotenv: str | Path | None = ".env",
        path: str | Path | None = None,
    ) -> tuple[Layer, dict[str, str]]:
        """Every layer, merged and not yet typed, and the variables of ``.env`` and environment.

        Parameters
        ----------
        refused
            Takes what cannot be read and what names no setting.
        """
        environ = os.environ if environ is None else environ
        dotenv_values: dict[str, str] = {}
        with refused.noting():
            dotenv_values = read_dotenv(dotenv)
        variables = {**dotenv_values, **environ}
        strong = [
            environment_layer(dotenv_values, self.keys, refused, str(dotenv)),
            environment_layer(environ, self.keys, refused),
            self.keys.flatten(parameters or {}, "parameter", refused),
        ]
        config_path = path or variables.get("EM_CONFIG_PATH")
        if config_path is None and Path(DEFAULT_CONFIG_PATH).is_file():
            config_path = DEFAULT_CONFIG_PATH
        weak: list[Layer] = []
        stand_ins: list[Layer] = []
        with refused.noting():
            if config_path:
                weak = [yaml_layer(config_path, variables, self.keys, refused)]
        with refused.noting():
            stand_ins = self._stand_ins(_merge([*weak, *strong], self.keys))
        given = _merge([*stand_ins[:1], *weak, *stand_ins[1:], *strong], self.keys)
        return given, variables

    def _stand_ins(self, given: Layer) -> list[Layer]:
        """The sample sizes and the endpoints, where stand-ins are wanted and known."""
        services = given.get("services")
        if services is None:
            return []
        archives = given.get("archives")
        if archives is not None and archives.value != "samples":
            return []
        sizes = {name: values for name, values in SAMPLE_SIZES.items() if name in self.keys.loaders}
        return [
            self.keys.flatten(
                {
                    "archives": "samples",
                    "assumed_compression": SAMPLE_COMPRESSION,
                    "sources": sizes,
                },
                "samples",
            ),
            services_layer(services.value, self.keys),
        ]

    def _type(
        self, given: Layer, variables: Mapping[str, str], refused: Refusals
    ) -> LoadedSettings | None:
        top = {key: one for key, one in given.items() if key in self.keys.top}
        data_dir = str(top["data_dir"].value) if "data_dir" in top else ""
        if "metadata_dir" not in top and data_dir.startswith("s3://"):
            origin = top["data_dir"].origin
            top["metadata_dir"] = SettingValue(f"{data_dir.rstrip('/')}/metadata", origin)
        if "subflows" not in top:
            top["subflows"] = SettingValue(default_subflows(on_kubernetes(variables)), "default")
        if on_kubernetes(variables):
            given = {**_REACH_OF_A_SERVER, **given}
        origins = {key: one.origin for key, one in {**given, **top}.items()}
        values = {key: one.value for key, one in top.items()}
        settings: Settings | None = None
        with refused.noting():
            settings = build(Settings, values, origins=origins)
        sources: dict[str, LoaderConfig] = {}
        for name in self.keys.loaders:
            with refused.noting():
                folder = settings.data_dir if settings is not None else "data"
                sources[name] = _loader(name, given, self.keys, folder)
        if settings is None or refused.found:
            return None
        for name in sources:
            origins.setdefault(f"sources.{name}.output_dir", origins.get("data_dir", "default"))
        settings = settings.model_copy(update={"sources": sources})
        return LoadedSettings(settings, origins, self.keys, given)


#: Addresses that somebody types into a form shall not lead into the pod or its cluster.
_REACH_OF_A_SERVER: Layer = {
    "sources.address.reach_schemes": SettingValue(
        ["https", "s3", "gs", "ftp"], "default on Kubernetes"
    ),
    "sources.address.reach_private": SettingValue(False, "default on Kubernetes"),
}


def _merge(layers: list[Layer], keys: Keys) -> Layer:
    """Lay the layers over one another, weakest first, common values spread over the loaders."""
    merged: Layer = {}
    for layer in layers:
        for key, given in layer.items():
            if key.startswith("common."):
                inner = key.removeprefix("common.")
                spread = replace(given, common=True)
                merged |= {f"sources.{name}.{inner}": spread for name in keys.loaders}
        merged |= {key: given for key, given in layer.items() if not key.startswith("common.")}
    return merged


def _has_address(name: str, given: Layer, keys: Keys) -> bool:
    if "addresses" in keys.loaders[name].model_fields:
        return True  # it leads nowhere but where the user says
    addresses = ("_url", "_server", "_host")
    return any(key.startswith(f"sources.{name}.") and key.endswith(addresses) for key in given)


def _loader(name: str, given: Layer, keys: Keys, data_dir: str) -> LoaderConfig:
    prefix = f"sources.{name}."
    mine = {key: one for key, one in given.items() if key.startswith(prefix)}
    values = {"output_dir": data_dir}
    values |= {key.removeprefix(prefix): one.value for key, one in mine.items()}
    origins = {key: one.origin for key, one in mine.items()}
    try:
        return build(keys.loaders[name], values, archive=name, prefix=prefix, origins=origins)
    except ConfigError as error:
        for one in error.parts or (error,):
            if one.location in mine and mine[one.location].common:
                one.archive = None  # named by the key under which it was given
                one.location = f"common.{str(one.location).removeprefix(prefix)}"
                one.message = f"common.{one.message.removeprefix(prefix)}"
                one.args = (one.message,)
        raise


def _shown(model: BaseModel, key: str) -> str:
    value = getattr(model, key)
    if value is None:
        return ""
    if is_secret(type(model), key):
        return "***"
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    if key == "services" and str(value).lstrip().startswith("{"):
        return "(JSON document)"
    return str(value)


Row = tuple[str, str, str]
"""Dotted key, value fit to be shown, origin."""


@dataclass(frozen=True, slots=True)
class SettingsSurvey:
    """Every setting in force; with a problem, only what was given, as it was given."""

    rows: list[Row]
    problem: ConfigError | None = None


def survey(manager: ConfigManager | None = None) -> SettingsSurvey:
    """Read all layers; what is refused is told, not raised."""
    manager = manager or ConfigManager()
    try:
        return SettingsSurvey(manager.load().explain())
    except ConfigError as error:
        given, _ = manager.layers(Refusals())
        return SettingsSurvey(_as_given(given, manager), error)


def _as_given(given: Layer, manager: ConfigManager) -> list[Row]:
    rows = []
    for key, one in sorted(given.items()):
        name, _, field = key.removeprefix("sources.").rpartition(".")
        secret = is_secret(manager.keys.loaders.get(name, Settings), field)
        rows.append((key, "***" if secret else str(one.value), one.origin))
    return rows
