"""The table of public volumes whose address and format are known, ``reach.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from lib.archives.address.grammar import is_named, parse_address
from lib.archives.listed import Item
from lib.vocabulary import Kind


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
    kind: Kind
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


@cache
def volumes() -> tuple[Volume, ...]:
    """All of the table."""
    text = resources.files("lib.archives").joinpath("reach.yaml").read_text(encoding="utf-8")
    document: dict[str, list[dict[str, Any]]] = yaml.safe_load(text)
    found = []
    for group, entries in document.items():
        common: dict[str, Any] = {"licence": None, "voxel": None, "kind": "image", "layout": "file"}
        for entry in entries:
            if "title" not in entry:
                common |= entry  # what the following entries have in common
            else:
                found.append(Volume(group=group, **{**common, **entry}))
    return tuple(found)


def search(words: list[str]) -> list[Item]:
    """The volumes of whose row all words are part."""
    wanted = [word.casefold() for word in words]
    return [_item(one) for one in volumes() if _fits(one, wanted)]


def _fits(one: Volume, wanted: list[str]) -> bool:
    told = " ".join([one.group, one.title, one.address, one.format, one.kind]).casefold()
    return all(word in told for word in wanted)


def _item(one: Volume) -> Item:
    return Item(
        address=one.address,
        name=one.title,
        what="volume",
        kind=one.kind,
        title=one.group,
        licence=one.licence,
        size=f"voxels of {one.voxel} nm (z, y, x)" if one.voxel else None,
        loadable=not one.why_not,
        why_not=one.why_not or None,
    )
