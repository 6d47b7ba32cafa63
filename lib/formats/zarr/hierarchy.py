"""Groups, multiscales and arrays of Zarr v2 in a tree of objects, with and without ``.zmetadata``.

Every path is a key of the tree. Consolidated metadata are a hint: the document of an array that is
read is fetched itself, because the copy may be older.

Which chunks of a box of an array are there is known from listings, or from asking for some.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any, Literal

from lib.bytesource.tree import Tree, join, listing_or_none, optional_document
from lib.errors import FormatError, NotFoundError, NotListableError
from lib.formats.chunked import cells_in, survey_objects, unbelievable
from lib.formats.format import Options, Survey, VoxelSize
from lib.formats.zarr.array import ArrayDocument, parse_array
from lib.formats.zarr.axes import IMPLIED, AxisMap, axis_map, understood
from lib.formats.zarr.ngff import (
    Multiscale,
    NgffLevel,
    level_of_array,
    multiscale_above,
    named_children,
    names_of_array,
    parse_multiscales,
)
from lib.geometry import Box, LengthsZYX, ceil_divide
from lib.plan import SourceGrid
from lib.safety import json_object, reading
from lib.transport.listing import Listing, ObjectInfo
from lib.vocabulary import IMAGE_LABEL

MOST_DOCUMENT_BYTES = 64 * 2**20
_DEEPEST = 6
_DOTTED = re.compile(r"\d+(\.\d+)+")  # the key of a chunk whose indices dots part


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """One array, with what its multiscale says of it.

    Attributes
    ----------
    path
        Key of the array in the tree.
    level, levels
        Name of the array in its multiscale, and the names of all its levels, finest first.
    voxel
        What a multiscale says of the voxels' size; nothing where none names the array.
    level_nm_zyx, finest_nm_zyx
        The same and that of its finest level, with 1 nm for a length that nobody states.
    words
        Licence, DOI and the like, where the multiscale's document states them.
    labels, drawn
        What says that it holds labels, empty where nothing does; colours and properties of ids.
    """

    path: str
    level: str
    levels: tuple[str, ...]
    document: ArrayDocument
    zarray: bytes
    voxel: VoxelSize
    translation_nm_zyx: LengthsZYX
    labels: str
    level_nm_zyx: LengthsZYX = (1.0, 1.0, 1.0)
    finest_nm_zyx: LengthsZYX = (1.0, 1.0, 1.0)
    words: dict[str, str] = field(default_factory=dict)
    drawn: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Hierarchy:
    """What lies at and below one group of a tree.

    Parameters
    ----------
    root
        Key of the outermost group, which may hold ``.zmetadata``.
    options
        Which channel and time are taken of arrays that have several.

    Attributes
    ----------
    unreadable
        Groups below a path that was looked through whose attributes cannot be read, and why.
    """

    def __init__(self, tree: Tree, root: str, options: Options | None = None) -> None:
        self._tree, self.root = tree, root.strip("/")
        self._options = options or Options()
        self._consolidated = self._read_consolidated()
        self.unreadable: dict[str, str] = {}

    def children(self, path: str) -> list[str]:
        """Names of the groups and arrays directly below a path, as far as that can be told."""
        listing = listing_or_none(self._tree, path)
        if listing is not None:
            return listing.folders
        folder = f"{path}/" if path else ""
        keys = (join(self.root, key) for key in self._consolidated or ())
        inner = (key.removeprefix(folder) for key in keys if key.startswith(folder))
        named = {key.partition("/")[0] for key in inner if "/" in key}
        return sorted(named) or self._said(path)

    def array(self, path: str) -> ZarrArray | None:
        """The array at a path, with what a multiscale above it says; None where there is none."""
        zarray = self.document(path, ".zarray")
        if zarray is None:
            return None
        _, name, multiscale = multiscale_above(path, self.multiscales, attrgetter("paths"))
        return self._described(path, name, zarray, multiscale)

    def level(self, path: str, multiscale: Multiscale, level: str) -> ZarrArray:
        """An array of the multiscale at a path.

        Raises
        ------
        NotFoundError
            The multiscale does not name it, or it is not there; the error lists what there is.
        """
        where = join(path, level)
        zarray = self.document(where, ".zarray") if multiscale.level(level) else None
        if zarray is None:
            inner = path.removeprefix(self.root).strip("/")
            raise NotFoundError(
                f"{inner or 'the multiscale'} has no level {level}",
                location=f"{self._tree.uri}/{where}",
                advice="There are: " + ", ".join(multiscale.paths),
            )
        return self._described(where, level, zarray, multiscale)

    def multiscales_below(self, path: str, depth: int = 0) -> list[tuple[str, Multiscale]]:
        """The multiscales at a path, or at the outermost groups below it that have one."""
        try:
            multiscales = self.multiscales(path)
        except FormatError as error:
            if depth == 0:
                raise
            self.unreadable[path] = error.message
            return []
        if multiscales:
            return [(path, multiscale) for multiscale in multiscales]
        if depth >= _DEEPEST or self.document(path, ".zarray") is not None:
            return []  # below an array lie its chunks, by the thousand
        found = []
        for child in self.children(path):
            found += self.multiscales_below(join(path, child), depth + 1)
        return found

    def arrays_below(self, path: str, depth: int = 0) -> list[str]:
        """Keys of the arrays at and below a path."""
        if self.document(path, ".zarray") is not None:
            return [path]
        if depth >= _DEEPEST:
            return []
        children = (join(path, child) for child in self.children(path))
        return [found for child in children for found in self.arrays_below(child, depth + 1)]

    def multiscales(self, path: str) -> list[Multiscale]:
        """The multiscales of a group, most have one; none where it has none."""
        where = f"{self._tree.uri}/{join(path, '.zattrs')}"
        return parse_multiscales(self._attributes(path), where)

    def _attributes(self, path: str) -> dict[str, Any]:
        data = self.document(path, ".zattrs")
        where = f"{self._tree.uri}/{join(path, '.zattrs')}"
        return {} if data is None else json_object(data, ".zattrs", where)

    def document(self, path: str, name: str) -> bytes | None:
        """A document of a group or array; of consolidated metadata where they have it."""
        key = join(path, name)
        inner = key.removeprefix(f"{self.root}/") if self.root else key
        if self._consolidated is not None and inner in self._consolidated:
            return json.dumps(self._consolidated[inner]).encode()
        data = optional_document(self._tree, key, MOST_DOCUMENT_BYTES)
        return None if data is None else bytes(data)

    def _said(self, path: str) -> list[str]:
        """Children that the attributes of a group name."""

        def there(name: str) -> bool:
            child = join(path, name)
            return any(self.document(child, one) is not None for one in (".zattrs", ".zarray"))

        return named_children(self._attributes(path), there)

    # --- inside -----------------------------------------------------------------------------

    def _described(
        self, path: str, name: str, zarray: bytes, multiscale: Multiscale | None
    ) -> ZarrArray:
        level = multiscale.level(name) if multiscale else None
        named = multiscale if level is not None else None
        where = f"{self._tree.uri}/{path}/.zarray"
        if self._consolidated is not None:
            zarray = self._own_document(path, where)
        own = {} if named is not None else self._attributes(path)
        called: list[str] = []

        def axes(shape: tuple[int, ...]) -> AxisMap:
            names = None if named is None else [*named.axes]
            if names is None:
                names = understood(names_of_array(own, len(shape)), called)
            if names is not None and len(names) != len(shape):
                raise FormatError(
                    f"the array has {len(shape)} axes, its multiscale {len(names)}", location=where
                )
            chosen = {"channel": self._options.channel, "time": self._options.time}
            return axis_map(names, shape, where, **chosen)

        document = parse_array(zarray, where, separator=self._separator(path), axes=axes)
        if level is None:
            names = understood(names_of_array(own, document.axes), [])
            names = names or [*IMPLIED[-document.axes :]]
            level = level_of_array(name, own, names, where)
        notes = ["no multiscale names this array: its voxel size is unknown"]
        notes = called + (notes if level is None else [*level.notes])
        level = level or NgffLevel(name, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), "")
        return ZarrArray(
            path=path,
            level=name,
            levels=named.paths if named else (),
            document=document,
            zarray=zarray,
            voxel=level.voxel,
            translation_nm_zyx=level.translation_nm_zyx,
            labels=(multiscale.labels if multiscale else "")
            or (IMAGE_LABEL if "labels" in path.split("/") else ""),
            drawn=multiscale.drawn if multiscale else {},
            level_nm_zyx=level.voxel_nm_zyx,
            finest_nm_zyx=named.levels[0].voxel_nm_zyx if named else level.voxel_nm_zyx,
            words=multiscale.words if multiscale else {},
            notes=notes,
        )

    def _own_document(self, path: str, where: str) -> bytes:
        data = self._tree.get(join(path, ".zarray"), MOST_DOCUMENT_BYTES)
        if data is None:
            raise FormatError(".zmetadata names an array that is not there", location=where)
        return bytes(data)

    def _separator(self, path: str) -> str | None:
        """The separator that the keys really have; None where that cannot be told."""
        listing = list_array(self._tree, path)
        if listing is None:
            return None
        if any(name.isdecimal() for name in listing.folders):
            return "/"
        keys = (item.key.rpartition("/")[2] for item in listing.objects)
        return "." if any(_DOTTED.fullmatch(key) for key in keys) else None

    def _read_consolidated(self) -> dict[str, Any] | None:
        key = join(self.root, ".zmetadata")
        data = optional_document(self._tree, key, MOST_DOCUMENT_BYTES)
        if data is None:
            return None
        with reading(".zmetadata", f"{self._tree.uri}/{key}"):
            documents = json.loads(bytes(data))["metadata"]
        return documents if isinstance(documents, dict) else None


def list_array(tree: Tree, path: str) -> Listing | None:
    """What lies directly below an array that is known to be there; None where nobody lists it.

    Raises
    ------
    BadAnswerError
        The listing leaves out the array's own document: a web page of status 200 reads as an empty
        listing, and every chunk would pass for a hole.
    """
    listing = listing_or_none(tree, path)
    if listing is not None and not any(
        item.key == join(path, ".zarray") for item in listing.objects
    ):
        raise unbelievable(tree, path)
    return listing


def _said_to_be_empty(tree: Tree, path: str, document: ArrayDocument) -> str:
    """What CellMap's annotation says of labels without any chunk: that every voxel was looked at,
    and the class is in none. Empty where it does not.
    """
    voxels = math.prod(document.shape)
    for where in (path, path.rpartition("/")[0]):
        data = optional_document(tree, join(where, ".zattrs"), MOST_DOCUMENT_BYTES)
        found: Any = {} if data is None else json_object(data, ".zattrs", f"{tree.uri}/{where}")
        for key in ("cellmap", "annotation", "complement_counts", "absent"):
            found = found.get(key) if isinstance(found, dict) else None
        if found == voxels and document.fill_value == 0:
            return f"no chunk is there: cellmap's annotation counts all {voxels} voxels as absent"
    return ""


_PAGE = 1000  # objects of one answer of an object store's listing


def survey_array(tree: Tree, path: str, document: ArrayDocument, box: Box) -> Survey:
    """The chunks of a box, their bytes and their identity; no voxels are read.

    Parameters
    ----------
    path
        Key of the array in the tree.
    document
        What the volume is read by; the identity is of the document that is there now.

    Raises
    ------
    NotFoundError
        The array is not there any more.
    BadAnswerError
        The listing leaves out what is there.
    """
    zarray = tree.get(join(path, ".zarray"), MOST_DOCUMENT_BYTES)
    if zarray is None:
        raise NotFoundError("the array is not there any more", location=f"{tree.uri}/{path}")
    wanted = cells_in(box, document.chunk_zyx)
    # without a fill value, what an absent chunk holds is undefined (Zarr v2 specification)
    stated = json.loads(bytes(zarray)).get("fill_value") is not None
    absent: Literal["hole", "unwritten"] = "unwritten" if stated else "hole"
    grid = SourceGrid.of_box(box, document.chunk_zyx, document.compressor, absent=absent)
    keys = {index: document.chunk_key(index) for index in wanted}
    try:
        listed = dict(_list_chunks(tree, path, document, set(keys.values())))
    except NotListableError:
        listed = None
    described = json.loads(bytes(zarray))
    described.pop("dimension_separator", None)  # .zmetadata may have it where .zarray has not
    survey = survey_objects(tree, path, grid, keys, json.dumps(described).encode(), listed)
    if listed == {} and (said := _said_to_be_empty(tree, path, document)):
        empty = grid.with_holes([*keys]).model_copy(update={"absent": "empty"})
        return replace(survey, grid=empty, notes=(*survey.notes, said))
    if listed and not any(item.etag for item in listed.values()):
        said = "the listing gives names only: a change of single chunks cannot be told by it"
        return replace(survey, notes=(said,))
    return survey


def _list_chunks(
    tree: Tree, path: str, document: ArrayDocument, keys: set[str]
) -> Iterator[tuple[str, ObjectInfo]]:
    """Wanted chunks that exist, by key, with an ETag or a time: a LIST page for each 1000 of them.

    Planes of chunks are listed side by side: each page is a round trip. Of a small part of wide
    planes, rows are listed instead: of each plane only those are wanted that the part reaches into.
    """
    prefixes = [path]
    if document.separator == "/" and document.axes >= 3:
        planes = {join(path, plane) for plane in {key.partition("/")[0] for key in keys}}
        listing = list_array(tree, path)
        if listing is None:
            raise NotListableError("the store does not list", location=f"{tree.uri}/{path}")
        there = {prefix.rstrip("/") for prefix in listing.prefixes}
        prefixes = sorted(planes & there)
        rows = {join(path, row) for row in {key.rpartition("/")[0] for key in keys}}
        if _pages_of_planes(document) * len(prefixes) > len(rows) + len(prefixes):
            above = tree.ordered([partial(tree.list, plane) for plane in prefixes])
            there = {prefix.rstrip("/") for below in above for prefix in below.prefixes}
            prefixes = sorted(rows & there)

    def listed(prefix: str) -> list[tuple[str, ObjectInfo]]:
        found = [
            (
                item.key.removeprefix(f"{path}/" if path else ""),
                replace(item, etag=item.etag or item.last_modified),
            )
            for item in tree.list_all(prefix)
        ]
        if not found:
            raise unbelievable(tree, prefix)
        return [chunk for chunk in found if chunk[0] in keys]

    for chunks in tree.ordered([partial(listed, prefix) for prefix in prefixes]):
        yield from chunks


def _pages_of_planes(document: ArrayDocument) -> int:
    """Pages of a listing of one plane of chunks, a thousand of them each."""
    chunks = ceil_divide(document.shape_zyx, document.chunk_zyx)
    return math.ceil(chunks[1] * chunks[2] / _PAGE) if document.axes == 3 else 0
