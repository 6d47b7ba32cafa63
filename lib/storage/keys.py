"""The names of objects: what is allowed, what is reserved, where unfinished trees lie; and what a
store holds by them, without listing the shards of its volumes.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from lib.errors import DestinationError, NothingThereError
from lib.storage.base import Buffer, Store, StoredObject

LOCKS = ".locks"  # folder of lock files and leases, beside the volumes that they guard
PARTIAL = ".partial"  # folder of trees that are not published yet, beside their final names

_LABELS = "labels"
VOLUME_SUFFIXES = (".ome.zarr", ".npy")
_STRIPPED = (".ome.zarr", ".zarr", ".npy")
_TEMPORARY = re.compile(r"^\.(?P<name>.*)\.[0-9a-f]{12}\.(?P<kind>tmp|old|gone)$")
_LONGEST_STEM = 120  # bytes; leaves room for the marks of a temporary name in a file's 255
_DIGITS = 12


def check_key(key: str) -> str:
    """Return `key` if it may name an object, else raise `DestinationError`.

    Refused are absolute keys, empty parts, ``.`` and ``..``, NUL and other control characters,
    backslashes, and the names that stores keep for themselves (locks, temporary files).
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise _refused(key, "is not a relative path of named parts")
    if "\\" in key or any(ord(letter) < 32 or ord(letter) == 127 for letter in key):
        raise _refused(key, "holds a backslash or a control character")
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in key):
        raise _refused(key, "is not valid Unicode")
    if any(is_reserved(part) for part in parts):
        raise _refused(key, "uses a name that the store keeps for itself")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if it may name a folder; ``""`` is the whole store."""
    return check_key(prefix) if prefix else prefix


def is_reserved(part: str) -> bool:
    """Whether a part of a key is a lock folder or a temporary name; listings leave these out."""
    return part == LOCKS or temporary_of(part) is not None


def temporary_name(name: str, kind: str) -> str:
    """Make a fresh temporary name: ``tmp`` being written, ``old`` moved aside, ``gone`` deleted."""
    if kind != "old":  # only a tree moved aside is traced back to its name
        name = _shortened(name)
    return f".{name}.{secrets.token_hex(6)}.{kind}"


def temporary_of(part: str) -> tuple[str, str] | None:
    """Split a temporary name into the (perhaps shortened) name and its kind, or return None."""
    match = _TEMPORARY.match(part)
    return (match["name"], match["kind"]) if match else None


def is_shortened(found: str, names: Collection[str]) -> bool:
    """Whether the name found by `temporary_of` stands for one of `names`."""
    return found in names or found in {_shortened(name) for name in names}


def _shortened(name: str) -> str:
    """A long name cut, its digest at the end: two volumes may begin alike for 120 bytes."""
    raw = name.encode()
    if len(raw) <= _LONGEST_STEM:
        return name
    room = _LONGEST_STEM - _DIGITS - 1
    return f"{raw[:room].decode(errors='ignore')}~{hashlib.sha256(raw).hexdigest()[:_DIGITS]}"


def labels_of(volume: str) -> str:
    """The group of an OME-Zarr in which its label images lie: each a volume of its own."""
    return f"{volume}/{_LABELS}"


def image_of(volume: str) -> str | None:
    """The OME-Zarr in whose group of labels a volume lies: ``ebi/x.ome.zarr/labels/y.ome.zarr``."""
    group = volume.rpartition("/")[0]
    image = group.removesuffix(f"/{_LABELS}")
    return image if image != group and image.endswith(VOLUME_SUFFIXES[0]) else None


def partial_key(final: str) -> str:
    """``data/ebi/x.ome.zarr`` -> ``data/ebi/.partial/x/x.ome.zarr``; labels beside their image."""
    folder, _, name = check_key(final).rpartition("/")
    if (image := image_of(final)) is not None:
        folder = image.rpartition("/")[0]
    stem = next((name.removesuffix(s) for s in _STRIPPED if name.endswith(s)), name) or name
    return f"{folder}/{PARTIAL}/{stem}/{name}" if folder else f"{PARTIAL}/{stem}/{name}"


def state_key(volume: str) -> str:
    """``ebi/x`` -> ``ebi/.partial/x``: the ledger of a volume, and on a folder its staging tree."""
    return partial_key(volume + VOLUME_SUFFIXES[0]).rpartition("/")[0]


def lock_key(key: str, suffix: str) -> str:
    """``data/ebi/x`` -> ``data/ebi/.locks/x<suffix>``."""
    folder, _, name = check_key(key).rpartition("/")
    return f"{folder}/{LOCKS}/{name}{suffix}" if folder else f"{LOCKS}/{name}{suffix}"


def byte_views(data: Buffer | Sequence[Buffer]) -> list[memoryview]:
    """View one or several buffers as flat bytes, without copying; empty ones are left out.

    Raises
    ------
    TypeError
        A buffer is not C-contiguous.
    """
    buffers = [data] if isinstance(data, bytes | bytearray | memoryview) else data
    views = (memoryview(buffer) for buffer in buffers)
    return [view.cast("B") for view in views if view.nbytes]


def _refused(key: str, why: str) -> DestinationError:
    return DestinationError(
        f"the name {key[:200]!r} {why} and is refused",
        advice="Choose another name, or report the archive that gave it",
    )


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
            is_json = name.startswith("metadata_") and name.endswith(".json")
            if is_json and not name.startswith("metadata_catalog_"):  # which may lie here, too
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


def require_contents(store: Store, doing: str) -> Contents:
    """What there is to view, to prove or to catalogue: a mistyped address looks like a new store.

    Raises
    ------
    NothingThereError
        The store holds neither a record nor a volume; the error says why.
    """
    found = contents(store)
    if not found.records and not found.volumes:
        raise NothingThereError(
            f"there is nothing to {doing}: {why_nothing(store, found)}", location=store.uri
        )
    return found


def why_nothing(store: Store, found: Contents) -> str:
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
