"""Hook of the documentation site: links to files of the checkout lead to the repository's page."""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\(((?!\w+:|#)[^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Turn links that leave ``docs/`` into plain names of the files that they mean."""
    folder = posixpath.dirname("docs/" + page.file.src_uri)

    def leave(match: re.Match[str]) -> str:
        target, _, _ = match[1].partition("#")
        path = posixpath.normpath(posixpath.join(folder, target))
        if path.startswith("docs/") and not path.endswith(".py"):
            return match[0]
        if not (ROOT / path).exists():
            return match[0]  # strict mode names it
        return f"] (`{path}`)"

    return _LINK.sub(leave, markdown)


def on_config(config: Any) -> Any:
    """The version stands in the title."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    config.site_name = f"macroscope {version}"
    return config
