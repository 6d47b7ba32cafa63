"""Zarr v2 arrays in a tree of objects as a volume, chunk by chunk.

A chunk that answers 404 reads as fill value in every Zarr library. Here the holes are known
beforehand, from comparing the grid with a listing: a hole is named in its block, and a chunk that
was listed but is not there is an error.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from imagecodecs import gzip_decode, zlib_decode
from numpy.typing import NDArray

from lib.bytesource.tree import Tree, join
from lib.compression import Encoded, can_pass_through, decode_into, open_codec
from lib.errors import FormatError, MacroscopeError
from lib.formats.chunked import ChunkedReader, chunk_object
from lib.formats.zarr.array import ArrayDocument
from lib.formats.zarr.axes import to_zyx
from lib.geometry import Box, ShapeZYX


class ZarrReader(ChunkedReader):
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
        axes = document.map
        super().__init__(
            tree.ordered,
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
        self._tree, self._path = tree, path
        self._document, self._holes = document, holes
        # no codec makes a chunk much longer than its voxels
        self._most = 2 * math.prod(document.chunk) * document.dtype.itemsize + 2**16

    def encoded_chunk(self, index_zyx: ShapeZYX) -> Encoded | None:
        """The stored bytes of a chunk of the array's own grid; None for a known hole.

        Raises
        ------
        TransportError
            The chunk was listed, but is not there now.
        BadAnswerError
            It was not listed, but is there.
        """
        key = join(self._path, self._document.chunk_key(index_zyx))
        return chunk_object(self._tree, key, self._most, index_zyx, self._holes)

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
        voxels = voxels.reshape(document.chunk[::-1]).transpose()
    else:
        voxels = voxels.reshape(document.chunk)
    return np.ascontiguousarray(to_zyx(voxels, document.map, document.chunk), document.dtype)
