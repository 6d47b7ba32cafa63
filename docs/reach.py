"""Write docs/reach.md from config/reach.yaml: which public volumes are reached, and how.

``python -m docs.reach`` writes it; `tests/unit/test_reach.py` resolves every address.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lib.archives.address.grammar import is_named, parse_address

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("reach.md")
TABLE = ROOT / "config" / "reach.yaml"
README = ROOT / "README.md"


@dataclass(frozen=True)
class Volume:
    """A public volume.

    Attributes
    ----------
    format
        The pipeline's word for what lies there.
    layout
        How: file, sections (one plane a file), tree, or zip before one of these.
    voxel
        z, y, x in nm as its publisher states it; None where nobody does.
    licence
        As stated by its publisher; None where that is not known.
    why_not
        Why it is not loaded, in one sentence; empty where it is.
    """

    group: str
    title: str
    address: str
    format: str
    layout: str
    kind: str
    voxel: str | None
    licence: str | None
    why_not: str = ""

    @property
    def transport(self) -> str:
        """What the bytes travel by."""
        if is_named(self.address):
            name = self.address.partition(":")[0]
            return {"openorganelle": "s3"}.get(name, "https")
        return str(parse_address(self.address).scheme)


def volumes() -> list[Volume]:
    """All of the table."""
    document: dict[str, list[dict[str, Any]]] = yaml.safe_load(TABLE.read_text())
    found = []
    for group, entries in document.items():
        common: dict[str, Any] = {"licence": None, "voxel": None, "kind": "image", "layout": "file"}
        for entry in entries:
            if "title" not in entry:
                common |= entry  # what the following entries have in common
            else:
                found.append(Volume(group=group, **{**common, **entry}))
    return found


def page() -> str:
    """The page in Markdown."""
    all_of_them = volumes()
    loaded = [volume for volume in all_of_them if not volume.why_not]
    lines = [
        "# Reach",
        "",
        "Written by `make docs` from `config/reach.yaml`: public volumes whose address and format",
        "are known, and what macroscope makes of each. Addresses are as publishers and public code",
        "give them; the tests cannot reach the archives, so that each is tried through a stand-in",
        "of the same format, transport and layout (`tests/formats`). A licence is what the",
        "publisher states; `-` means that none is known, not that there is none.",
        "",
        f"**{len(loaded)} of {len(all_of_them)} are loaded.**",
    ]
    for group in dict.fromkeys(volume.group for volume in all_of_them):
        lines += [
            "",
            f"## {group}",
            "",
            "| volume | kind | format, transport, layout | voxel nm (z, y, x) | licence | loaded "
            "| address |",
            "|---|---|---|---|---|---|---|",
        ]
        for one in (volume for volume in all_of_them if volume.group == group):
            address = one.address.replace("|", "\\|")
            lines.append(
                f"| {one.title} | {one.kind} | {one.format}, {one.transport}, {one.layout} "
                f"| {one.voxel or '-'} | {one.licence or '-'} "
                f"| {'no: ' + one.why_not if one.why_not else 'yes'} | `{address}` |"
            )
    return "\n".join(lines) + "\n"


def count() -> str:
    """The sentence of the README."""
    all_of_them = volumes()
    loaded = sum(not volume.why_not for volume in all_of_them)
    listed = f"{loaded} of {len(all_of_them)} public volumes in [docs/reach.md](docs/reach.md)"
    return f"{listed} are loaded"


def main() -> None:
    """Renew the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
