"""The list of digests beside a volume, and what a listing of the store says about it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from lib.errors import IntegrityError, NotFoundError
from lib.storage.base import Store
from lib.storage.walk import own_files

_LINE = re.compile(r"^(?P<sha256>[0-9a-f]{64})  (?P<name>[^/\0][^\0]*)$")


def read_sums(store: Store, record: dict[str, Any]) -> dict[str, str]:
    """Key in the store -> sha256 of every file of a volume, after proving the list itself.

    Raises
    ------
    IntegrityError
        The list is absent, malformed, or not the one that the record was written with.
    """
    technical, files = record["metadata"]["technical"], record["files"]
    key = files.get("sums") or f"{files['volume']}.SHA256SUMS"
    try:
        data = store.get(key)
    except NotFoundError:
        raise IntegrityError("the list of digests is not there", location=key) from None
    sums: dict[str, str] = {}
    folder = key.rpartition("/")[0]
    for line in data.decode(errors="replace").removesuffix("\n").split("\n"):
        match = _LINE.match(line)
        if match is None:
            raise IntegrityError(f"the list of digests holds {line[:80]!r}", location=key)
        sums[f"{folder}/{match['name']}" if folder else match["name"]] = match["sha256"]
    if str(files["volume"]).endswith(".npy"):
        stated = sums.get(files["volume"])
    else:
        stated = hashlib.sha256(data).hexdigest()
    if stated != technical["sha256"]:
        raise IntegrityError("the list of digests is not the record's", location=key)
    return sums


def prove_listing(store: Store, record: dict[str, Any], sums: dict[str, str]) -> None:
    """Every listed file is in the store, no other is, and together they have the stated size.

    Raises
    ------
    IntegrityError
        Names a file that is absent or does not belong.
    """
    volume, technical = record["files"]["volume"], record["metadata"]["technical"]
    if str(volume).endswith(".npy"):
        size = store.size(volume)
        found = {} if size is None else {volume: size}
    else:
        found = {item.key: item.size for item in own_files(store, volume)}
    absent, foreign = sorted(set(sums) - set(found)), sorted(set(found) - set(sums))
    if absent:
        raise IntegrityError(f"{len(absent)} files are absent", location=absent[0])
    if foreign:
        raise IntegrityError(f"{len(foreign)} files do not belong there", location=foreign[0])
    if sum(found.values()) != technical["file_size_bytes"]:
        raise IntegrityError(
            f"the files have {sum(found.values())} bytes together, "
            f"where the record says {technical['file_size_bytes']}",
            location=volume,
        )


def is_intact(store: Store, record: dict[str, Any]) -> None:
    """The quick look before a volume is taken as made: list and listing, no voxel is read.

    Raises
    ------
    IntegrityError
        Files are absent, or were found damaged and not made anew since.
    """
    if damaged := record["metadata"].get("quality", {}).get("damaged"):
        raise IntegrityError(f"{len(damaged)} files were found damaged", location=damaged[0])
    prove_listing(store, record, read_sums(store, record))
