"""N5 datasets and scale pyramids, as a format of trees.

Voxel size and origin of N5 datasets, as OpenOrganelle, Paintera, BigDataViewer write them.

``transform`` (COSEM) is z, y, x, or x, y, z with ``order`` "F"; all else is x, y, z. What several
places say of one dataset must agree.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lib.bytesource.tree import Tree, in_words, join, listing_or_none, optional_document
from lib.errors import FormatError, NotFoundError, UnsupportedFormatError
from lib.formats.chunked import cells_in, choose_level_name, listed_objects, survey_objects
from lib.formats.format import Handle, Options, Survey, VolumeDescription, VoxelSize
from lib.formats.n5.blocks import Dataset, parse_dataset
from lib.formats.n5.reader import N5Reader
from lib.formats.zarr.axes import AxisMap, axis_map
from lib.geometry import Box, LengthsZYX, to_nm, zyx
from lib.plan import SourceGrid, unstored
from lib.safety import json_object, reading
from lib.vocabulary import Kind, labels_said

_CLOSE = 1e-6


@dataclass(frozen=True, slots=True)
class Placing:
    """Where a dataset lies, in nanometres; what is not stated is None.

    Attributes
    ----------
    mirrored
        Axes of which the scale is negative: index 0 lies at the far end, and there is the origin.
    """

    voxel_nm_zyx: LengthsZYX | None
    origin_nm_zyx: LengthsZYX | None
    source: str
    mirrored: str = ""
    notes: tuple[str, ...] = ()


def placing(own: dict[str, Any], group: dict[str, Any], level: str, where: str) -> Placing:
    """What a dataset's and its group's attributes say of its voxels.

    Parameters
    ----------
    level
        Name of the dataset in its group (``s0``).

    Raises
    ------
    FormatError
        Two places contradict each other, or numbers are none.
    """
    found = [
        one
        for one in (
            _transform(own.get("transform"), "transform", where),
            _transform(_of_multiscale(group, level), "multiscales", where),
            _resolution(own, group, level, where),
            _imagej(own, where),
        )
        if one is not None
    ]
    if not found:
        return Placing(None, None, "nothing")
    first = found[0]
    for other in found[1:]:
        if first.voxel_nm_zyx and other.voxel_nm_zyx and not _agree(first, other):
            raise FormatError(
                f"{first.source} says voxels of {first.voxel_nm_zyx} nm (z, y, x), {other.source} "
                f"{other.voxel_nm_zyx}",
                location=where,
            )
    return first


def _agree(a: Placing, b: Placing) -> bool:
    pairs = zip(a.voxel_nm_zyx or (), b.voxel_nm_zyx or (), strict=False)
    return all(math.isclose(m, n, rel_tol=_CLOSE) for m, n in pairs)


def _of_multiscale(group: dict[str, Any], level: str) -> Any:
    for block in group.get("multiscales") or []:
        for dataset in block.get("datasets") or []:
            if str(dataset.get("path")).strip("/") == level:
                return dataset.get("transform")
    return None


def _transform(given: Any, source: str, where: str) -> Placing | None:
    """A COSEM transform: axes, units, scale and translate of one length each."""
    if not isinstance(given, dict):
        return None
    with reading(source, where):
        axes = [str(axis).lower() for axis in given["axes"]]
        if sorted(axes) != ["x", "y", "z"]:
            return None
        order = [axes.index(axis) for axis in "zyx"]
        units = given.get("units") or [None] * 3
        per = [None if unit is None else to_nm(1.0, str(unit)) for unit in units]
        if None in per:
            return _unknown(source, given, units)
        scale = [float(given["scale"][i]) * float(per[i] or 0) for i in order]
        shift = [float(given["translate"][i]) * float(per[i] or 0) for i in order]
    if not all(math.isfinite(n) for n in (*scale, *shift)) or 0 in scale:
        raise FormatError(f"{source} has a scale of {given['scale']}", location=where)
    mirrored = "".join(axis for axis, n in zip("zyx", scale, strict=True) if n < 0)
    z, y, x = (abs(n) for n in scale)
    oz, oy, ox = shift
    return Placing((z, y, x), (oz, oy, ox), source, mirrored)


def _unknown(source: str, given: Any, units: Any) -> Placing:
    """Numbers without a unit, or with one that is no length, are quoted and not taken."""
    why = f"{source} says {given} in units {units}: no lengths, so the voxel size is unknown"
    return Placing(None, None, source, notes=(why[:300],))


def _resolution(
    own: dict[str, Any], group: dict[str, Any], level: str, where: str
) -> Placing | None:
    """pixelResolution and resolution, in the order of the axes; a group's are of its finest level.

    A level's own pixelResolution beside downsamplingFactors is that of the finest level too, as
    n5-universe reads and writes them; COSEM's, beside a ``transform``, is the level's.
    """
    try:
        given, units, source = own.get("pixelResolution"), None, "pixelResolution"
        shift = None
        finest = given is None or not isinstance(own.get("transform"), dict)
        if given is None:
            given = group.get("pixelResolution")
        elif not isinstance(own.get("downsamplingFactors"), list):
            finest = False
        if given is None:
            said = group if group.get("resolution") else own
            given, source, shift = said.get("resolution"), "resolution", said.get("offset")
            units = group.get("units") or own.get("units")
        if isinstance(given, dict):
            units, given = given.get("unit"), given.get("dimensions")
        axes = axes_of(own, group)
        if not isinstance(given, list) or len(given) != len(axes) or not {*"xyz"} <= {*axes}:
            return None
        units = units if isinstance(units, list) else [units] * len(given)
        factors = _factors(own, group, level, len(given)) if finest else [1.0] * len(given)
        rows = zip(axes, given, units, factors, shift or [0] * len(axes), strict=True)
        found = {axis: row for axis, *row in rows}
        per = {a: None if found[a][1] is None else to_nm(1.0, str(found[a][1])) for a in "zyx"}
        if None in per.values():
            return _unknown(source, given, units)
        lengths = zyx(float(found[a][0]) * float(per[a] or 0) * found[a][2] for a in "zyx")
        base = zyx(float(found[a][0]) * float(per[a] or 0) for a in "zyx")
        # a level begins where the finest does: its first centre lies half the difference further on
        origin = zyx(
            float(found[a][3]) * float(per[a] or 0) + (length - least) / 2
            for a, length, least in zip("zyx", lengths, base, strict=True)
        )
    except (TypeError, ValueError) as error:
        raise FormatError(f"{source} cannot be read: {error!r}", location=where) from None
    if not all(math.isfinite(n) and n > 0 for n in lengths) or not all(map(math.isfinite, origin)):
        raise FormatError(f"{source} says {given}", location=where)
    return Placing(lengths, origin if shift or base != lengths else None, source)


def _imagej(own: dict[str, Any], where: str) -> Placing | None:
    """``pixelWidth`` and the like, as n5-ij writes ImageJ's calibration; origins are in pixels."""
    if not {"pixelWidth", "pixelHeight", "pixelDepth"} <= own.keys():
        return None
    unit = str(own.get("pixelUnit", ""))
    try:
        given = [float(own[key]) for key in ("pixelDepth", "pixelHeight", "pixelWidth")]
        zero = [float(own.get(f"{axis}Origin", 0)) for axis in "zyx"]
    except (TypeError, ValueError) as error:
        raise FormatError(f"pixelWidth cannot be read: {error!r}", location=where) from None
    per = to_nm(1.0, unit)
    if per is None or not all(math.isfinite(n) and n > 0 for n in given):
        return _unknown("pixelWidth (z, y, x)", given, unit)
    size = zyx(float(to_nm(n, unit) or 0) for n in given)
    place = zyx(-at * length if at else 0.0 for at, length in zip(zero, size, strict=True))
    return Placing(
        size, place if any(zero) and all(map(math.isfinite, zero)) else None, "pixelWidth"
    )


def axes_of(own: dict[str, Any], group: dict[str, Any]) -> list[str]:
    """Names of a dataset's axes, fastest first; x, y, z where none are given."""
    count = len(own.get("dimensions") or [])
    for given in (own.get("axes"), group.get("axes")):
        if isinstance(given, list) and len(given) == count:
            return [str(axis).lower() for axis in given]
    planes = {"c": own.get("numChannels"), "z": own.get("numSlices"), "t": own.get("numFrames")}
    if all(type(n) is int for n in planes.values()):  # n5-ij, in ImageJ's order
        several = [axis for axis, n in planes.items() if n != 1]
        for named in ([*"xy", *several], [*"xyczt"]):
            if len(named) == count:
                return named
    return [*"xyz"]


def _factors(own: dict[str, Any], group: dict[str, Any], level: str, count: int) -> list[float]:
    """How much coarser a level is than the finest, along each axis."""
    given = own.get("downsamplingFactors")
    if isinstance(given, list) and len(given) == count and not isinstance(given[0], list):
        return [float(n) for n in given]
    table = group.get("scales") or group.get("downsamplingFactors")
    number = level.lstrip("s")
    if isinstance(table, list) and number.isdecimal() and int(number) < len(table):
        return [float(n) for n in table[int(number)]]
    return [1.0] * count


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
                    advice=in_words(_children(tree, where), tree, where),
                )
            return [_described(tree, root, *one, options) for one in found]

    def survey(self, tree: Tree, root: str, volume: VolumeDescription, box: Box) -> Survey:
        dataset, axes = _of_handle(volume.handle)
        path = join(root, volume.handle["path"])
        reader = N5Reader(tree, path, dataset, axes, box, frozenset(), _mirrored(volume.handle))
        chunk, box = reader.chunk_zyx, reader.box
        wanted = cells_in(box, chunk)
        keys = {index: reader.chunk_key(index) for index in wanted}
        grid = unstored(SourceGrid.of_box(box, chunk, reader.codec.config))
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


def _children(tree: Tree, path: str) -> list[str]:
    listing = listing_or_none(tree, path)
    prefixes = listing.prefixes if listing is not None else ()
    return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes)


def _levels(tree: Tree, path: str, attributes: dict[str, Any]) -> list[str]:
    """Names of the levels of a pyramid, finest first; empty where a group is none."""
    if _SETUP.fullmatch(path.rpartition("/")[2]):
        return []
    for block in attributes.get("multiscales") or []:
        return [str(one["path"]).strip("/") for one in block.get("datasets") or []]
    table = attributes.get("scales") or attributes.get("downsamplingFactors")
    if isinstance(table, list) and table and isinstance(table[0], list):
        return [f"s{number}" for number in range(len(table))]
    named = [name for name in _children(tree, path) if _LEVEL.fullmatch(name)]
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
    children = (join(path, child) for child in _children(tree, path))
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
