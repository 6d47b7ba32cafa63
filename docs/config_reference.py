"""docs/configuration.md, written from the models of the settings.

``python -m docs.config_reference`` writes it; a test holds the committed file to the models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from lib.archives.registry import archive, loader_configs
from lib.config.loaders import LoaderConfig
from lib.config.settings import Settings
from lib.config.sources import Keys

PATH = Path(__file__).with_name("configuration.md")

_HEAD = """\
# Configuration

Written from the models by `make docs`; do not edit by hand.

## Where a value comes from

Strongest first: parameters of the flow or command, the environment, `.env`, the endpoints of
stand-in archives (`EM_SERVICES`), the YAML file, defaults. The YAML file is the one that
`EM_CONFIG_PATH` names, else `config/config.yaml` where there is one. Inside one layer a source's
own value is stronger than the value common to all. An empty variable counts as not set.

`macroscope config` prints every setting in force and the layer that gave it. A key or variable
that names no setting is refused, with the nearest one that exists.

In YAML, `${NAME}` and `${NAME:default}` are replaced by environment variables, and `$${` stands
for a literal `${`. Triples are z, y, x unless the name says x, y, z. Lengths are nanometres, `MB`
is 10^6 bytes, times are seconds. Lists are written `1,2,3` or as JSON in the environment.

Every client keeps to `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`; this machine is never
reached through a proxy. An institute's own certificate authority is named once, as a PEM file, by
any of `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` and `AWS_CA_BUNDLE`; archives and
stores trust it beside the public ones (Prefect's own client reads the first three).
Values in YAML are read as they are written, as in the environment: `entry_id: 010324` keeps its
zero, `instance: off` is a name, and numbers are decimal.
"""

_COMMON = """\
## All sources: `common.*`

Set for every source as `common.KEY` in YAML or `EM_KEY` in the environment, and for one source as
`sources.NAME.KEY` or `NAME_KEY`, for example `EBI_BOX`. `MAX_WORKERS` is understood too.
"""


def reference() -> str:
    """The whole document."""
    loaders = loader_configs()
    top = frozenset(Settings.model_fields) - {"sources"}
    names = _names(Keys(top, loaders))
    parts = [_HEAD, "## The run\n", _table(Settings, sorted_keys(Settings, top), names, "")]
    common = [key for key in LoaderConfig.model_fields if key != "output_dir"]
    parts += [_COMMON, _table(LoaderConfig, common, names, "common.")]
    for name, model in loaders.items():
        parts += [f"## `sources.{name}`\n", f"{archive(name).title}.\n"]
        parts += [_table(model, list(_own(model)), names, f"sources.{name}.")]
    return "\n".join(parts)


def sorted_keys(model: type[BaseModel], wanted: frozenset[str]) -> list[str]:
    """The wanted fields in the order in which the model declares them."""
    return [key for key in model.model_fields if key in wanted]


def _own(model: type[LoaderConfig]) -> Iterator[str]:
    """Fields that the loader adds, or gives another default."""
    for key, field in model.model_fields.items():
        general = LoaderConfig.model_fields.get(key)
        if general is None or general.default != field.default or key == "output_dir":
            yield key


def _names(keys: Keys) -> Mapping[str, list[str]]:
    """Dotted key -> environment names, the stronger of two first."""
    found: dict[str, list[str]] = {}
    for name, key in keys.environment().items():
        found.setdefault(key, []).insert(0, name)
    return found


def _table(
    model: type[BaseModel], fields: list[str], names: Mapping[str, list[str]], prefix: str
) -> str:
    properties = model.model_json_schema(mode="validation")["properties"]
    rows = ["| YAML key | environment | kind | default | what it is |", "|---|---|---|---|---|"]
    for key in fields:
        field = model.model_fields[key]
        dotted = prefix + key
        environment = ", ".join(f"`{name}`" for name in names[dotted])
        cells = (
            f"`{dotted}`",
            environment,
            _kind(properties[key]),
            _default(field.default),
            field.description or "",
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _kind(schema: Mapping[str, Any]) -> str:
    """A JSON Schema type in a few words."""
    if "anyOf" in schema:
        kinds = [_kind(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "prefixItems" in schema:
        return f"{len(schema['prefixItems'])} {_plural(_kind(schema['prefixItems'][0]))}"
    words = {"integer": "whole number", "boolean": "true or false", "string": "text"}
    stated = str(schema.get("type", "any"))
    kind = words.get(stated, stated)
    if kind == "array":
        return f"list of {_plural(_kind(schema['items']))}"
    if kind == "object":
        return "mapping"
    return kind + _bounds(schema)


def _plural(kind: str) -> str:
    return re.sub(r"^(whole number|number)", r"\1s", kind)


def _bounds(schema: Mapping[str, Any]) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "maximum": "<="}
    found = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema]
    return f" {', '.join(found)}" if found else ""


def _default(value: Any) -> str:
    if value is None or value is PydanticUndefined:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return f"`{','.join(map(str, value))}`"
    return f"`{json.dumps(value) if isinstance(value, dict) else value}`"


def main() -> None:
    """Write the document."""
    PATH.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
