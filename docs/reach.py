"""Write docs/reach.md from lib/archives/reach.yaml: which public volumes are reached, and how.

``python -m docs.reach`` writes it; `tests/unit/archives/test_reach.py` resolves every address.
"""

from __future__ import annotations

from pathlib import Path

from lib.archives.reach_table import volumes

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("reach.md")
README = ROOT / "README.md"


def page() -> str:
    """The page in Markdown."""
    all_of_them = volumes()
    loaded = [volume for volume in all_of_them if not volume.why_not]
    lines = [
        "# Reach",
        "",
        "Written by `make docs` from `lib/archives/reach.yaml`: public volumes whose address",
        "and format are known, and what macroscope makes of each. Addresses are as publishers",
        "and public code give them; the tests cannot reach the archives, so that each is tried",
        "through a stand-in of the same format, transport and layout (`tests/formats`). A",
        "licence is what the publisher states; `-` means that none is known, not that there is",
        "none.",
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
