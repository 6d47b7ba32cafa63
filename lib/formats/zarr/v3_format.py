"""Zarr v3 groups, NGFF 0.5 and 0.6 multiscales, and bare arrays, as a format of trees."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from lib.bytesource.neighbours import requests_for
from lib.bytesource.tree import Tree, in_words, join, listing_or_none, optional_document
from lib.errors import NotFoundError
from lib.formats.base import WIDENED
from lib.formats.chunked import cells_in, listed_objects, survey_objects
from lib.formats.format import Handle, Options, Survey, VolumeDescription, VoxelSize
from lib.formats.zarr.axes import (
    IMPLIED,
    AxisMap,
    array_index,
    axis_map,
    axis_names,
    spatial_only,
    stated_names,
    understood,
)
from lib.formats.zarr.format import choose_level
from lib.formats.zarr.ngff import (
    Multiscale,
    level_of_array,
    multiscale_above,
    named_children,
    names_of_array,
    parse_multiscale,
)
from lib.formats.zarr.v3_array import ArrayV3, parse_array_v3, parse_node
from lib.formats.zarr.v3_reader import Zarr3Reader
from lib.geometry import Box
from lib.plan import SourceGrid
from lib.safety import reading
from lib.vocabulary import IMAGE_LABEL, labels_said

MOST_DOCUMENT_BYTES = 64 * 2**20
_DEEPEST = 6


class Zarr3Format:
    """Groups, multiscales and bare arrays of Zarr v3, shards included."""

    name: ClassVar[str] = "zarr3"
    title: ClassVar[str] = "Zarr v3, OME-Zarr 0.5"
    container: ClassVar[Literal["tree"]] = "tree"
    markers: ClassVar[tuple[str, ...]] = ("zarr.json",)

    def fits(self, tree: Tree, path: str) -> bool:
        return tree.head(join(path, "zarr.json")) is not None

    def describe(
        self, tree: Tree, root: str, path: str, options: Options
    ) -> list[VolumeDescription]:
        with reading("a zarr.json at, above or below", f"{tree.uri}/{join(root, path)}"):
            return _described_below(tree, root, path, options)

    def survey(self, tree: Tree, root: str, volume: VolumeDescription, box: Box) -> Survey:
        array, axes, document = _of_handle(volume.handle)
        path = join(root, volume.handle["path"])
        chunk = axes.pick_zyx(array.chunk)
        wanted = cells_in(box, chunk)
        ratio = [g // c for g, c in zip(array.grid_chunk, array.chunk, strict=True)]
        keys, held = {}, {}
        for index in wanted:
            whole = array_index(axes, index, array.chunk)
            shard = tuple(i // r for i, r in zip(whole, ratio, strict=True))
            keys[index] = array.key(shard)
            held[keys[index]] = _chunks_held(array, shard, ratio)
        grid = SourceGrid.of_box(box, chunk, array.codec, absent="unwritten")
        listed = listed_objects(tree, path, held, "zarr.json")
        survey = survey_objects(tree, path, grid, keys, document, listed)
        if array.sharding is None:
            return survey
        nbytes = survey.nbytes
        if listed is not None:  # a box takes the share of the shards' chunks that it needs
            full = sum(held[key] for key in listed)
            nbytes = math.ceil(nbytes * min(1.0, survey.requests / max(full, 1)))
        wanted_of = Counter(key for key in keys.values() if listed is None or key in listed)
        return replace(survey, nbytes=nbytes, requests=_shard_requests(wanted_of, nbytes, array))

    def open(
        self, tree: Tree, root: str, handle: Handle, box: Box, grid: SourceGrid | None = None
    ) -> Zarr3Reader:
        array, axes, _ = _of_handle(handle)
        holes = None if grid is None else grid.known_missing()
        return Zarr3Reader(tree, join(root, handle["path"]), array, axes, box, holes)


Block = dict[str, Any]


def _described_below(tree: Tree, root: str, path: str, options: Options) -> list[VolumeDescription]:
    """The array at a path, or a level of each multiscale at and below it, or each array."""
    where = join(root, path)
    node = _node(tree, where)
    if node is not None and node["node_type"] == "array":

        def blocks_at(key: str) -> list[Block]:
            return _multiscales(_node(tree, key))

        above = multiscale_above(where, blocks_at, _paths)
        return [_described(tree, root, where, options, *above)]
    found = _multiscales_below(tree, where, 0)
    described = [
        _described(tree, root, join(at, level), options, at, level, block)
        for at, block in found
        for level in [_chosen(tree, at, block, options.level)]
    ]
    if not found:
        arrays = _arrays_below(tree, where, 0)
        described = [_described(tree, root, key, options, "", "", None) for key in arrays]
    if not described:
        raise NotFoundError(
            f"there is no array or multiscale at {path or 'the root'!r}",
            location=f"{tree.uri}/{where}",
            advice=in_words(_children(tree, where), tree, where),
        )
    return described


def _node(tree: Tree, path: str) -> dict[str, Any] | None:
    key = join(path, "zarr.json")
    data = optional_document(tree, key, MOST_DOCUMENT_BYTES)
    return None if data is None else parse_node(data, f"{tree.uri}/{key}")


def _multiscales(node: dict[str, Any] | None) -> list[Block]:
    """The multiscales of a group: under ``ome``, or straight among its attributes.

    Of several that name the same arrays, the first.
    """
    attributes = (node or {}).get("attributes") or {}
    found: list[Block] = []
    for place in (attributes.get("ome"), attributes):
        if not isinstance(place, dict) or not place.get("multiscales"):
            continue
        blocks, labels = place["multiscales"], labels_said(place)
        labels = labels if labels[0] else labels_said(attributes)
        known: set[str] = set()
        for number in range(len(blocks)):
            block = {**blocks[number], "_labels": labels}
            if not known & {*_paths(block)}:
                found.append(block)
            known |= {*_paths(block)}
        break
    return found


def _paths(block: Block) -> list[str]:
    datasets = block.get("datasets")
    return [str(one.get("path")) for one in datasets or () if isinstance(one, dict)]


def _children(tree: Tree, path: str) -> list[str]:
    node = _node(tree, path)
    consolidated = ((node or {}).get("consolidated_metadata") or {}).get("metadata")
    listing = listing_or_none(tree, path)
    if listing is not None:
        return listing.folders
    names = {key.partition("/")[0] for key in consolidated or {}}
    attributes = (node or {}).get("attributes") or {}
    said = named_children(attributes, lambda name: _node(tree, join(path, name)) is not None)
    return sorted(names | set(said))


def _multiscales_below(tree: Tree, path: str, depth: int) -> list[tuple[str, Block]]:
    node = _node(tree, path)
    blocks = _multiscales(node)
    if blocks:
        return [(path, block) for block in blocks]
    if depth >= _DEEPEST or (node is not None and node["node_type"] == "array"):
        return []
    found = []
    for child in _children(tree, path):
        found += _multiscales_below(tree, join(path, child), depth + 1)
    return found


def _arrays_below(tree: Tree, path: str, depth: int) -> list[str]:
    node = _node(tree, path)
    if node is not None and node["node_type"] == "array":
        return [path]
    if depth >= _DEEPEST or node is None:
        return []
    return [
        found
        for child in _children(tree, path)
        for found in _arrays_below(tree, join(path, child), depth + 1)
    ]


def _chosen(tree: Tree, path: str, block: Block, level: str | None) -> str:
    multiscale = _parsed(tree, path, block, len(axis_names(block) or "zyx"))
    name = choose_level(multiscale, level)
    if _node(tree, join(path, name)) is None:
        raise NotFoundError(
            f"{path or 'the multiscale'} has no level {name}",
            location=f"{tree.uri}/{join(path, name)}",
            advice="There are: " + ", ".join(multiscale.paths),
        )
    return name


def _parsed(tree: Tree, path: str, block: Block, dims: int) -> Multiscale:
    where = f"{tree.uri}/{join(path, 'zarr.json')}"
    plain = spatial_only(block, dims, where)
    multiscale = parse_multiscale({"multiscales": [plain]}, where)
    assert multiscale is not None
    labels, drawn = block["_labels"]
    return replace(multiscale, labels=labels, drawn=drawn)


def _described(
    tree: Tree,
    root: str,
    key: str,
    options: Options,
    at: str,
    level: str,
    block: Block | None,
) -> VolumeDescription:
    where = f"{tree.uri}/{join(key, 'zarr.json')}"
    data = tree.get(join(key, "zarr.json"), MOST_DOCUMENT_BYTES)
    if data is None:
        raise NotFoundError("there is no array", location=where)
    array = parse_array_v3(data, where)
    names, called = axis_names(block) if block is not None else None, list[str]()
    if names is None and array.names is not None:
        names = understood(stated_names(array.names), called)
    if names is None:
        names = understood(names_of_array(array.attributes, len(array.shape)), called)
    axes = axis_map(names, array.shape, where, channel=options.channel, time=options.time)
    multiscale = _parsed(tree, at, block, len(array.shape)) if block is not None else None
    found = multiscale.level(level) if multiscale is not None else None
    named = found is not None
    if found is None:
        said = names or IMPLIED[-len(array.shape) :]
        found = level_of_array(level, array.attributes, said, where)
    voxel, notes = VoxelSize(), called
    if found is not None:
        voxel, notes = found.voxel, [*called, *found.notes]
        if axes.dims_zyx[0] is None:
            voxel = replace(voxel, z_nm=None)
    if array.dtype.itemsize != array.stored.itemsize:
        notes.append(WIDENED)
    evidence = (multiscale.labels if multiscale else "") or None
    if "labels" in key.split("/"):
        evidence = evidence or IMAGE_LABEL
    drawn = multiscale.drawn if multiscale else {}
    path = key.removeprefix(root).strip("/") if root else key
    document = {
        name: value for name, value in json.loads(bytes(data)).items() if name != "attributes"
    }
    document.pop("consolidated_metadata", None)
    if evidence is None and document.get("data_type") == "bool":
        evidence = "data type bool"
    return VolumeDescription(
        path=path,
        handle={"path": path, "array": document, **axes.in_handle},
        shape_zyx=axes.pick_zyx(array.shape),
        dtype=array.dtype.name,
        voxel=voxel,
        origin_nm_zyx=found.translation_nm_zyx if found is not None and voxel.y_nm else None,
        kind="labels" if evidence else None,
        kind_evidence=evidence,
        level=level or None if named else None,
        levels=multiscale.paths if multiscale and named else (),
        chunk_zyx=axes.pick_zyx(array.chunk),
        notes=tuple(notes),
        extra={"image_label": drawn} if drawn else {},
    )


def _of_handle(handle: dict[str, Any]) -> tuple[ArrayV3, AxisMap, bytes]:
    document = json.dumps(handle["array"]).encode()
    return parse_array_v3(document, handle["path"]), AxisMap.of_handle(handle), document


def _shard_requests(wanted: Counter[str], nbytes: int, array: ArrayV3) -> int:
    """Of each shard two, one for each shard inside, and those for runs of the wanted chunks."""
    mean, within = nbytes / max(1, wanted.total()), 0
    if array.sharding is not None and array.sharding.nested is not None:
        within = math.prod(array.grid_chunk) // math.prod(array.sharding.inner)
    return sum(
        2 + within + requests_for(count, math.ceil(mean * count)) for count in wanted.values()
    )


def _chunks_held(array: ArrayV3, shard: tuple[int, ...], ratio: Sequence[int]) -> int:
    """How many inner chunks of a shard hold voxels of the array."""
    cells = (-(-n // c) for n, c in zip(array.shape, array.chunk, strict=True))
    return math.prod(min(r, n - s * r) for n, s, r in zip(cells, shard, ratio, strict=True))
