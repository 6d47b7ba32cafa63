"""Neuroglancer precomputed volumes, as a format of trees."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from lib.bytesource.neighbours import requests_for
from lib.bytesource.tree import Tree, join, listing_or_empty, listing_or_none, normal_key
from lib.errors import FormatError, MacroscopeError, NotFoundError, StoppedError
from lib.formats.chunked import (
    UNLISTED,
    cells_in,
    choose_level_name,
    listing_identity,
    survey_objects,
)
from lib.formats.format import Handle, Options, Survey, VolumeDescription, VoxelSize
from lib.formats.precomputed.info import ENCODINGS, Info, Scale, parse_info
from lib.formats.precomputed.reader import PrecomputedReader, ShardedChunks
from lib.geometry import Box, LengthsZYX, ShapeZYX, ceil_divide, zyx
from lib.plan import SourceGrid, absent_note
from lib.vocabulary import named_ids

_MOST_DOCUMENT_BYTES = 16 * 2**20
_CHUNK = re.compile(r"(?:-?\d+--?\d+_){2}-?\d+--?\d+(\.gz|\.br|)")
_LISTABLE = 100_000  # objects of a scale; more are not listed for a box of it
_MINISHARDS = 4_000  # whose indexes are read to know what a box weighs


class PrecomputedFormat:
    """One volume of several scales, at the address of its ``info``."""

    name: ClassVar[str] = "neuroglancer-precomputed"
    title: ClassVar[str] = "Neuroglancer precomputed"
    container: ClassVar[Literal["tree"]] = "tree"
    markers: ClassVar[tuple[str, ...]] = ("info",)

    def fits(self, tree: Tree, path: str) -> bool:
        data = tree.get(join(path, "info"), _MOST_DOCUMENT_BYTES)
        if data is None:
            return False
        try:
            document = json.loads(bytes(data))
        except (ValueError, RecursionError):
            return False
        return isinstance(document, dict) and bool({"scales", "@type"} & document.keys())

    def describe(
        self, tree: Tree, root: str, path: str, options: Options
    ) -> list[VolumeDescription]:
        folder = join(root, path)
        where = f"{tree.uri}/{join(folder, 'info')}"
        data = tree.get(join(folder, "info"), _MOST_DOCUMENT_BYTES)
        if data is None:
            raise NotFoundError("there is no info, so no volume", location=where)
        info = parse_info(data, where)
        names = [scale.key for scale in info.scales]
        level = choose_level_name(names, options.level, where)
        scale = info.scales[names.index(level)]
        key = normal_key(folder, scale.key)
        notes, refused = [], None
        if scale.encoding not in ENCODINGS:
            refused = f"chunks are encoded as {scale.encoding}, which is not read"
        if info.channels > 1 and options.channel is None:
            refused = (
                f"it has {info.channels} channels: choose one by number, "
                f"channel=0 to {info.channels - 1}"
            )
        elif not 0 <= (options.channel or 0) < info.channels:
            raise NotFoundError(f"there is no channel {options.channel}", location=where)
        if scale.copies > 1:
            notes.append(f"stored in {scale.copies} chunk shapes; the first was taken")
        if scale.encoding == "jxl":
            notes.append("decoded from JPEG XL, which may have changed the values of before")
        finest = info.scales[0].resolution_zyx
        notes.append(
            "precomputed positions are voxel corners; the origin given here is the centre of the "
            "first voxel less half a voxel of the finest scale, so that levels lie on one grid"
        )
        drawn, named = _segment_names(tree, folder, info) if info.segmentation else ({}, [])
        notes += named
        z, y, x = scale.resolution_zyx
        return [
            VolumeDescription(
                path=path,
                handle={
                    "path": path,
                    "key": key,
                    "info": _one_scale(data, scale.key),
                    "channel": options.channel or 0,
                    "suffix": _suffix(tree, key, scale),
                },
                shape_zyx=scale.size_zyx,
                dtype=info.dtype,
                voxel=VoxelSize(z, y, x, "info"),
                origin_nm_zyx=_origin(scale, finest),
                corner_nm_zyx=zyx(length / 2 for length in finest),
                kind="labels" if info.segmentation else "image",
                kind_evidence=f"info type {'segmentation' if info.segmentation else 'image'}",
                level=level,
                levels=tuple(names),
                chunk_zyx=scale.chunk_zyx,
                lossy="jpeg" if scale.encoding == "jpeg" else None,
                notes=tuple(notes),
                extra={
                    "voxel_offset_zyx": [*scale.offset_zyx],
                    "encoding": scale.encoding,
                    **({"image_label": drawn} if drawn else {}),
                },
                refused=refused,
            )
        ]

    def survey(self, tree: Tree, root: str, volume: VolumeDescription, box: Box) -> Survey:
        _, scale = _of_handle(volume.handle)
        key = volume.handle["key"]
        wanted = cells_in(box, scale.chunk_zyx)
        document = json.dumps(volume.handle["info"]).encode()
        if scale.sharding is not None:
            return _in_shards(tree, key, scale, box, wanted, document)
        suffix = volume.handle["suffix"]
        names = {index: scale.chunk_name(index) + suffix for index in wanted}
        cells = math.prod(ceil_divide(scale.size_zyx, scale.chunk_zyx))
        grid = SourceGrid.of_box(box, scale.chunk_zyx, absent="background")
        listed = None
        if cells <= _LISTABLE and (found := listing_or_none(tree, key)) is not None:
            there = {item.key.rpartition("/")[2]: item for item in found.objects}
            listed = {name: there[name] for name in names.values() if name in there}
        return survey_objects(tree, key, grid, names, document, listed)

    def open(
        self, tree: Tree, root: str, handle: Handle, box: Box, grid: SourceGrid | None = None
    ) -> PrecomputedReader:
        info, scale = _of_handle(handle)
        return PrecomputedReader(
            tree,
            handle["key"],
            scale,
            np.dtype(info.dtype),
            box,
            channels=info.channels,
            channel=handle["channel"],
            suffix=handle["suffix"],
            holes=None if grid is None else grid.known_missing(),
        )


def _segment_names(tree: Tree, folder: str, info: Info) -> tuple[dict[str, Any], list[str]]:
    """Names of segments, where the volume has some, and what is to be said of them.

    ``segment_properties`` names a folder whose ``info`` lists ids as text, and properties of which
    one of type ``label`` has a name for each. A volume is whole without them.
    """
    if not (place := info.segment_properties):
        return {}, []
    try:
        found = tree.get(join(normal_key(folder, place), "info"), _MOST_DOCUMENT_BYTES)
        inline = {} if found is None else json.loads(bytes(found))["inline"]
        labels = [one for one in inline.get("properties", ()) if one.get("type") == "label"]
        if not labels:
            return {}, []
        pairs = zip(inline["ids"], labels[0]["values"], strict=True)
        rows = [(int(value), str(name), ()) for value, name in pairs if name]
    except StoppedError:
        raise
    except (MacroscopeError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, [f"the names of segments in {place} cannot be read"]
    drawn = named_ids(rows)
    kept = len(drawn.get("properties", ()))
    notes = [f"{len(rows)} segments have names in {place}, {kept} of them are carried over"]
    return drawn, notes if kept < len(rows) else []


def _origin(scale: Scale, finest: LengthsZYX) -> LengthsZYX:
    triples = zip(scale.offset_zyx, scale.resolution_zyx, finest, strict=True)
    return zyx(offset * length + (length - base) / 2 for offset, length, base in triples)


def _one_scale(data: bytes | memoryview, key: str) -> dict[str, Any]:
    """The info of one scale alone, without what says nothing about voxels."""
    document = json.loads(bytes(data))
    kept = ("type", "data_type", "num_channels")
    dropped = ("jpeg_quality", "png_level", "hidden")
    (scale,) = [one for one in document["scales"] if str(one["key"]) == key][:1]
    scale = {name: value for name, value in scale.items() if name not in dropped}
    return {**{name: document[name] for name in kept if name in document}, "scales": [scale]}


def _suffix(tree: Tree, key: str, scale: Scale) -> str:
    """What the names of chunks end with in a copy on this machine that keeps them packed.

    Raises
    ------
    FormatError
        Some of them do: the others would pass for chunks that are not there.
    """
    if tree.remote or scale.sharding is not None:
        return ""
    names = [one.key.rpartition("/")[2] for one in listing_or_empty(tree, key).objects]
    ends = {match[1] for name in names if (match := _CHUNK.fullmatch(name))}
    if len(ends) > 1:
        packed = max(ends)
        raise FormatError(
            f"some chunks are stored packed ({packed}), others are not",
            location=f"{tree.uri}/{key}",
            advice=f"Unpack those whose names end with {packed}",
        )
    return next(iter(ends), "")


def _of_handle(handle: dict[str, Any]) -> tuple[Info, Scale]:
    info = parse_info(json.dumps(handle["info"]).encode(), handle["path"])
    return info, info.scales[0]


def _in_shards(
    tree: Tree, key: str, scale: Scale, box: Box, wanted: list[ShapeZYX], document: bytes
) -> Survey:
    """Sizes and holes from the indexes of the minishards that a box crosses, where they are few."""
    chunks = ShardedChunks(tree, key, scale)
    minishards = {chunks.place(index) for index in wanted}
    shards = {shard for shard, _ in minishards}
    grid = SourceGrid.of_box(box, scale.chunk_zyx, absent="background")
    looks = 2 * len(shards) + len(minishards)
    etag = listing_identity(document, {})
    if len(minishards) > _MINISHARDS:
        some = wanted[:: max(1, len(wanted) // 64)]
        found = [chunks.find(index) for index in some]
        mean = sum(one[2] for one in found if one is not None) / len(some)
        return Survey(
            grid=grid.model_copy(update={"listed": False}),
            nbytes=math.ceil(mean * len(wanted)),
            requests=len(wanted) + looks,
            etag=etag,
            notes=(UNLISTED,),
        )
    found = [chunks.find(index) for index in wanted]
    holes = [index for index, one in zip(wanted, found, strict=True) if one is None]
    return Survey(
        grid=grid.with_holes(holes),
        nbytes=sum(one[2] for one in found if one is not None),
        requests=looks + _runs(chunks, wanted, found),
        etag=_places_identity(document, found),
        notes=absent_note(len(holes), len(wanted)),
    )


def _runs(
    chunks: ShardedChunks, wanted: list[ShapeZYX], found: Sequence[tuple[str, int, int] | None]
) -> int:
    """Requests for chunks that lie side by side in their minishards."""
    lengths: dict[tuple[int, int], list[int]] = {}
    for index, one in zip(wanted, found, strict=True):
        if one is not None:
            lengths.setdefault(chunks.place(index), []).append(one[2])
    return sum(requests_for(len(each), sum(each)) for each in lengths.values())


def _places_identity(document: bytes, found: Sequence[tuple[str, int, int] | None]) -> str:
    """Identity of chunks in shards: where each lies, and how long it is."""
    text = json.dumps([json.loads(document), found])
    return listing_identity(json.dumps(text).encode(), {})
