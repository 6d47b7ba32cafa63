"""The layers that settings come from: environment, .env, YAML, endpoints of stand-ins, parameters.

Every layer is read into the same flat form, dotted key -> value and origin, so that merging them is
one rule and every value can say where it came from. Dotted keys are ``data_dir``, ``common.box``
(all loaders) and ``sources.flyem.crop_size`` (one loader).
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from lib.config.errors import Refusals, suggestion
from lib.config.loaders import LoaderConfig
from lib.errors import ConfigError

DEFAULT_CONFIG_PATH = "config/config.yaml"

#: Read elsewhere, by processes that need no other setting.
OTHER_NAMES = frozenset({"EM_CONFIG_PATH"})
#: Settings that were, and what serves now; still understood, so that no old environment breaks.
RETIRED_NAMES = {
    "EM_LIMITS_DIR": "processes share an archive's limits through a Prefect server of their own"
}
_log = logging.getLogger(__name__)

# Kubernetes announces every Service of the namespace as {NAME}_SERVICE_HOST, {NAME}_PORT_80_TCP...
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$")
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_KEPT_TAGS = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
_NAME_AND_DEFAULT = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)(?::(?!-)(.*))?$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SettingValue:
    """A value as it was given, perhaps a secret, and by what."""

    value: Any = field(repr=False)
    origin: str
    common: bool = False  # given for all loaders at once


Layer = dict[str, SettingValue]


@dataclass(frozen=True)
class Keys:
    """Every setting that exists: top-level fields and the loaders' models."""

    top: frozenset[str]
    loaders: Mapping[str, type[LoaderConfig]]
    common: frozenset[str] = field(
        default_factory=lambda: frozenset(LoaderConfig.model_fields) - {"output_dir"}
    )

    def environment(self) -> dict[str, str]:
        """Environment name -> dotted key, the weaker of two names for one key first."""
        names = {"MAX_WORKERS": "common.max_workers"}
        names |= {f"EM_{key.upper()}": f"common.{key}" for key in sorted(self.common)}
        names |= {f"EM_{key.upper()}": key for key in sorted(self.top)}
        for name, model in self.loaders.items():
            for key in model.model_fields:
                names[f"{name.upper()}_{key.upper()}"] = f"sources.{name}.{key}"
        return names

    def flatten(
        self, document: Mapping[str, Any], origin: str, refused: Refusals | None = None
    ) -> Layer:
        """Turn a nested document into a layer; nulls mean "not given".

        Parameters
        ----------
        refused
            Takes the refusals; otherwise they are raised.

        Raises
        ------
        ConfigError
            A key is unknown, or a section is not a mapping.
        """
        noted = refused or Refusals()
        layer: Layer = {}
        for key, value in document.items():
            with noted.noting():
                if key == "common":
                    for inner, given in _section(value, "common", origin).items():
                        with noted.noting():
                            self.require(inner, self.common, "common.", origin)
                            layer[f"common.{inner}"] = SettingValue(given, origin)
                elif key == "sources":
                    for name, loader in _section(value, "sources", origin).items():
                        with noted.noting():
                            self.require(name, self.loaders, "sources.", origin)
                            layer |= self.loader(name, loader, origin, noted)
                else:
                    self.require(key, self.top | {"common", "sources"}, "", origin)
                    layer[key] = SettingValue(value, origin)
        if refused is None:
            noted.raise_all()
        return {key: given for key, given in layer.items() if given.value is not None}

    def loader(self, name: str, values: Any, origin: str, refused: Refusals | None = None) -> Layer:
        """The layer of one loader's values; None means "not given". `refused` as in `flatten`."""
        noted = refused or Refusals()
        prefix = f"sources.{name}."
        layer: Layer = {}
        for key, value in _section(values, prefix[:-1], origin).items():
            with noted.noting():
                self.require(key, self.loaders[name].model_fields, prefix, origin)
                if value is not None:
                    layer[prefix + key] = SettingValue(value, origin)
        if refused is None:
            noted.raise_all()
        return layer

    @staticmethod
    def require(key: Any, known: Collection[str], prefix: str, origin: str) -> None:
        """Refuse a key that is not among the known ones."""
        if key not in known:
            raise ConfigError(
                f"{prefix}{key}: there is no such setting (from {origin}); "
                f"{suggestion(str(key), known)}",
                location=f"{prefix}{key}",
            )


def _section(value: Any, key: str, origin: str) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: must be a mapping of settings (from {origin})", location=key)
    return value


def environment_layer(
    environ: Mapping[str, str], keys: Keys, refused: Refusals, origin: str = "environment"
) -> Layer:
    """Settings among environment variables. An empty variable counts as not set.

    One that begins like ours (``EM_``, ``EBI_``, ...) and names no setting is refused.
    """
    names = keys.environment()
    prefixes = ("EM_", *(f"{name.upper()}_" for name in keys.loaders))
    for name in environ:
        if name in RETIRED_NAMES:
            if environ[name].strip():
                _log.warning("%s has no effect any more: %s", name, RETIRED_NAMES[name])
            continue
        ours = name.startswith(prefixes) and not _SERVICE_LINK.search(name)
        if ours and name not in names and name not in OTHER_NAMES:
            siblings = [known for known in names if known.split("_")[0] == name.split("_")[0]]
            with refused.noting():
                keys.require(name, siblings, "", origin)
    label = f"{origin} {{}}" if origin == "environment" else origin
    return {
        key: SettingValue(environ[name].strip(), label.format(name))
        for name, key in names.items()
        if environ.get(name, "").strip()
    }


def read_dotenv(path: str | Path | None) -> dict[str, str]:
    """The variables of a .env file; none where there is no such file.

    Raises
    ------
    ConfigError
        It cannot be read, or is not UTF-8.
    """
    if path is None or not Path(path).is_file():
        return {}
    values = dotenv_values(stream=io.StringIO(text_of(Path(path))), interpolate=False)
    return {name: value for name, value in values.items() if value is not None}


def text_of(path: Path) -> str:
    """The text of a file that a person writes.

    Raises
    ------
    ConfigError
        It cannot be read, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"the file is not UTF-8: byte 0x{data[error.start]:02x} in line {line}",
            location=str(path),
            advice="Save it as UTF-8; that line may have been written as Latin-1",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the file cannot be read: {error.strerror}",
            location=str(path),
            advice="Check its path and its permissions",
        ) from None


def interpolate(text: str, environ: Mapping[str, str], key: str, origin: str) -> str:
    """Replace ``${VAR}`` and ``${VAR:default}``; ``$${`` stands for a literal ``${``.

    Raises
    ------
    ConfigError
        A variable without a default is not set, or the reference is malformed.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return "${"
        reference = _NAME_AND_DEFAULT.match(match[1])
        if reference is None:
            raise ConfigError(
                f"{key}: {match[0]} is not of the form ${{VAR}} or ${{VAR:default}} "
                f"(from {origin})",
                location=key,
            )
        name, default = reference[1], reference[2]
        if environ.get(name) or default is None:
            if name not in environ:
                raise ConfigError(
                    f"{key}: the environment variable {name} is not set (from {origin})",
                    location=key,
                    advice=f"Set {name}, or write ${{{name}:default}}",
                )
            return environ[name]
        return default

    return _REFERENCE.sub(value, text)


def _interpolate_tree(
    tree: Any, environ: Mapping[str, str], key: str, origin: str, refused: Refusals
) -> Any:
    if isinstance(tree, str):
        with refused.noting():
            # An empty result of a reference means "not given", as an empty variable does.
            return interpolate(tree, environ, key, origin) or (None if "${" in tree else tree)
        return None
    if isinstance(tree, Mapping):
        return {
            name: _interpolate_tree(value, environ, f"{key}.{name}".lstrip("."), origin, refused)
            for name, value in tree.items()
        }
    if isinstance(tree, list):
        return [_interpolate_tree(value, environ, key, origin, refused) for value in tree]
    return tree


class PlainTextLoader(yaml.SafeLoader):
    """YAML without surprises: no guessed types, and no key twice.

    YAML 1.1 takes ``010324`` for an octal number, ``12:30`` for 750, ``off`` for false and
    ``2024-01-15`` for a date; an accession may look like any of these. Every scalar is text here,
    as an environment variable's value is, and the setting's own type reads it. Only an empty value,
    ``~`` and ``null`` mean "not given".
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} is there twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


PlainTextLoader.yaml_implicit_resolvers = {
    first: [pair for pair in resolvers if pair[0] in _KEPT_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: str | Path) -> tuple[yaml.Node | None, Any]:
    """A YAML file as nodes, which know their lines, and as plain values.

    Raises
    ------
    ConfigError
        The file cannot be read, or is not valid YAML.
    """
    try:
        loader = PlainTextLoader(text_of(Path(path).expanduser()))
        try:
            node = loader.get_single_node()
            return node, None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"not valid YAML: {error.problem}{line}", location=str(path)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", location=str(path)) from None


def yaml_layer(
    path: str | Path, environ: Mapping[str, str], keys: Keys, refused: Refusals
) -> Layer:
    """Settings of a YAML file.

    A key that names no setting, or a reference to a variable that is not set, is refused.

    Raises
    ------
    ConfigError
        The file cannot be read, or is not valid YAML.
    """
    origin = str(path)
    _, document = read_yaml(path)
    tree = _interpolate_tree(_section(document, "the file", origin), environ, "", origin, refused)
    return keys.flatten(tree, origin, refused)


def services_layer(services: str | Mapping[str, Any], keys: Keys) -> Layer:
    """Endpoints of stand-in archives: ``{"EBI": {"ftp_server": "127.0.0.1:2121", ...}, ...}``.

    Parameters
    ----------
    services
        The document that ``macroscope samples`` prints: parsed, as JSON text, or a path to it.

    Raises
    ------
    ConfigError
        It cannot be read, or names a source or field that does not exist.
    """
    if isinstance(services, str):
        services = _read_services(services)
    layer: Layer = {}
    for name, values in _section(services, "services", "services").items():
        if name == "control_url":  # the stand-ins' control, of no use to a loader
            continue
        if str(name).upper() == "SEARCH":  # asked by words, no source of volumes
            layer |= keys.flatten(values, "services")
            continue
        Keys.require(str(name).lower(), keys.loaders, "services.", "services")
        layer |= keys.loader(str(name).lower(), values, "services")
    return layer


def _read_services(text: str) -> Any:
    try:
        if not text.lstrip().startswith("{"):
            text = Path(text).expanduser().read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise ConfigError(f"services: cannot be read ({error})", location="EM_SERVICES") from None
    except ValueError as error:
        raise ConfigError(f"services: not valid JSON ({error})", location="EM_SERVICES") from None
