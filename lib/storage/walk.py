"""Going through a store's folders without listing the shards of its volumes."""

from __future__ import annotations

from collections.abc import Iterator

from lib.storage.base import Store, StoredObject
from lib.storage.keys import PARTIAL


def record_objects(store: Store, prefix: str = "") -> Iterator[StoredObject]:
    """Yield every ``metadata_*.json`` below a prefix, sorted by key.

    Zarr trees and unfinished work hold no records and are not entered; of a bucket with a million
    shards only the folders that hold volumes are listed.
    """
    found: list[StoredObject] = []
    waiting = [prefix]
    while waiting:
        folder = store.list_folder(waiting.pop())
        found += [item for item in folder.objects if _is_record_name(item.key.rpartition("/")[2])]
        waiting += [
            key
            for key in folder.folders
            if not key.endswith(".zarr") and key.rpartition("/")[2] != PARTIAL
        ]
    yield from sorted(found, key=lambda item: item.key)


def _is_record_name(name: str) -> bool:
    # The catalogue may share the folder with the records.
    return (
        name.startswith("metadata_")
        and name.endswith(".json")
        and not name.startswith("metadata_catalog_")
    )
