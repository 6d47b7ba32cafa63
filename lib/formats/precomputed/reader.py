"""Chunks of one scale of a precomputed volume, unsharded or out of shards.

Of the encoding ``compressed_segmentation`` every offset is checked before it is followed:
neuroglancer ``src/sliceview/compressed_segmentation``. The published decoders follow the offsets of
a damaged chunk out of their memory; this one gives a named error.
"""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import numpy as np
from imagecodecs import jpegxl_decode
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lib.bytesource.neighbours import SharedReads
from lib.bytesource.tree import Tree, join
from lib.compression import Encoded, inflate
from lib.errors import FormatError, MacroscopeError
from lib.formats.chunked import TreeReader, check_listed, shard_gone
from lib.formats.pictures import check_picture, jxl_shape
from lib.formats.precomputed.info import Scale
from lib.formats.precomputed.shards import morton, unbrotli
from lib.geometry import Box, ShapeZYX, ceil_divide

_BITS = (0, 1, 2, 4, 8, 16, 32)


def decode_segmentation(
    data: bytes | memoryview, shape_zyx: ShapeZYX, block_zyx: ShapeZYX, dtype: np.dtype[Any],
    channels: int = 1, channel: int = 0,
) -> NDArray[Any]:  # fmt: skip
    """One channel of a chunk, shape ``shape_zyx``, uint32 or uint64.

    Parameters
    ----------
    block_zyx
        ``compressed_segmentation_block_size`` of the scale.

    Raises
    ------
    FormatError
        Offsets, numbers of bits or indices lead out of the chunk.
    """
    if len(data) % 4 or len(data) < 4 * channels or dtype.itemsize not in (4, 8):
        raise FormatError(f"a compressed segmentation of {len(data)} bytes")
    words = np.frombuffer(data, "<u4")
    starts = [int(n) for n in words[:channels]] + [len(words)]
    if starts[0] < channels or any(b < a for a, b in itertools.pairwise(starts)):
        raise FormatError("the channels of a compressed segmentation lead out of it")
    body = words[starts[channel] : starts[channel + 1]]
    grid = tuple(-(-n // b) for n, b in zip(shape_zyx, block_zyx, strict=True))
    if 2 * math.prod(grid) > len(body):
        raise FormatError("a compressed segmentation is shorter than its headers")
    out = np.empty(shape_zyx, dtype)
    heads = body[: 2 * math.prod(grid)].reshape(*grid, 2)
    for index in np.ndindex(*grid):
        first, values = int(heads[index][0]), int(heads[index][1])
        place = tuple(
            slice(i * b, min((i + 1) * b, n))
            for i, b, n in zip(index, block_zyx, shape_zyx, strict=True)
        )
        inside = tuple(slice(0, s.stop - s.start) for s in place)
        block = _block(body, first & 0xFFFFFF, first >> 24, values, block_zyx, dtype)
        out[place] = block[inside] if isinstance(block, np.ndarray) else block
    return out


def _block(
    body: NDArray[np.uint32],
    table: int,
    bits: int,
    values: int,
    block_zyx: ShapeZYX,
    dtype: np.dtype[Any],
) -> Any:
    """The voxels of a block, or the one value of all of them."""
    width = dtype.itemsize // 4
    if bits not in _BITS:
        raise FormatError(f"a block of {bits} bits a voxel")
    if table + width > len(body):
        raise FormatError("the table of a block leads out of its chunk")
    if bits == 0:
        return body[table : table + width].view(dtype)[0]
    count = math.prod(block_zyx)
    length = -(-count * bits // 32)
    if values + length > len(body):
        raise FormatError("the voxels of a block lead out of their chunk")
    packed = body[values : values + length]
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    unpacked = packed[:, None] >> shifts & np.uint32((1 << bits) - 1)
    indices = unpacked.reshape(-1)[:count].astype(np.int64)
    entries = (len(body) - table) // width
    if int(indices.max(initial=0)) >= entries:
        raise FormatError("a voxel of a block leads out of its table")
    known = body[table : table + entries * width]
    return np.ascontiguousarray(known).view(dtype)[indices].reshape(block_zyx)


_GZIP = b"\x1f\x8b"
_INDEXES = 512  # of minishards, kept at once


class ShardedChunks:
    """Finds chunks in the shards of one scale. Thread-safe.

    Parameters
    ----------
    path
        Key of the scale in the tree.
    """

    def __init__(self, tree: Tree, path: str, scale: Scale) -> None:
        assert scale.sharding is not None
        self._tree, self._path, self._sharding = tree, path, scale.sharding
        self._grid = ceil_divide(scale.size_zyx, scale.chunk_zyx)
        self._heads = SharedReads(self._head, _INDEXES)
        self._minishards = SharedReads(self._minishard, _INDEXES)

    def place(self, index_zyx: ShapeZYX) -> tuple[int, int]:
        """Shard and minishard of a chunk."""
        return self._sharding.place(morton(index_zyx, self._grid))

    def find(self, index_zyx: ShapeZYX) -> tuple[str, int, int] | None:
        """Key of the shard, offset and length of a chunk; None where there is none.

        Raises
        ------
        FormatError
            An index is damaged, or leads out of its shard.
        """
        number = morton(index_zyx, self._grid)
        place = self._sharding.place(number)
        found = self._minishards.get(place).get(number)
        return None if found is None else (self._key(place[0]), *found)

    def within(self, index_zyx: Any) -> tuple[int, int] | None:
        """Offset and length of a chunk whose minishard was looked at; None where there is none."""
        number = morton(index_zyx, self._grid)
        return (self._minishards.peek(self._sharding.place(number)) or {}).get(number)

    def _key(self, shard: int) -> str:
        return join(self._path, self._sharding.file(shard))

    def _head(self, shard: int) -> tuple[bytes, int] | None:
        """The index of a shard and the shard's size; None where the shard is absent."""
        key = self._key(shard)
        known = self._tree.head(key)
        if known is None:
            return None
        length = self._sharding.index_bytes
        if known.size is None or known.size < length:
            raise FormatError(
                f"a shard of {known.size} bytes cannot hold its index of {length}",
                location=f"{self._tree.uri}/{key}",
            )
        data = self._tree.get_range(key, 0, length)
        if data is None:
            raise shard_gone(self._tree, key)
        return bytes(data), known.size

    def _minishard(self, place: tuple[int, int]) -> dict[int, tuple[int, int]]:
        """Offset and length of each chunk of a minishard, by the chunk's number."""
        shard, minishard = place
        head, key = self._heads.get(shard), self._key(shard)
        if head is None:
            return {}
        index, size = head
        try:
            start, length = self._sharding.minishard_range(index, minishard, size)
            if not length:
                return {}
            data = self._tree.get_range(key, start, length)
            if data is None:
                raise shard_gone(self._tree, key)
            return self._sharding.chunks(data, size)
        except MacroscopeError as error:
            raise error.located(location=f"{self._tree.uri}/{key}") from None


class PrecomputedReader(TreeReader):
    """Reads a box of one scale. Thread-safe.

    Parameters
    ----------
    suffix
        What the names of local copies end with (``.gz``, ``.br``).
    """

    def __init__(
        self,
        tree: Tree,
        path: str,
        scale: Scale,
        dtype: np.dtype[Any],
        box: Box,
        *,
        channels: int = 1,
        channel: int = 0,
        suffix: str = "",
        holes: frozenset[ShapeZYX] | None = frozenset(),
    ) -> None:
        raw = channels * math.prod(scale.chunk_zyx) * dtype.itemsize
        super().__init__(tree, path, holes, 2 * raw + 2**20, box, scale.chunk_zyx, dtype)
        self._scale, self._suffix = scale, suffix
        self._channels, self._channel = channels, channel
        self._shards = ShardedChunks(tree, path, scale) if scale.sharding else None
        self.sharded = self._shards is not None

    def chunk_key(self, index_zyx: ShapeZYX) -> str:
        return self._scale.chunk_name(index_zyx) + self._suffix

    def encoded_chunk(self, index_zyx: ShapeZYX) -> Encoded | None:
        if self._shards is None:
            return super().encoded_chunk(index_zyx)
        if self._holes is not None and index_zyx in self._holes:
            return None  # the indexes of its shard said so, no listing
        found = self._shards.find(index_zyx)
        key = self._path if found is None else found[0]
        check_listed(self._tree, key, index_zyx, there=found is not None, holes=self._holes)
        if found is None:
            return None
        if found[2] > self._most:
            raise FormatError(
                f"a shard says {found[2]} bytes for one chunk", location=f"{self._tree.uri}/{key}"
            )
        return self._in_shard(key, index_zyx, found[1:], self._shards.within)

    def place(self, index_zyx: ShapeZYX) -> tuple[tuple[int, int], ShapeZYX]:
        assert self._shards is not None
        return self._shards.place(index_zyx), index_zyx

    def _decode(self, encoded: Encoded, index_zyx: ShapeZYX) -> NDArray[Any]:
        """0 past the volume's end."""
        voxels = self._decoded(encoded, self._scale.extent_zyx(index_zyx))
        if voxels.shape == self.chunk_zyx:
            return np.ascontiguousarray(voxels, self.dtype)
        whole = np.zeros(self.chunk_zyx, self.dtype)
        whole[tuple(slice(0, n) for n in voxels.shape)] = voxels
        return whole

    def _decoded(self, encoded: Encoded, extent: ShapeZYX) -> NDArray[Any]:
        scale, channels = self._scale, self._channels
        nbytes = channels * math.prod(extent) * self.dtype.itemsize
        whole = scale.encoding == "raw" and len(encoded) == nbytes
        packed = scale.sharding is not None and scale.sharding.data_gzip
        packed = packed or self._suffix == ".gz"
        # copies made by tools that drop headers hold gzip bytes under plain names
        if self._suffix == ".br":
            encoded = unbrotli(encoded, self._most)
        elif packed or (bytes(encoded[:2]) == _GZIP and not whole):
            encoded = inflate("gzip", encoded, nbytes if scale.encoding == "raw" else self._most)
        if scale.encoding == "raw":
            if len(encoded) != nbytes:
                raise FormatError(f"a chunk holds {len(encoded)} bytes instead of {nbytes}")
            stored = self.dtype.newbyteorder("<")
            return np.asarray(
                np.frombuffer(encoded, stored).reshape(channels, *extent)[self._channel]
            )
        if scale.encoding == "compressed_segmentation":
            assert scale.block_zyx is not None
            return decode_segmentation(
                encoded, extent, scale.block_zyx, self.dtype, channels, self._channel
            )
        if scale.encoding == "jxl":
            return self._jxl(bytes(encoded), extent)
        return self._picture(encoded, extent)

    def _jxl(self, data: bytes, extent: ShapeZYX) -> NDArray[Any]:
        """JPEG XL: any width and height whose product is the number of voxels."""
        rows, columns = jxl_shape(data)
        if rows * columns != math.prod(extent):
            raise FormatError(
                f"a JPEG XL of {columns} x {rows} pixels for {math.prod(extent)} voxels"
            )
        try:
            pixels = np.asarray(jpegxl_decode(data))
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"a JPEG XL chunk is damaged: {error}") from None
        shape = (rows, columns) if self._channels == 1 else (rows, columns, self._channels)
        if pixels.shape != shape or pixels.dtype != self.dtype:
            raise FormatError(f"a JPEG XL of {pixels.dtype} pixels of {pixels.shape}")
        return np.asarray(pixels.reshape(*extent, self._channels)[..., self._channel])

    def _picture(self, encoded: Encoded, extent: ShapeZYX) -> NDArray[Any]:
        """JPEG or PNG: any width and height whose product is the number of voxels."""
        kind = self._scale.encoding.upper()
        count = math.prod(extent)
        try:
            check_picture(kind, bytes(encoded))
            with Image.open(io.BytesIO(encoded), formats=(kind,)) as picture:
                bands = len(picture.getbands())
                if picture.width * picture.height != count:
                    raise FormatError(
                        f"a {kind} of {picture.width} x {picture.height} pixels for {count} voxels"
                    )
                pixels = np.asarray(picture)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
            raise FormatError(f"a {kind} chunk is damaged: {error}") from None
        if bands != self._channels or pixels.dtype.itemsize > self.dtype.itemsize:
            raise FormatError(f"a {kind} of {bands} bands of {pixels.dtype}")
        return np.asarray(pixels.reshape(*extent, bands)[..., self._channel])
