"""Which records belong to which group of datasets: ``groups.json`` beside the catalogue.

A group is how people sort volumes, no fact about one: it stands beside the records, so that a
volume that is complete already can get one, or another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Protocol

from lib.errors import NotFoundError
from lib.storage.base import Store
from lib.storage.open import open_store
from lib.storage.settings import StoreSettings

GROUPS_KEY = "groups.json"


class Grouped(Protocol):
    """What a dataset came to."""

    @property
    def group(self) -> str | None: ...
    @property
    def metadata_paths(self) -> list[str]: ...


def note_groups(
    metadata_uri: str, data_uri: str, access: StoreSettings, results: Iterable[Grouped]
) -> None:
    """Write down the groups of a run's records, beside those of earlier runs.

    Raises
    ------
    DestinationError
    """
    root = open_store(data_uri, access).uri.rstrip("/") + "/"
    found = {
        path.removeprefix(root): one.group
        for one in results
        if one.group is not None
        for path in one.metadata_paths
        if path.startswith(root)
    }
    if not found:
        return
    store = open_store(metadata_uri, access)
    document = {"groups": dict(sorted({**read_groups(store), **found}.items()))}
    store.put(GROUPS_KEY, json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")


def read_groups(store: Store) -> dict[str, str]:
    """The group of each record that has one, by the record's key; none from a damaged document."""
    try:
        document: object = json.loads(store.get(GROUPS_KEY))
    except (NotFoundError, ValueError):
        return {}
    groups = document.get("groups") if isinstance(document, Mapping) else None
    pairs = groups.items() if isinstance(groups, Mapping) else ()
    return {str(key): group for key, group in pairs if isinstance(group, str)}
