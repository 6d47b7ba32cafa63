"""Zarr v2 arrays in a tree of objects as a volume, chunk by chunk.

A chunk that answers 404 reads as fill value in every Zarr library. Here the holes are known
beforehand, from comparing the grid with a listing: a hole is named in its block, and a chunk that
was listed but is not there is an error.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from imagecodecs import gzip_decode, zlib_decode
from numpy.typing import NDArray

from lib.bytesource.tree import Tree
from lib.compression import Encoded, can_pass_through, decode_into, open_codec
from lib.errors import FormatError, MacroscopeError, TransportError
from lib.formats.base import Block, ChunkCodec, Layout, VolumeReader
from lib.formats.zarr.array import ArrayDocument, chunks_in
from lib.geometry import Box, ShapeZYX


class ZarrReader(VolumeReader):
    """Reads a box of one array. Thread-safe.

    Parameters
    ----------
    box
        The part that is the volume, in the array's voxels; ``blocks`` counts from its corner.
    holes
        Chunks of the grid that the store does not hold; None where it does not list: a chunk that
        the store then proves to be absent reads as a hole.
    """

    def __init__(
        self,
        tree: Tree,
        path: str,
        document: ArrayDocument,
        box: Box,
        holes: frozenset[ShapeZYX] | None = frozenset(),
    ) -> None:
        self._tree, self._path = tree, path
        self._document, self._box, self._holes = document, box, holes
        self.shape_zyx = box.shape_zyx
        self.dtype = document.dtype
        # no codec makes a chunk much longer than its voxels
        self._most = 2 * math.prod(document.chunk_zyx) * document.dtype.itemsize + 2**16
        self.chunk_zyx = document.chunk_zyx
        self.layout = Layout(document.chunk_zyx)
        self.codec = ChunkCodec(document.compressor)
        self.fill_value = document.fill_value
        self.aligned = all(a % c == 0 for a, c in zip(box.start_zyx, self.chunk_zyx, strict=True))
        self.pass_through = (
            self.aligned
            and document.axes == 3
            and can_pass_through(
                document.compressor, document.filters, document.order, document.dtype_text
            )
        )

    def encoded_chunk(self, index_zyx: ShapeZYX) -> Encoded | None:
        """The stored bytes of a chunk of the array's own grid; None for a known hole.

        Raises
        ------
        TransportError
            The chunk was listed, but is not there now.
        """
        if self._holes is not None and index_zyx in self._holes:
            return None
        key = f"{self._path}/{self._document.chunk_key(index_zyx)}"
        data = self._tree.get(key, self._most)
        if data is None and self._holes is not None:
            raise TransportError(
                "a chunk that the archive lists is not there",
                location=f"{self._tree.uri}/{key}",
                unit=f"chunk {'/'.join(map(str, index_zyx))}",
            )
        return data

    def decoded_chunk(self, encoded: Encoded, index_zyx: ShapeZYX) -> NDArray[Any]:
        """The voxels of a stored chunk.

        Raises
        ------
        FormatError
            The bytes are damaged or hold another number of voxels.
        """
        try:
            return decode_chunk(self._document, encoded)
        except MacroscopeError as error:
            name = "/".join(map(str, index_zyx))
            where = f"{self._tree.uri}/{self._path}"
            raise error.located(location=where, unit=f"chunk {name}") from None

    def blocks(self, box: Box) -> Iterator[Block]:
        """Decode the chunks of a box, several in flight, in C order of the chunk grid."""
        wanted = box.shifted(self._box.start_zyx)
        back: ShapeZYX = tuple(-n for n in self._box.start_zyx)  # type: ignore[assignment]

        def job(index: ShapeZYX) -> Block:
            whole = Box(
                tuple(i * c for i, c in zip(index, self.chunk_zyx, strict=True)),  # type: ignore[arg-type]
                tuple((i + 1) * c for i, c in zip(index, self.chunk_zyx, strict=True)),  # type: ignore[arg-type]
            )
            part = whole.intersect(wanted)
            voxels, missing = self._voxels(index)
            return Block(part.shifted(back), voxels[part.slices(whole.start_zyx)], missing)

        indices = chunks_in(self._document, wanted)
        yield from self._tree.ordered([partial(job, i) for i in indices])

    def _voxels(self, index: ShapeZYX) -> tuple[NDArray[Any], tuple[str, ...]]:
        encoded = self.encoded_chunk(index)
        if encoded is None:
            name = "/".join(map(str, index))
            return np.full(self.chunk_zyx, self.fill_value, self.dtype), (name,)
        return self.decoded_chunk(encoded, index), ()


def decode_chunk(document: ArrayDocument, encoded: Encoded) -> NDArray[Any]:
    """One whole chunk, shape ``document.chunk_zyx``, in native byte order.

    Raises
    ------
    FormatError
        The bytes are damaged or hold another number of voxels.
    """
    stored = np.dtype(document.dtype_text)
    size = int(np.prod(document.chunk_zyx)) * stored.itemsize
    kind = document.compressor.get("id")
    voxels: NDArray[Any]
    if kind in ("gzip", "zlib"):  # libdeflate decodes twice as fast as zlib
        decode = gzip_decode if kind == "gzip" else zlib_decode
        try:
            data = decode(bytes(encoded), out=size)
        except (RuntimeError, ValueError, zlib.error) as error:
            raise FormatError(f"a compressed chunk is damaged: {error}") from None
        if len(data) != size:
            raise FormatError(f"a chunk holds {len(data)} bytes instead of {size}")
        voxels = np.frombuffer(data, stored)
    else:
        voxels = np.empty(size // stored.itemsize, stored)
        codec = None if not document.compressor else open_codec(document.compressor)
        decode_into(codec, encoded, voxels)
    if document.order == "F":
        voxels = voxels.reshape(document.chunk_zyx[::-1]).transpose(2, 1, 0)
    else:
        voxels = voxels.reshape(document.chunk_zyx)
    return np.ascontiguousarray(voxels, document.dtype)
