"""What readers of chunks have in common, whichever format stores them."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.neighbours import MOST_BYTES, Neighbours, Place
from lib.bytesource.tree import Tree, get_several, join
from lib.compression import Encoded
from lib.errors import (
    BadAnswerError,
    MacroscopeError,
    NotFoundError,
    NotListableError,
    TransportError,
    UnsupportedFormatError,
)
from lib.formats.base import Block, ChunkCodec, Layout, VolumeReader
from lib.formats.format import Survey
from lib.geometry import Box, ShapeZYX, is_multiple, multiply
from lib.plan import SourceGrid, absent_note
from lib.transport.listing import ObjectInfo

T = TypeVar("T")
Ordered = Callable[[Iterable[Callable[[], T]]], Iterator[T]]

_SAMPLE = 32  # objects whose size is asked for where nothing lists it
MAX_CHUNKS = 4 * 10**6
"""Of one volume: their indices are held in memory, some 120 bytes each."""

UNLISTED = (
    "the store does not list its objects: chunks that it lacks are found by asking for each, and a "
    "change of single chunks cannot be told afterwards"
)


def cells_in(box: Box, chunk_zyx: ShapeZYX) -> list[ShapeZYX]:
    """Indices, in C order, of the chunks of a grid from voxel 0 that hold voxels of a box.

    Raises
    ------
    UnsupportedFormatError
        They are more than can be planned: the array is vast, or its document lies.
    """
    cells = box.cells(chunk_zyx)
    if cells.voxels > MAX_CHUNKS:
        raise UnsupportedFormatError(
            f"{cells.voxels} chunks are to be read, where {MAX_CHUNKS} at once are planned",
            advice="Choose a box, or a coarser level",
        )
    return cells.indices()


class ChunkedReader(VolumeReader):
    """Reads a box of an array of chunks; also a `lib.formats.base.ChunkReader`. Thread-safe.

    Parameters
    ----------
    ordered
        Runs jobs several at once and yields their results in order, as `Tree.ordered` does.
    box
        The part that is the volume, in the array's voxels; ``blocks`` counts from its corner.
    dtype
        Of the voxels, in native byte order.
    fill_value
        What a chunk reads as that is not there.
    codec
        How a stored chunk is compressed, in numcodecs' words.
    fits_shard
        Whether a stored chunk is, byte for byte, a valid inner chunk of a Zarr v3 shard.
    """

    def __init__(
        self,
        ordered: Ordered[Any],
        box: Box,
        chunk_zyx: ShapeZYX,
        dtype: np.dtype[Any],
        *,
        fill_value: int | float = 0,
        codec: dict[str, Any] | None = None,
        fits_shard: bool = False,
    ) -> None:
        self._ordered, self._box = ordered, box
        self.shape_zyx = box.shape_zyx
        self.dtype = dtype
        self.chunk_zyx = chunk_zyx
        self.layout = Layout(chunk_zyx)
        self.codec = ChunkCodec(codec or {})
        self.fill_value = fill_value
        self.aligned = is_multiple(box.start_zyx, chunk_zyx)
        self.pass_through = self.aligned and fits_shard

    @property
    @abstractmethod
    def where(self) -> str:
        """The array, in errors."""

    @abstractmethod
    def encoded_chunk(self, index_zyx: ShapeZYX) -> Encoded | None:
        """The stored bytes of a chunk of the array's own grid; None where the store has none."""

    def encoded_chunks(self, indices: Sequence[ShapeZYX]) -> Sequence[Encoded | None]:
        """The same of several chunks, by one thread."""
        return [self.encoded_chunk(index) for index in indices]

    def expect(self, indices: Iterable[ShapeZYX]) -> None:
        """Nothing, where each chunk is an object of its own."""

    def decoded_chunk(self, encoded: Encoded, index_zyx: ShapeZYX) -> NDArray[Any]:
        """Its voxels, shape ``chunk_zyx``, whatever lies past the volume's edge.

        Raises
        ------
        FormatError
            The bytes are damaged, do not fit their checksum, or hold another number of voxels.
        """
        try:
            return self._decode(encoded, index_zyx)
        except MacroscopeError as error:
            raise error.located(location=self.where, unit=unit_of(index_zyx)) from None

    @abstractmethod
    def _decode(self, encoded: Encoded, index_zyx: ShapeZYX) -> NDArray[Any]: ...

    def blocks(self, box: Box) -> Iterator[Block]:
        """Decode the chunks of a box, several in flight, in C order of the chunk grid."""
        wanted = box.shifted(self._box.start_zyx)
        z, y, x = self._box.start_zyx
        cells = cells_in(wanted, self.chunk_zyx)
        self.expect(cells)

        def job(index: ShapeZYX) -> Block:
            whole = Box.whole(self.chunk_zyx).shifted(multiply(index, self.chunk_zyx))
            part = whole.intersect(wanted)
            encoded = self.encoded_chunk(index)
            if encoded is None:
                voxels = np.full(part.shape_zyx, self.fill_value, self.dtype)
                return Block(part.shifted((-z, -y, -x)), voxels, ("/".join(map(str, index)),))
            chunk = self.decoded_chunk(encoded, index)
            return Block(part.shifted((-z, -y, -x)), chunk[part.slices(whole.start_zyx)])

        yield from self._ordered(partial(job, index) for index in cells)


class TreeReader(ChunkedReader):
    """Reads chunks that are objects of a tree, or lie in such: one that says so is `sharded`.

    Parameters
    ----------
    path
        Key of the array in the tree.
    holes
        Chunks (z, y, x, in the array's own grid) that the store does not hold; None where it does
        not list: what it then proves to be absent is a hole.
    most
        Bytes that an encoded chunk has at the most: no codec makes it much longer than its voxels.
    **described
        The rest of what `ChunkedReader` takes.
    """

    sharded = False

    def __init__(
        self,
        tree: Tree,
        path: str,
        holes: frozenset[ShapeZYX] | None,
        most: int,
        box: Box,
        chunk_zyx: ShapeZYX,
        dtype: np.dtype[Any],
        **described: Any,
    ) -> None:
        super().__init__(tree.ordered, box, chunk_zyx, dtype, **described)
        self._tree, self._path, self._holes, self._most = tree, path, holes, most
        self._neighbours = Neighbours(tree.get_range, min(tree.range_bytes, MOST_BYTES))

    @property
    def where(self) -> str:
        return f"{self._tree.uri}/{self._path}"

    @abstractmethod
    def chunk_key(self, index_zyx: ShapeZYX) -> str:
        """The object that a chunk is, below the array."""

    def encoded_chunk(self, index_zyx: ShapeZYX) -> Encoded | None:
        """The stored bytes of a chunk of the array's own grid; None where there is none.

        Raises
        ------
        TransportError
            The chunk, or its shard, was listed but is not there now.
        BadAnswerError
            It was not listed, but is there.
        FormatError
            The index of its shard is damaged, or its header does not fit its place.
        """
        return self.encoded_chunks([index_zyx])[0]

    def encoded_chunks(self, indices: Sequence[ShapeZYX]) -> Sequence[Encoded | None]:
        if self.sharded:
            return [self.encoded_chunk(index) for index in indices]
        keys = {index: join(self._path, self.chunk_key(index)) for index in indices}
        return chunk_objects(self._tree, keys, self._most, self._holes)

    def expect(self, indices: Iterable[ShapeZYX]) -> None:
        """Say which chunks will be asked for: those that are neighbours come together."""
        together: dict[Any, list[Any]] = {}
        for index in indices if self.sharded else ():
            group, piece = self.place(index)
            together.setdefault(group, []).append(piece)
        for group, pieces in together.items():
            self._neighbours.expect(group, pieces)

    def place(self, index_zyx: ShapeZYX) -> tuple[Any, Any]:
        """Where chunks lie in shards: the group of those that lie together, and which it is."""
        raise NotImplementedError

    def _in_shard(
        self, key: str, index_zyx: ShapeZYX, at: Place, place: Callable[[Any], Place | None]
    ) -> Encoded:
        """The bytes of a chunk by its offset and length in a shard, together with neighbours."""
        data = self._neighbours.get(key, *self.place(index_zyx), at, place)
        if data is None:
            raise shard_gone(self._tree, key)
        return data


def shard_gone(tree: Tree, key: str) -> TransportError:
    """The error for a shard of which no part comes any more."""
    where = f"{tree.uri}/{key}"
    return TransportError("a shard went away while it was read", location=where)


def unit_of(index_zyx: ShapeZYX) -> str:
    """A chunk, in errors."""
    return f"chunk {'/'.join(map(str, index_zyx))}"


def chunk_objects(
    tree: Tree,
    keys: Mapping[ShapeZYX, str],
    most: int,
    holes: frozenset[ShapeZYX] | None,
) -> list[Encoded | None]:
    """The object of each chunk, held against what the listing said; None for a hole.

    Parameters
    ----------
    holes
        Chunks that the listing left out; None where the store does not list.

    Raises
    ------
    TransportError
        It was listed, but is not there now.
    BadAnswerError
        It was not listed, but is there: it would have been read as background.
    """
    proven = holes if holes is not None and tree.listing_proves else frozenset()
    asked = {index: key for index, key in keys.items() if index not in proven}
    found = dict(zip(asked, get_several(tree, [*asked.values()], most), strict=True))
    for index, data in found.items():
        check_listed(tree, asked[index], index, there=data is not None, holes=holes)
    return [found.get(index) for index in keys]


def check_listed(
    tree: Tree, key: str, index_zyx: ShapeZYX, *, there: bool, holes: frozenset[ShapeZYX] | None
) -> None:
    """Raise where a listing said otherwise of a chunk's object; see `chunk_objects`."""
    if holes is None or there != (index_zyx in holes):
        return
    where, unit = f"{tree.uri}/{key}", unit_of(index_zyx)
    if there:
        raise BadAnswerError(
            "a chunk that the listing leaves out is there", location=where, unit=unit
        )
    raise TransportError("a chunk that the archive lists is not there", location=where, unit=unit)


def listed_objects(
    tree: Tree, path: str, wanted: Collection[str], document: str
) -> dict[str, ObjectInfo] | None:
    """Those of the wanted objects below an array that exist, by their key below it.

    None where the store does not list.

    Parameters
    ----------
    document
        Name of the array's own document, which a listing that can be believed has.

    Raises
    ------
    BadAnswerError
        It has not: a web page of status 200 reads as an empty listing.
    """
    found, believable, asked = {}, False, set(wanted)
    try:
        for item in tree.list_all(path):
            key = item.key.removeprefix(f"{path}/") if path else item.key
            believable = believable or key == document
            if key in asked:
                found[key] = item
    except NotListableError:
        return None
    if not believable:
        raise unbelievable(tree, path)
    return found


def unbelievable(tree: Tree, path: str) -> BadAnswerError:
    """The error for a listing that contradicts what is known to be there."""
    return BadAnswerError("the listing leaves out what is there", location=f"{tree.uri}/{path}")


def survey_objects(
    tree: Tree,
    path: str,
    grid: SourceGrid,
    keys: Mapping[ShapeZYX, str],
    document: bytes | memoryview,
    listed: Mapping[str, ObjectInfo] | None,
) -> Survey:
    """What reading chunks takes, and which are not there, by what a listing says of their objects.

    Parameters
    ----------
    path
        Key of the array in the tree.
    keys
        For each chunk that is wanted, the object that holds it, below the array.
    document
        The array's own, JSON: part of the identity.
    listed
        The objects that exist, by their keys; None where the store does not list.
    """
    if listed is None:
        return Survey(
            grid=grid.model_copy(update={"listed": False}),
            nbytes=_estimated_bytes(tree, path, dict.fromkeys(keys.values())),
            requests=len(keys),
            etag=listing_identity(document, {}),
            notes=(UNLISTED,),
        )
    holes = [index for index, key in keys.items() if key not in listed]
    sizes = [item.size for item in listed.values()]
    return Survey(
        grid=grid.with_holes(holes),
        nbytes=_estimated_bytes(tree, path, listed) if None in sizes else sum(filter(None, sizes)),
        requests=len(keys) - len(holes),
        etag=listing_identity(document, listed),
        notes=absent_note(len(holes), len(keys)) if grid.absent == "background" else (),
    )


def _estimated_bytes(tree: Tree, path: str, objects: Iterable[str]) -> int:
    """Bytes of objects below an array, from asking for the size of some of them."""
    known = list(objects)
    some = random.Random(0).sample(known, min(_SAMPLE, len(known)))
    found = tree.ordered([partial(tree.head, join(path, key)) for key in some])
    sizes = [0 if one is None else one.size or 0 for one in found]
    return math.ceil(len(known) * sum(sizes) / max(1, len(sizes)))


def listing_identity(document: bytes | memoryview, listed: Mapping[str, ObjectInfo]) -> str:
    """Of an array as it is now: its JSON document, and every object's size and entity tag."""
    digest = hashlib.sha256(json.dumps(json.loads(bytes(document)), sort_keys=True).encode())
    for key in sorted(listed):
        digest.update(f"{key}\0{listed[key].size}\0{listed[key].etag}\n".encode())
    return f"sha256-of-listing:{digest.hexdigest()}"


_NUMBER = re.compile(r"s?(\d{1,2})")


def choose_level_name(names: Sequence[str], wanted: str | None, where: str) -> str:
    """The name of a level, of those there are, finest first.

    Parameters
    ----------
    wanted
        A level's own name, or its number (``0`` and ``s0`` are the finest); None: the finest.

    Raises
    ------
    NotFoundError
        There is no such level; the error lists what there is.
    """
    if wanted is None:
        return names[0]
    if wanted in names:
        return wanted
    number = _NUMBER.fullmatch(wanted)
    if number is not None and int(number[1]) < len(names):
        return names[int(number[1])]
    raise NotFoundError(
        f"there is no level {wanted}", location=where, advice=f"There are: {', '.join(names)}"
    )
