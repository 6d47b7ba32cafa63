"""Write the table of values in helm/macroscope/README.md from values.schema.json.

python helm/values_table.py          writes it
python helm/values_table.py --check  exits with 1 where it is out of date
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "macroscope"
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
        else:
            text = child["description"].replace("|", "\\|")
            shown = "" if default is None else f"`{json.dumps(default)}`".replace("|", "\\|")
            yield f"| `{name}` | {text} | {shown} |"


def readme() -> str:
    """The README with a fresh table."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    table = "\n".join(["| value | what it is | default |", "|---|---|---|", *rows(schema, values)])
    text = (CHART / "README.md").read_text()
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Write or check; returns the exit code."""
    fresh, path = readme(), CHART / "README.md"
    if "--check" in sys.argv[1:]:
        return int(fresh != path.read_text())
    path.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
