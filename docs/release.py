"""Checks and notes of a release: `make release-check`, `make release-notes`."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def versions() -> dict[str, str]:
    """The version as each file has it; they must be one."""
    chart = (ROOT / "helm" / "macroscope" / "Chart.yaml").read_text()
    found = {
        "pyproject.toml": tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    }
    for key in ("version", "appVersion"):
        match = re.search(rf'^{key}: "?([^"\n]+)"?$', chart, re.M)
        found[f"Chart.yaml {key}"] = match[1] if match else "absent"
    return found


def notes(version: str) -> str:
    """The section of CHANGELOG.md for a version."""
    text = (ROOT / "CHANGELOG.md").read_text()
    match = re.search(rf"^## \[{re.escape(version)}\].*?\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if match is None:
        raise SystemExit(f"CHANGELOG.md has no section for {version}")
    return match[1].strip()


def main(what: str, tag: str) -> None:
    """Command line."""
    version = tag.removeprefix("v")
    if what == "check":
        wrong = {name: found for name, found in versions().items() if found != version}
        if wrong:
            raise SystemExit(f"the tag says {version}, but: {wrong}")
    print(notes(version))


if __name__ == "__main__":
    main(*sys.argv[1:3])
