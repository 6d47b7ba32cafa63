"""Which chunks of a box of an array are there: from listings, or from asking for some."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator
from functools import partial

from lib.bytesource.tree import Tree, join
from lib.errors import NotFoundError, NotListableError
from lib.formats.chunked import cells_in
from lib.formats.format import Survey
from lib.formats.zarr.array import ArrayDocument
from lib.formats.zarr.hierarchy import MOST_DOCUMENT_BYTES, list_array, unbelievable
from lib.geometry import Box, ShapeZYX, ceil_divide
from lib.plan import SourceGrid, pack_holes, unwritten

_PAGE = 1000  # objects of one answer of an object store's listing
_SAMPLE = 12  # chunks whose size is asked for where nothing lists them

Listed = dict[str, tuple[int | None, str | None]]
"""Size and entity tag of chunks, by key below the array."""


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
    grid = SourceGrid.of_box(box, document.chunk_zyx, document.compressor)
    grid = unwritten(grid) if stated else grid
    try:
        listed = dict(_list_chunks(tree, path, document, wanted))
    except NotListableError:
        return _sampled(tree, path, document, zarray, wanted, grid)
    notes: tuple[str, ...] = ()
    if listed and not any(mark for _, mark in listed.values()):
        notes = ("the listing gives names only: a change of single chunks cannot be told by it",)
    holes = [index for index in wanted if document.chunk_key(index) not in listed]
    if any(size is None for size, _ in listed.values()):  # an index page: names without sizes
        known = [index for index in wanted if document.chunk_key(index) in listed]
        nbytes = _estimate(tree, path, document, known)
    else:
        nbytes = sum(size or 0 for size, _ in listed.values())
    return Survey(
        grid=grid.model_copy(update={"holes": pack_holes(holes, grid.indices())}),
        nbytes=nbytes,
        requests=len(wanted) - len(holes),
        etag=listing_digest(zarray, listed),
        notes=notes,
    )


def listing_digest(zarray: bytes | memoryview, listed: Listed) -> str:
    """Identity of an array as it is now: its document, and every chunk's size and ETag."""
    document = json.loads(bytes(zarray))
    document.pop("dimension_separator", None)  # .zmetadata may have it where .zarray has not
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for key in sorted(listed):
        digest.update(f"{key}\0{listed[key][0]}\0{listed[key][1]}\n".encode())
    return f"sha256-of-listing:{digest.hexdigest()}"


def _list_chunks(
    tree: Tree, path: str, document: ArrayDocument, wanted: list[ShapeZYX]
) -> Iterator[tuple[str, tuple[int | None, str | None]]]:
    """Wanted chunks that exist, with size and ETag: one LIST page for each 1000 of them.

    Planes of chunks are listed side by side: each page is a round trip. Of a small part of wide
    planes, rows are listed instead: of each plane only those are wanted that the part reaches into.
    """
    keys = {document.chunk_key(index) for index in wanted}
    prefixes = [path]
    if document.separator == "/" and document.axes >= 3:
        planes = {join(path, key.partition("/")[0]) for key in keys}
        listing = list_array(tree, path)
        if listing is None:
            raise NotListableError("the store does not list", location=f"{tree.uri}/{path}")
        there = {prefix.rstrip("/") for prefix in listing.prefixes}
        prefixes = sorted(planes & there)
        rows = {join(path, key.rpartition("/")[0]) for key in keys}
        if _pages_of_planes(document) * len(prefixes) > len(rows) + len(prefixes):
            above = tree.ordered([partial(tree.list, plane) for plane in prefixes])
            there = {prefix.rstrip("/") for below in above for prefix in below.prefixes}
            prefixes = sorted(rows & there)

    def listed(prefix: str) -> list[tuple[str, tuple[int | None, str | None]]]:
        found = [
            (
                item.key.removeprefix(f"{path}/" if path else ""),
                (item.size, item.etag or item.last_modified),
            )
            for item in tree.list_all(prefix)
        ]
        if not found:
            raise unbelievable(f"{tree.uri}/{prefix}")
        return [chunk for chunk in found if chunk[0] in keys]

    for chunks in tree.ordered([partial(listed, prefix) for prefix in prefixes]):
        yield from chunks


def _pages_of_planes(document: ArrayDocument) -> int:
    """Pages of a listing of one plane of chunks, a thousand of them each."""
    chunks = ceil_divide(document.shape_zyx, document.chunk_zyx)
    return math.ceil(chunks[1] * chunks[2] / _PAGE) if document.axes == 3 else 0


def _sampled(
    tree: Tree,
    path: str,
    document: ArrayDocument,
    zarray: bytes | memoryview,
    wanted: list[ShapeZYX],
    grid: SourceGrid,
) -> Survey:
    return Survey(
        grid=grid.model_copy(update={"listed": False}),
        nbytes=_estimate(tree, path, document, wanted),
        requests=len(wanted),
        etag=listing_digest(zarray, {}),
        notes=(
            "the store does not list its objects: chunks that it lacks are found by asking for "
            "each, and a change of single chunks cannot be told afterwards",
        ),
    )


def _estimate(tree: Tree, path: str, document: ArrayDocument, wanted: list[ShapeZYX]) -> int:
    """Bytes of chunks, from asking for some of them."""
    some = random.Random(0).sample(wanted, min(_SAMPLE, len(wanted)))

    def size(index: ShapeZYX) -> int:
        found = tree.head(join(path, document.chunk_key(index)))
        return 0 if found is None else found.size or 0

    sizes = [*tree.ordered([partial(size, index) for index in some])]
    return math.ceil(len(wanted) * sum(sizes) / max(1, len(sizes)))
