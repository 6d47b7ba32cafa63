"""Write what of the chart is made from something else.

The names of sources and modes in values.schema.json come from the registry of archives and from
lib/execution.py, the table of values in README.md from values.schema.json.

python helm/values_table.py          writes them
python helm/values_table.py --check  exits with 1 where one is out of date
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lib.archives.registry import REGISTRY
from lib.execution import MODES

CHART = Path(__file__).parent / "macroscope"
SCHEMA, README = CHART / "values.schema.json", CHART / "README.md"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"


def rows(schema: dict[str, Any], values: Any, path: str = "") -> Iterator[str]:
    """One table row for each value that has no values of its own."""
    for key, child in schema.get("properties", {}).items():
        if key == "global":
            continue
        name = f"{path}.{key}" if path else key
        default = values.get(key) if isinstance(values, dict) else None
        if child.get("properties"):
            yield from rows(child, default, name)
        elif isinstance(each := child.get("additionalProperties"), dict) and "properties" in each:
            for one in default or {}:  # alike, whatever their names are
                yield from rows(each, default[one], f"{name}.{one}")
        else:
            text = child["description"].replace("|", "\\|")
            shown = "" if default is None else f"`{json.dumps(default)}`".replace("|", "\\|")
            yield f"| `{name}` | {text} | {shown} |"


def schema() -> str:
    """The schema with the names of archives and modes."""
    document = json.loads(SCHEMA.read_text())
    values = document["properties"]
    values["sources"]["propertyNames"]["enum"] = sorted(REGISTRY)
    values["flow"]["properties"]["executionMode"]["enum"] = [*MODES]
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def readme() -> str:
    """The README with a fresh table."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    table = "\n".join(
        ["| value | what it is | default |", "|---|---|---|", *rows(json.loads(schema()), values)]
    )
    head, rest = README.read_text().split(BEGIN)
    return f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Write or check; returns the exit code."""
    fresh = {SCHEMA: schema(), README: readme()}
    if "--check" in sys.argv[1:]:
        return int(any(text != path.read_text() for path, text in fresh.items()))
    for path, text in fresh.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
