"""N5 datasets and scale pyramids, as a format of trees."""

from __future__ import annotations

import json
import math
import re
from typing import Any, ClassVar, Literal

from lib.bytesource.tree import Tree, in_words, join, listing_or_empty, optional_document
from lib.errors import NotFoundError, UnsupportedFormatError
from lib.formats.chunked import cells_in, choose_level_name, listed_objects, survey_objects
from lib.formats.format import Handle, Options, Survey, VolumeDescription, VoxelSize
from lib.formats.n5.blocks import Dataset, parse_dataset
from lib.formats.n5.geometry import axes_of, placing
from lib.formats.n5.reader import N5Reader
from lib.formats.zarr.axes import AxisMap, axis_map
from lib.geometry import Box, zyx
from lib.plan import SourceGrid
from lib.safety import json_object, reading
from lib.vocabulary import Kind, labels_said

DOCUMENT = "attributes.json"
MOST_DOCUMENT_BYTES = 64 * 2**20
_DEEPEST = 6
_SETUP = re.compile(r"setup\d+")  # BigDataViewer's levels lie one deeper, in time points
_LEVEL = re.compile(r"s(\d{1,2})")


class N5Format:
    """Groups, scale pyramids (``s0``, ``s1``, ...) and single datasets of N5."""

    name: ClassVar[str] = "n5"
    title: ClassVar[str] = "N5"
    container: ClassVar[Literal["tree"]] = "tree"
    markers: ClassVar[tuple[str, ...]] = (DOCUMENT,)

    def fits(self, tree: Tree, path: str) -> bool:
        data = tree.get(join(path, DOCUMENT), MOST_DOCUMENT_BYTES)
        if data is None:
            return False
        keys = json_object(data, DOCUMENT, path).keys()
        return bool(keys & {"n5", "dimensions", "multiScale", "scales", "multiscales"}) or (
            bool(keys & {"pixelResolution", "resolution", "downsamplingFactors"})
        )

    def describe(
        self, tree: Tree, root: str, path: str, options: Options
    ) -> list[VolumeDescription]:
        where = join(root, path)
        with reading("an attributes.json at, above or below", f"{tree.uri}/{where}"):
            found = _volumes(tree, where, options, 0)
            if not found:
                raise NotFoundError(
                    f"there is no dataset at {path or 'the root'!r}",
                    location=f"{tree.uri}/{where}",
                    advice=in_words(listing_or_empty(tree, where).folders, tree, where),
                )
            return [_described(tree, root, *one, options) for one in found]

    def survey(self, tree: Tree, root: str, volume: VolumeDescription, box: Box) -> Survey:
        dataset, axes = _of_handle(volume.handle)
        path = join(root, volume.handle["path"])
        reader = N5Reader(tree, path, dataset, axes, box, frozenset(), _mirrored(volume.handle))
        chunk, box = reader.chunk_zyx, reader.box
        wanted = cells_in(box, chunk)
        keys = {index: reader.chunk_key(index) for index in wanted}
        grid = SourceGrid.of_box(box, chunk, reader.codec.config, absent="background")
        listed = listed_objects(tree, path, keys.values(), DOCUMENT)
        document = json.dumps(volume.handle["dataset"]).encode()
        return survey_objects(tree, path, grid, keys, document, listed)

    def open(
        self, tree: Tree, root: str, handle: Handle, box: Box, grid: SourceGrid | None = None
    ) -> N5Reader:
        dataset, axes = _of_handle(handle)
        holes = None if grid is None else grid.known_missing()
        path = join(root, handle["path"])
        return N5Reader(tree, path, dataset, axes, box, holes, _mirrored(handle))


def _attributes(tree: Tree, path: str) -> dict[str, Any] | None:
    key = join(path, DOCUMENT)
    data = optional_document(tree, key, MOST_DOCUMENT_BYTES)
    return None if data is None else json_object(data, DOCUMENT, f"{tree.uri}/{key}")


def _levels(tree: Tree, path: str, attributes: dict[str, Any]) -> list[str]:
    """Names of the levels of a pyramid, finest first; empty where a group is none."""
    if _SETUP.fullmatch(path.rpartition("/")[2]):
        return []
    for block in attributes.get("multiscales") or []:
        return [str(one["path"]).strip("/") for one in block.get("datasets") or []]
    table = attributes.get("scales") or attributes.get("downsamplingFactors")
    if isinstance(table, list) and table and isinstance(table[0], list):
        return [f"s{number}" for number in range(len(table))]
    named = [name for name in listing_or_empty(tree, path).folders if _LEVEL.fullmatch(name)]
    if not named and _attributes(tree, join(path, "s0")) is not None:
        named = ["s0"]  # where nothing lists them
        while _attributes(tree, join(path, f"s{len(named)}")) is not None:
            named.append(f"s{len(named)}")
    return sorted(named, key=lambda name: int(name[1:]))


_Found = tuple[str, str, dict[str, Any], tuple[str, ...]]  # key, level, group's attributes, levels


def _volumes(tree: Tree, path: str, options: Options, depth: int) -> list[_Found]:
    """Datasets at and below a path: one level of each pyramid, and each single one."""
    attributes = _attributes(tree, path)
    if attributes is not None and "dimensions" in attributes:
        above, _, name = path.rpartition("/")
        group = _attributes(tree, above) or {}
        levels = _levels(tree, above, group) if _LEVEL.fullmatch(name) else []
        return [(path, name if name in levels else "", group, tuple(levels))]
    levels = _levels(tree, path, attributes or {})
    if levels:
        level = choose_level_name(levels, options.level, f"{tree.uri}/{path}")
        return [(join(path, level), level, attributes or {}, tuple(levels))]
    if depth >= _DEEPEST:
        return []
    children = (join(path, child) for child in listing_or_empty(tree, path).folders)
    return [one for child in children for one in _volumes(tree, child, options, depth + 1)]


def _described(
    tree: Tree,
    root: str,
    key: str,
    level: str,
    group: dict[str, Any],
    levels: tuple[str, ...],
    options: Options,
) -> VolumeDescription:
    where = f"{tree.uri}/{join(key, DOCUMENT)}"
    attributes = _attributes(tree, key)
    dataset = None if attributes is None else parse_dataset(attributes, where)
    if dataset is None or attributes is None:
        raise NotFoundError("there is no dataset", location=where)
    found = axes_of(attributes, group)[::-1]
    names = found if len(found) == len(dataset.shape) else None
    if names is None and len(dataset.shape) > 3:
        raise UnsupportedFormatError(
            f"a dataset of {dataset.shape} (x first) whose axes have no names", location=where
        )
    axes = axis_map(names, dataset.shape[::-1], where, channel=options.channel, time=options.time)
    place = placing(attributes, group, level, where)
    z, y, x = place.voxel_nm_zyx or (None, None, None)
    kind, evidence = _kind(attributes, group, key)
    path = key.removeprefix(root).strip("/") if root else key
    kept = ("dimensions", "blockSize", "dataType", "compression", "compressionType")
    shape = axes.pick_zyx(dataset.shape[::-1])
    origin, notes = place.origin_nm_zyx, place.notes
    if place.mirrored and origin is not None and place.voxel_nm_zyx is not None:
        # the last voxel of such an axis lies lowest, and becomes the first
        edges = ""
        turned = [*origin]
        for n in ("zyx".index(axis) for axis in place.mirrored):
            step = place.voxel_nm_zyx[n]
            below = _below_edge(origin[n], shape[n], step)
            turned[n] -= (shape[n] - 1) * step + below
            edges += "zyx"[n] if below else ""
        origin = zyx(turned)
        notes += tuple(
            f"translate along {axis} is the far edge of the volume, not the centre of a voxel: "
            "the first voxel is counted from there, as voxels of positive scale are"
            for axis in edges
        )
        said = "its scale is negative: it was turned, so that positions grow with the index"
        notes += tuple(f"the {axis} axis is stored mirrored; {said}" for axis in place.mirrored)
    return VolumeDescription(
        path=path,
        handle={
            "path": path,
            "dataset": {name: attributes[name] for name in kept if name in attributes},
            **axes.in_handle,
            **({"mirrored": place.mirrored} if place.mirrored else {}),
        },
        shape_zyx=shape,
        dtype=dataset.dtype.name,
        voxel=VoxelSize(z, y, x, place.source),
        origin_nm_zyx=origin,
        kind=kind,
        kind_evidence=evidence,
        level=level or None,
        levels=levels,
        chunk_zyx=axes.pick_zyx(dataset.block[::-1]),
        notes=notes,
    )


def _below_edge(translate: float, count: int, step: float) -> float:
    """How far the centre of an axis' far end lies below its translation: 0, or a finest voxel.

    Of OpenOrganelle's mirrored volumes (1600 rows of -4 nm at 6400) the translation is the edge
    behind the last row; the same volume of positive scale begins at 0. Coarser levels are shifted
    by the half voxels of a pyramid from there.
    """
    for halvings in range(8):
        finest = step * 0.5**halvings
        if math.isclose(translate, count * step - (step - finest) / 2, abs_tol=finest * 1e-3):
            return finest
    return 0.0


def _kind(
    attributes: dict[str, Any], group: dict[str, Any], key: str
) -> tuple[Kind | None, str | None]:
    for place in (attributes, group):
        for said in (place, place.get("cellmap") or {}, place.get("annotation") or {}):
            if isinstance(said, dict) and said.get("sampleType") == "label":
                return "labels", "sampleType label"
            if isinstance(said, dict) and said.get("contentType") == "segmentation":
                return "labels", "contentType segmentation"
            if isinstance(said, dict) and said.get("sampleType") == "scalar":
                return "image", "sampleType scalar"
        if said := labels_said(place)[0]:
            return "labels", said
    if "labels" in key.split("/"):
        return "labels", "a group named labels"
    return None, None


def _of_handle(handle: dict[str, Any]) -> tuple[Dataset, AxisMap]:
    dataset = parse_dataset(handle["dataset"], handle["path"])
    assert dataset is not None
    return dataset, AxisMap.of_handle(handle)


def _mirrored(handle: dict[str, Any]) -> tuple[bool, bool, bool]:
    """Which of z, y, x are turned round; plans of before have none."""
    z, y, x = (axis in handle.get("mirrored", "") for axis in "zyx")
    return z, y, x
