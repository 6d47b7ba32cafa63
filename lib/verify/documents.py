"""The documents of a volume against its record: shape, type, grid, axes, scales, kind, codec."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lib.errors import IntegrityError, MacroscopeError
from lib.present.described import grid_of, read_document
from lib.records.model import Record
from lib.storage.base import Store
from lib.verify.findings import Findings
from lib.volumes.grid import shard_key

_AXES = ("z", "y", "x")


def prove_npy_header(store: Store, record: dict[str, Any], found: Findings) -> None:
    """Shape, data type and size of an npy."""
    key, core = record["files"]["volume"], record["metadata"]["core"]
    technical = record["metadata"]["technical"]
    size = store.size(key)
    if size is None:
        raise IntegrityError("the volume is absent", location=key)
    head = io.BytesIO(store.get_range(key, 0, min(size, 1024)))
    try:
        version = np.lib.format.read_magic(head)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    except ValueError as error:
        raise IntegrityError(f"the npy header cannot be read: {error}", location=key) from None
    found.hold(
        "core.volume_shape",
        version == (1, 0) and not fortran and list(shape) == core["volume_shape"],
        f"{key} has shape {shape}, where the record says {core['volume_shape']}",
    )
    found.hold(
        "core.data_type",
        dtype.name == core["data_type"],
        f"{key} holds {dtype.name}, where the record says {core['data_type']}",
    )
    if size != head.tell() + math.prod(shape) * dtype.itemsize:
        found.wrong(f"{key} has {size} bytes, which does not fit its shape")
    for name, right in (("compression", "none"), ("levels", [])):
        said = technical.get(name, right)
        found.hold(f"technical.{name}", said == right, f"{name} is {said!r}, of an npy")
    _prove_extent(record, found)


def prove_ome_zarr(
    store: Store, record: dict[str, Any], listed: Iterable[str], found: Findings
) -> None:
    """The group's OME metadata, and each level's document and complete grid of shards.

    Parameters
    ----------
    listed
        Keys of all files that the list of digests names.
    """
    volume, core = record["files"]["volume"], record["metadata"]["core"]
    technical = record["metadata"]["technical"]
    levels, names = technical.get("levels") or [], set(listed)
    group = read_document(store, f"{volume}/zarr.json")
    _prove_ome(group, record, levels, found)
    for picture in group.get("attributes", {}).get("thumbnails", ()):
        if f"{volume}/{picture.get('path')}" not in names:
            found.wrong(f"{volume}/zarr.json names a picture that is not listed: {picture}")
    inline = (group.get("consolidated_metadata") or {}).get("metadata") or {}
    # images that were made with labels repeat no levels: readers would take labels for absent
    named = sorted(inline) if "consolidated_metadata" in group else _in_multiscale(group)
    told = sorted(level["path"] for level in levels)
    there = sorted(
        {key.removeprefix(f"{volume}/").partition("/")[0] for key in names if "/c/" in key}
    )
    found.hold(
        "technical.levels[].path",
        bool(told) and named == told and there == told,
        f"{volume} holds levels {there}, its metadata {named}, where the record says {told}",
    )
    for number, stated in enumerate(levels):
        key = f"{volume}/{stated['path']}/zarr.json"
        try:
            array = read_document(store, key)
            _prove_level(array, stated, core, volume, names, found)
        except (KeyError, TypeError, IndexError, ValueError, MacroscopeError) as error:
            said = (
                str(error) if isinstance(error, MacroscopeError) else f"cannot be read: {error!r}"
            )
            found.wrong(f"{key}: {said}")
            continue
        if stated["path"] in inline and inline[stated["path"]] != array:
            found.wrong(f"{volume}/zarr.json says something else of level {number} than {key}")
        if number == 0:
            _prove_codec(array, technical, key, found)
    _hold_first(levels, record, found)
    _prove_extent(record, found)


def _in_multiscale(group: dict[str, Any]) -> list[str]:
    """The levels that the OME metadata names; none where it cannot be read, which is told apart."""
    try:
        datasets = group["attributes"]["ome"]["multiscales"][0]["datasets"]
        return sorted(str(dataset["path"]) for dataset in datasets)
    except (KeyError, TypeError, IndexError):
        return []


def _prove_level(
    array: dict[str, Any],
    stated: dict[str, Any],
    core: dict[str, Any],
    volume: str,
    names: set[str],
    found: Findings,
) -> None:
    key, path = f"{volume}/{stated['path']}/zarr.json", stated["path"]
    grid = grid_of(array)
    for name, here in (
        ("shape", grid.shape_zyx),
        ("chunk_size", grid.chunk_zyx),
        ("shard", grid.shard_zyx),
    ):
        if name in stated:
            fact, there = f"technical.levels[].{name}", stated[name]
            says = f"{key} says {name} {list(here)}, the record {there}"
            found.hold(fact, list(here) == there, says)
    dtype, wanted = array["data_type"], core["data_type"]
    found.hold("core.data_type", dtype == wanted, f"{key} says {dtype}, the record {wanted}")
    dimensions = array.get("dimension_names")
    found.hold(
        "technical.axes",
        dimensions == [*_AXES],
        f"{key} names its dimensions {dimensions}, where the record's axes are {[*_AXES]}",
    )
    absent = [
        shard
        for i in grid.shards()
        if (shard := f"{volume}/{shard_key(int(path), i)}") not in names
    ]
    if absent:
        share = f"{len(absent)} of {len(grid)} shards of level {path}"
        found.wrong(f"{share} are not listed, such as {absent[0]}")
        found.refuted.add("technical.levels[].shard")


def _prove_ome(
    group: dict[str, Any], record: dict[str, Any], levels: Sequence[dict[str, Any]], found: Findings
) -> None:
    from ome_zarr_models.v05.image import ImageAttrs  # half a second of imports
    from pydantic import ValidationError

    where, core = record["files"]["volume"], record["metadata"]["core"]
    try:
        ome = group["attributes"]["ome"]
        ImageAttrs.model_validate(ome)
        axes = ome["multiscales"][0]["axes"]
        datasets = ome["multiscales"][0]["datasets"]
    except (ValidationError, KeyError, TypeError, IndexError) as error:
        found.wrong(f"{where}: the OME metadata is not valid: {error}")
        return
    said = [axis["name"] for axis in axes]
    # without a unit are axes whose length nobody states; earlier versions gave these one, too
    assumed = Record.read(record).assumed_axes
    units = [axis.get("unit") for axis in axes]
    united = all(
        unit == "nanometer" or (unit is None and name in assumed)
        for name, unit in zip(said, units, strict=True)
    )
    stated = record["metadata"]["technical"].get("axes", said)
    found.hold(
        "technical.axes",
        said == stated and united,
        f"{where}: the OME metadata has axes {said} in {units}, the record {stated} in nanometres",
    )
    labels = "image-label" in ome
    kind = core.get("kind", "labels" if labels else "image")
    found.hold(
        "core.kind",
        labels == (kind == "labels"),
        f"{where}: the OME metadata is that of {'labels' if labels else 'an image'}, "
        f"where the record says {kind}",
    )
    pooled = (ome["multiscales"][0].get("metadata") or {}).get("kwargs") or {}
    said_of_labels = record["metadata"]["technical"].get("labels") or {}  # none in earlier records
    for name, said in said_of_labels.items():
        if name in ("ties", "yielding"):
            found.hold(
                f"technical.labels.{name}",
                pooled.get(name) == said,
                f"{where}: the OME metadata says {name} {pooled.get(name)!r}, the record {said!r}",
            )
    coloured = [one["label-value"] for one in (ome.get("image-label") or {}).get("colors", ())]
    named = said_of_labels.get("values") or []
    if coloured and coloured != named:
        found.wrong(f"{where}: the OME metadata has colours of the ids {coloured}, not {named}")
    by_path = {dataset["path"]: dataset["coordinateTransformations"] for dataset in datasets}
    paths = [level["path"] for level in levels]
    found.hold(
        "technical.levels[].path",
        [*by_path] == paths,
        f"{where}: the OME metadata has levels {[*by_path]}, where the record says {paths}",
    )
    for level in levels:
        given = {one["type"]: one[one["type"]] for one in by_path.get(level["path"], ())}
        for name, kind in (("scale_nm", "scale"), ("translation_nm", "translation")):
            if name in level and level["path"] in by_path:
                here, there = given.get(kind, [0.0] * 3), _triple(level[name])
                found.hold(
                    f"technical.levels[].{name}",
                    _same(here, there),
                    f"{where}: level {level['path']} has {kind} {here} in the OME metadata, "
                    f"where the record says {there}",
                )
    if paths and paths[0] in by_path:
        given = {one["type"]: one[one["type"]] for one in by_path[paths[0]]}
        _hold_finest(given, record, found)


def _hold_finest(given: Mapping[str, Any], record: dict[str, Any], found: Findings) -> None:
    """Voxel size and place of the volume, which are those of its finest level."""
    where, metadata = record["files"]["volume"], record["metadata"]
    for fact, value, here in (
        ("core.voxel_size_nm", metadata["core"]["voxel_size_nm"], given.get("scale")),
        (
            "technical.translation",
            metadata["technical"].get("translation"),
            given.get("translation", [0.0] * 3),
        ),
    ):
        if value is not None:
            there = _triple(value)
            found.hold(
                fact,
                here is not None and _same(here, there),
                f"{where}: {fact.partition('.')[2]} is {here} in the OME metadata, "
                f"where the record says {there}",
            )


def _hold_first(levels: Sequence[dict[str, Any]], record: dict[str, Any], found: Findings) -> None:
    """The fields that repeat what level 0 says."""
    volume, metadata = record["files"]["volume"], record["metadata"]
    first = levels[0] if levels else {}
    for fact, name in (
        ("core.volume_shape", "shape"),
        ("technical.chunk_size", "chunk_size"),
        ("technical.shard", "shard"),
    ):
        section, _, field = fact.partition(".")
        if (stated := metadata[section].get(field)) is not None:
            found.hold(
                fact,
                first.get(name) == stated and f"technical.levels[].{name}" not in found.refuted,
                f"{volume}: the record says {name} {stated} of the volume, and {first.get(name)} "
                "of level 0",
            )


def _prove_codec(
    array: dict[str, Any], technical: dict[str, Any], key: str, found: Findings
) -> None:
    """What compresses a chunk, and how hard."""
    inner = array["codecs"][0]["configuration"]["codecs"]
    used = [codec for codec in inner if codec["name"] not in ("bytes", "crc32c", "transpose")]
    name = used[0]["name"] if used else "none"
    said = technical["compression"]
    found.hold("technical.compression", name == said, f"{key} says {name}, the record {said}")
    options = used[0].get("configuration", {}) if used else {}
    level, stated = options.get("level", options.get("clevel")), technical.get("compression_level")
    if stated is not None:
        found.hold(
            "technical.compression_level",
            level == stated,
            f"{key} says level {level} of {name}, the record {stated}",
        )


def _prove_extent(record: dict[str, Any], found: Findings) -> None:
    """The extent repeats shape and voxel size."""
    core, extent = record["metadata"]["core"], record["metadata"]["technical"]["dimensions_nm"]
    voxel = _triple(core["voxel_size_nm"])
    product = [n * v for n, v in zip(core["volume_shape"], voxel, strict=True)]
    found.hold(
        "technical.dimensions_nm",
        _same(product, _triple(extent)),
        f"the record's extent is {_triple(extent)} nm, where shape and voxel size make {product}",
    )


def _triple(lengths: Mapping[str, float]) -> list[float]:
    return [lengths[axis] for axis in _AXES]


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in zip(one, other, strict=True)
    )
