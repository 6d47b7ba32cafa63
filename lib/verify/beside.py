"""What belongs to a volume and lies beside it: list of digests, raw files, preview, RO-Crate."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from lib.concurrency import cancel as stopping
from lib.errors import IntegrityError, NotFoundError
from lib.present.crate import crate_key
from lib.safety import safe_name
from lib.storage.base import Store
from lib.storage.digests import blocks_of, digest_of
from lib.storage.keys import own_files
from lib.verify.findings import Findings

_FILE = "provenance.source_files[]"


def raw_files(record: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    """Key of each kept raw file -> what the record says of it; None where that is nothing."""
    by_key: dict[str, dict[str, Any]] = {}
    by_name: dict[str, dict[str, Any]] = {}  # earlier versions recorded no keys
    for file in record["metadata"]["provenance"].get("source_files", []):
        if "key" in file:
            by_key[file["key"]] = file
        else:
            by_name.setdefault(safe_name(file["name"].rpartition("/")[2]), file)
    kept = record["files"].get("raw", [])
    return {key: by_key.get(key) or by_name.get(key.rpartition("/")[2]) for key in kept}


def prove_raw_files(store: Store, record: dict[str, Any], found: Findings, *, deep: bool) -> None:
    """Every kept file is there, and of the size, sha256 and checksum that the record states."""
    kept = raw_files(record)
    sources = record["metadata"]["provenance"].get("source_files", [])
    whole = len([file for file in kept.values() if file is not None]) == len(sources)
    for file in sources:
        if "key" in file:
            says = f"the raw file {file['key']} is not among those that the record lists"
            found.hold(f"{_FILE}.key", file["key"] in kept, says)
    found.proven.add("files.raw")  # until one is absent
    for key, file in kept.items():
        stopping.check()
        size = store.size(key)
        if size is None:
            found.refuted |= {"files.raw", f"{_FILE}.key"}
            found.damage(key, f"{key} is absent")
            continue
        if file is None:
            continue
        if file["size"] not in (None, size):
            found.refuted.add(f"{_FILE}.size")
            found.damage(key, f"{key} has {size} bytes, where the record says {file['size']}")
            continue
        if whole:
            found.proven.add(f"{_FILE}.size")
        if deep:
            _prove_bytes(store, key, file, found, whole=whole)


def _prove_bytes(
    store: Store, key: str, file: dict[str, Any], found: Findings, *, whole: bool
) -> None:
    """Read a raw file once for its sha256 and the publisher's checksum.

    Parameters
    ----------
    whole
        All source files are kept, so that their digests are proven as a fact of the record.
    """
    algorithm, _, published = str(file.get("publisher_checksum") or "").partition(":")
    digests = {"sha256": hashlib.sha256()}
    if published and algorithm in hashlib.algorithms_available:
        digests[algorithm] = hashlib.new(algorithm, usedforsecurity=False)
    for block in blocks_of(store, key):
        for digest in digests.values():
            digest.update(block)
    stated = {"sha256": file.get("sha256"), algorithm: published.lower()}
    facts = {"sha256": f"{_FILE}.sha256", algorithm: f"{_FILE}.publisher_checksum"}
    for name, digest in digests.items():
        if not stated.get(name):
            continue
        if digest.hexdigest() != stated[name]:
            found.refuted.add(facts[name])
            found.damage(key, f"the bytes of {key} are not those that were written")
        elif whole:
            found.proven.add(facts[name])


def prove_preview(store: Store, record: dict[str, Any], found: Findings, *, deep: bool) -> None:
    """The picture beside the volume."""
    key, sha256 = record["files"].get("preview"), record["files"].get("preview_sha256")
    if key is None:
        return
    if store.size(key) is None:
        found.refuted.add("files.preview")
        found.damage(key, f"{key} is absent")
        return
    found.proven.add("files.preview")
    if deep and sha256 is not None:
        if digest_of(store, key)[1] == sha256:
            found.proven.add("files.preview_sha256")
        else:
            found.refuted.add("files.preview_sha256")
            found.damage(key, f"the bytes of {key} are not those that were written")


def prove_crate(store: Store, record: dict[str, Any], found: Findings) -> None:
    """An RO-Crate beside the volume is this record's, and vouches for these digests.

    The catalogue writes it after the record, and a record may be newer; what must not be is a
    crate of another volume or of other bytes.
    """
    key, technical = crate_key(record["files"]["volume"]), record["metadata"]["technical"]
    try:
        data = store.get(key)
    except NotFoundError:
        return
    advice = "`macroscope consolidate` writes it anew"
    try:
        entities = {entity["@id"]: entity for entity in json.loads(data)["@graph"]}
    except (ValueError, KeyError, TypeError) as error:
        found.wrong(f"{key} is no RO-Crate: {error!r}; {advice}")
        return
    if f"urn:uuid:{record['id']}" not in entities:
        found.wrong(f"{key} describes another volume; {advice}")
    digests = {one["sha256"] for one in entities.values() if _is_of_the_volume(one, record)}
    if digests and digests != {technical["sha256"]}:
        found.wrong(f"{key} vouches for another version of the volume; {advice}")


def _is_of_the_volume(entity: dict[str, Any], record: dict[str, Any]) -> bool:
    names = {record["files"]["volume"].rpartition("/")[2]}
    names |= {str(record["files"].get("sums")).rpartition("/")[2]}
    return "sha256" in entity and str(entity["@id"]).rpartition("/")[2] in names


_LINE = re.compile(r"^(?P<sha256>[0-9a-f]{64})  (?P<name>[^/\0][^\0]*)$")


def sums_key(record: Mapping[str, Any]) -> str:
    """Where the list of digests of a volume lies."""
    files = record["files"]
    return str(files.get("sums") or f"{files['volume']}.SHA256SUMS")


def read_sums(store: Store, record: dict[str, Any]) -> dict[str, str]:
    """Key in the store -> sha256 of every file of a volume, after proving the list itself.

    Raises
    ------
    IntegrityError
        The list is absent, malformed, or not the one that the record was written with.
    """
    technical, files = record["metadata"]["technical"], record["files"]
    key = sums_key(record)
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
