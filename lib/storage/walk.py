"""Going through a store's folders without listing the shards of its volumes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from lib.storage.base import Store, StoredObject
from lib.storage.keys import PARTIAL, VOLUME_SUFFIXES, image_of, labels_of

DOWNLOADS = "downloads"  # folder of the archives' own files, of whatever names these have


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store holds.

    Attributes
    ----------
    records
        Every ``metadata_*.json``, sorted by key.
    volumes
        Keys of all volumes (``*.zarr`` trees and ``*.npy`` files), sorted, finished or not.
    others
        How many other objects lie in the folders that were looked at.
    """

    records: tuple[StoredObject, ...]
    volumes: tuple[str, ...]
    others: int


def contents(store: Store, prefix: str = "") -> Contents:
    """Look for records and volumes below a prefix.

    Zarr trees, unfinished work and raw files are not entered: of a bucket with a million shards
    only the folders that hold volumes are listed.
    """
    records: list[StoredObject] = []
    volumes: list[str] = []
    others = 0
    waiting = [prefix]
    while waiting:
        folder = store.list_folder(waiting.pop())
        for item in folder.objects:
            name = item.key.rpartition("/")[2]
            if _is_record_name(name):
                records.append(item)
            elif name.endswith(".npy"):
                volumes.append(item.key)
            else:
                others += 1
        for key in folder.folders:
            if key.endswith(".zarr"):
                volumes.append(key)
            elif key.rpartition("/")[2] not in (PARTIAL, DOWNLOADS):
                waiting.append(key)
    records.sort(key=lambda item: item.key)
    return Contents(tuple(records), tuple(sorted(volumes)), others)


def own_files(store: Store, volume: str) -> Iterator[StoredObject]:
    """What belongs to an OME-Zarr: all below it but the label images, which are volumes."""
    inside = f"{labels_of(volume)}/"
    return (item for item in store.list(volume) if not item.key.startswith(inside))


def record_objects(store: Store, prefix: str = "") -> Iterator[StoredObject]:
    """Every ``metadata_*.json`` below a prefix, sorted by key."""
    yield from contents(store, prefix).records


def record_of(volume_key: str) -> str:
    """Where the record of a volume lies: ``ebi/x.ome.zarr`` -> ``ebi/metadata_x.json``.

    That of labels lies where that of their image does.
    """
    folder, _, name = volume_key.rpartition("/")
    if (image := image_of(volume_key)) is not None:
        folder = image.rpartition("/")[0]
    for suffix in (*VOLUME_SUFFIXES, ".zarr"):
        if name.endswith(suffix):
            name = name.removesuffix(suffix)
            break
    return f"{folder}/metadata_{name}.json" if folder else f"metadata_{name}.json"


def why_nothing(store: Store, found: Contents) -> str:
    """In words, why a store holds neither a record nor a volume."""
    probe = store.local_path("x")
    if probe is None:
        return "no object lies below this address" if not found.others else _FOREIGN
    folder = os.path.dirname(probe)
    if os.path.isfile(folder):
        return "this is a file, and not the folder of a store"
    if not os.path.isdir(folder):
        return "there is no such folder"
    if folder.endswith(".zarr") or os.path.isfile(os.path.join(folder, "zarr.json")):
        return "this is a volume, or a part of one; its record lies beside it: name the data folder"
    return _FOREIGN if found.others else "the folder holds no record and no volume"


_FOREIGN = "what lies here is neither a record (metadata_*.json) nor a volume"


def _is_record_name(name: str) -> bool:
    # The catalogue may share the folder with the records.
    return (
        name.startswith("metadata_")
        and name.endswith(".json")
        and not name.startswith("metadata_catalog_")
    )
