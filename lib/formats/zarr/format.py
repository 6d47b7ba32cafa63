"""Zarr v2 with NGFF multiscales, or without, as a format of trees.

A chunk that answers 404 reads as fill value in every Zarr library. Here the holes are known
beforehand, from comparing the grid with a listing: a hole is named in its block, and a chunk that
was listed but is not there is an error.
"""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.tree import Tree, in_words, join
from lib.compression import Encoded, can_pass_through, decode_into, inflate, open_codec
from lib.errors import FormatError, NotFoundError
from lib.formats.chunked import TreeReader, choose_level_name
from lib.formats.format import Handle, Options, Survey, VolumeDescription
from lib.formats.zarr.array import BOOL, ArrayDocument, parse_array
from lib.formats.zarr.axes import AxisMap, to_zyx
from lib.formats.zarr.hierarchy import Hierarchy, ZarrArray, survey_array
from lib.formats.zarr.ngff import Multiscale
from lib.geometry import Box, ShapeZYX
from lib.plan import SourceGrid


class ZarrReader(TreeReader):
    """Reads a box of one array. Thread-safe."""

    def __init__(
        self,
        tree: Tree,
        path: str,
        document: ArrayDocument,
        box: Box,
        holes: frozenset[ShapeZYX] | None = frozenset(),
    ) -> None:
        axes = document.map
        super().__init__(
            tree,
            path,
            holes,
            2 * math.prod(document.chunk) * document.dtype.itemsize + 2**16,
            box,
            document.chunk_zyx,
            document.dtype,
            fill_value=document.fill_value,
            codec=document.compressor,
            fits_shard=document.axes >= 3
            and axes.plain
            and all(document.chunk[dim] == 1 for dim in axes.fixed)
            and can_pass_through(
                document.compressor, document.filters, document.order, document.dtype_text
            ),
        )
        self._document = document

    def chunk_key(self, index_zyx: ShapeZYX) -> str:
        return self._document.chunk_key(index_zyx)

    def _decode(self, encoded: Encoded, index_zyx: ShapeZYX) -> NDArray[Any]:
        return decode_chunk(self._document, encoded)


def decode_chunk(document: ArrayDocument, encoded: Encoded) -> NDArray[Any]:
    """One whole chunk as z, y, x, shape ``document.chunk_zyx``, in native byte order.

    Raises
    ------
    FormatError
        The bytes are damaged or hold another number of voxels.
    """
    stored = np.dtype(document.dtype_text)
    size = math.prod(document.chunk) * stored.itemsize
    kind = document.compressor.get("id")
    voxels: NDArray[Any]
    if kind in ("gzip", "zlib"):
        data = inflate(kind, encoded, size)
        if len(data) != size:
            raise FormatError(f"a chunk holds {len(data)} bytes instead of {size}")
        voxels = np.frombuffer(data, stored)
    else:
        voxels = np.empty(size // stored.itemsize, stored)
        codec = None if not document.compressor else open_codec(document.compressor)
        decode_into(codec, encoded, voxels)
    for given in reversed(document.filters):
        try:
            undone = open_codec(given).decode(voxels)  # type: ignore[union-attr]
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"filter {given['id']} cannot be undone: {error}") from None
        voxels = np.frombuffer(undone, stored)
    if document.order == "F":
        voxels = voxels.reshape(document.chunk[::-1]).transpose()
    else:
        voxels = voxels.reshape(document.chunk)
    return np.ascontiguousarray(to_zyx(voxels, document.map, document.chunk), document.dtype)


class Zarr2Format:
    """Groups, multiscales and bare arrays of Zarr v2."""

    name: ClassVar[str] = "zarr2"
    title: ClassVar[str] = "Zarr v2, OME-Zarr 0.4"
    container: ClassVar[Literal["tree"]] = "tree"
    markers: ClassVar[tuple[str, ...]] = (".zarray", ".zgroup", ".zattrs")

    def fits(self, tree: Tree, path: str) -> bool:
        return any(tree.head(join(path, marker)) is not None for marker in self.markers)

    def describe(
        self, tree: Tree, root: str, path: str, options: Options
    ) -> list[VolumeDescription]:
        where = join(root, path)
        hierarchy = Hierarchy(tree, root, options)
        array = hierarchy.array(where)
        if array is not None:
            return [_described(root, array)]
        multiscales = hierarchy.multiscales_below(where)
        if not multiscales and hierarchy.unreadable:
            unreadable, why = next(iter(hierarchy.unreadable.items()))
            raise FormatError(why, location=f"{tree.uri}/{unreadable}")
        if multiscales:
            return [
                _described(root, hierarchy.level(at, one, choose_level(one, options.level)))
                for at, one in multiscales
            ]
        found = [hierarchy.array(key) for key in hierarchy.arrays_below(where)]
        described = [_described(root, array) for array in found if array is not None]
        if not described:
            here = hierarchy.children(where) or hierarchy.children(root)
            raise NotFoundError(
                f"there is no array or multiscale at {path or 'the root'!r}",
                location=f"{tree.uri}/{where}",
                advice=in_words(here, tree, where),
            )
        return described

    def survey(self, tree: Tree, root: str, volume: VolumeDescription, box: Box) -> Survey:
        path = join(root, volume.handle["path"])
        return survey_array(tree, path, _document(volume.handle), box)

    def open(
        self, tree: Tree, root: str, handle: Handle, box: Box, grid: SourceGrid | None = None
    ) -> ZarrReader:
        holes = None if grid is None else grid.known_missing()
        return ZarrReader(tree, join(root, handle["path"]), _document(handle), box, holes)


def choose_level(multiscale: Multiscale, wanted: str | None) -> str:
    """The name of a level: by its own name, or by its number, 0 or s0 being the finest.

    Raises
    ------
    NotFoundError
    """
    return choose_level_name(multiscale.paths, wanted, multiscale.name or "the multiscale")


def _described(root: str, array: ZarrArray) -> VolumeDescription:
    document, axes = array.document, array.document.map
    path = array.path.removeprefix(root).strip("/") if root else array.path
    evidence = array.labels or None
    if evidence is None and json.loads(array.zarray).get("dtype") == BOOL:
        evidence = "data type bool"
    return VolumeDescription(
        path=path,
        handle={
            "path": path,
            "zarray": array.zarray.decode(),
            "separator": document.separator,
            **({} if axes.plain and not axes.fixed else axes.in_handle),
        },
        shape_zyx=document.shape_zyx,
        dtype=document.dtype.name,
        voxel=array.voxel,
        origin_nm_zyx=array.translation_nm_zyx if array.levels or array.voxel.provenance else None,
        kind="labels" if evidence else None,
        kind_evidence=evidence,
        level=array.level if array.levels else None,
        levels=array.levels,
        chunk_zyx=document.chunk_zyx,
        about=array.words,
        notes=(*array.notes, *document.notes),
        extra={"image_label": array.drawn} if array.drawn else {},
    )


def _document(handle: Handle) -> ArrayDocument:
    """Handles have no axes where these are z, y, x, as it always was."""
    axes = (lambda _: AxisMap.of_handle(handle)) if "dims_zyx" in handle else None
    zarray = handle["zarray"].encode()
    return parse_array(zarray, handle["path"], separator=handle["separator"], axes=axes)
