"""Re-proving a finished volume from its record alone."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lib.concurrency import cancel as stopping
from lib.errors import IntegrityError, MacroscopeError, NotFoundError
from lib.names import safe_name
from lib.storage.base import Store
from lib.storage.digests import digest_of
from lib.verify.sums import prove_listing, read_sums
from lib.volumes.grid import ShardGrid, shard_key


def problems_of(store: Store, record: dict[str, Any], *, digests: bool) -> list[str]:
    """Everything that is wrong with one complete volume; empty when all holds.

    Parameters
    ----------
    digests
        Read every byte again and compare its sha256; without it, listings and documents only.
    """
    found: list[str] = []
    try:
        sums = read_sums(store, record)
    except MacroscopeError as error:
        return [str(error)]
    checks: list[Callable[[], Iterator[str]]] = [
        lambda: _listing(store, record, sums),
        lambda: _documents(store, record, sums),
    ]
    if digests:
        checks.append(lambda: _digests(store, record, sums))
    for check in checks:
        try:
            found.extend(check())
        except MacroscopeError as error:
            found.append(str(error))
    return found


def _listing(store: Store, record: dict[str, Any], sums: dict[str, str]) -> Iterator[str]:
    prove_listing(store, record, sums)
    yield from ()


def _digests(store: Store, record: dict[str, Any], sums: dict[str, str]) -> Iterator[str]:
    """sha256 of every file of the volume, and of the raw files that were kept."""
    wanted = dict(sums)
    raw = {key.rpartition("/")[2]: key for key in record["files"].get("raw", [])}
    for file in record["metadata"]["provenance"].get("source_files", []):
        key = file.get("key") or raw.get(safe_name(file["name"].rpartition("/")[2]))
        if key is not None and file["sha256"] is not None:
            wanted[key] = file["sha256"]
    for key, sha256 in wanted.items():
        stopping.check()
        try:
            if digest_of(store, key)[1] != sha256:
                yield f"the bytes of {key} are not those that were written"
        except NotFoundError:
            yield f"{key} is absent"


def _documents(store: Store, record: dict[str, Any], sums: dict[str, str]) -> Iterator[str]:
    if record["metadata"]["technical"]["format"] == "npy":
        yield from _npy_header(store, record)
    else:
        yield from _ome_zarr(store, record, sums)


def _npy_header(store: Store, record: dict[str, Any]) -> Iterator[str]:
    key, core = record["files"]["volume"], record["metadata"]["core"]
    size = store.size(key) or 0
    head = io.BytesIO(store.get_range(key, 0, min(size, 1024)))
    try:
        version = np.lib.format.read_magic(head)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    except ValueError as error:
        raise IntegrityError(f"the npy header cannot be read: {error}", location=key) from None
    if version != (1, 0) or fortran or list(shape) != core["volume_shape"]:
        yield f"{key} has shape {shape}, where the record says {core['volume_shape']}"
    if dtype.name != core["data_type"]:
        yield f"{key} holds {dtype.name}, where the record says {core['data_type']}"
    if size != head.tell() + math.prod(shape) * dtype.itemsize:
        yield f"{key} has {size} bytes, which does not fit its shape"


def _ome_zarr(store: Store, record: dict[str, Any], sums: dict[str, str]) -> Iterator[str]:
    """The group's OME metadata, and each level's shape, dtype and complete grid of shards."""
    volume, core = record["files"]["volume"], record["metadata"]["core"]
    group = _json(store, f"{volume}/zarr.json")
    yield from _ome_metadata(group, volume)
    levels = record["metadata"]["technical"]["levels"]
    for stated in levels:
        key = f"{volume}/{stated['path']}/zarr.json"
        array = _json(store, key)
        try:
            grid = _grid(array)
            dtype = array["data_type"]
        except (KeyError, TypeError, IndexError, ValueError, MacroscopeError) as error:
            yield f"{key} cannot be read: {error!r}"
            continue
        if list(grid.shape_zyx) != stated["shape"] or dtype != core["data_type"]:
            here, there = (
                f"{list(grid.shape_zyx)} {dtype}",
                f"{stated['shape']} {core['data_type']}",
            )
            yield f"{key} says {here}, the record {there}"
        absent = [
            shard
            for index in grid.shards()
            if (shard := f"{volume}/{shard_key(int(stated['path']), index)}") not in sums
        ]
        if absent:
            share = f"{len(absent)} of {len(grid)} shards of level {stated['path']}"
            yield f"{share} are not listed, such as {absent[0]}"
    if not levels or levels[0]["shape"] != core["volume_shape"]:
        yield f"{volume}: level 0 of the record is not the volume's shape"


def _ome_metadata(group: dict[str, Any], where: str) -> Iterator[str]:
    from ome_zarr_models.v05.image import ImageAttrs  # half a second of imports
    from pydantic import ValidationError

    try:
        ImageAttrs.model_validate(group["attributes"]["ome"])
    except (ValidationError, KeyError, TypeError) as error:
        yield f"{where}: the OME metadata is not valid: {error}"


def _grid(array: dict[str, Any]) -> ShardGrid:
    sharding = array["codecs"][0]
    if sharding["name"] != "sharding_indexed":
        raise ValueError("not sharded")
    return ShardGrid(
        tuple(array["shape"]),
        tuple(sharding["configuration"]["chunk_shape"]),
        tuple(array["chunk_grid"]["configuration"]["chunk_shape"]),
    )


def _json(store: Store, key: str) -> dict[str, Any]:
    try:
        document = json.loads(store.get(key))
    except NotFoundError:
        raise IntegrityError("a document is absent", location=key) from None
    except ValueError as error:
        raise IntegrityError(f"a document is not JSON: {error}", location=key) from None
    if not isinstance(document, dict):
        raise IntegrityError("a document is no JSON object", location=key)
    return document
