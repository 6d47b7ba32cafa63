"""Voxels of an HDF5 dataset, read by ranges and decoded outside HDF5's library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from imagecodecs import (
    bitshuffle_decode,
    h5checksum_fletcher32,
    lz4_decode,
    lz4h5_decode,
    lzf_decode,
)
from numpy.typing import NDArray

from lib.bytesource.base import ByteSource
from lib.bytesource.neighbours import MOST_BYTES, Neighbours
from lib.bytesource.remote import RemoteBytes
from lib.compression import Encoded, can_pass_through, decode_into, expand, inflate, open_codec
from lib.errors import FormatError
from lib.formats.base import delivered_dtype
from lib.formats.chunked import ChunkedReader
from lib.formats.zarr.axes import AxisMap, array_index, to_zyx
from lib.geometry import Box, ShapeZYX

T = TypeVar("T")
DEFLATE, SHUFFLE, FLETCHER32, BZIP2 = 1, 2, 3, 307
LZF, BLOSC, LZ4, BITSHUFFLE, ZSTD = 32000, 32001, 32004, 32008, 32015
FILTERS = {
    DEFLATE: "deflate", SHUFFLE: "shuffle", FLETCHER32: "fletcher32", BZIP2: "bzip2",
    LZF: "lzf", BLOSC: "blosc", LZ4: "lz4", BITSHUFFLE: "bitshuffle", ZSTD: "zstd",
}  # fmt: skip
OTHER_FILTERS = {
    4: "szip", 5: "n-bit", 6: "scale-offset", 32013: "zfp",
    32017: "sz", 32026: "blosc2",
}  # fmt: skip
_CNAMES = ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
_MOST_ROW_BYTES = 2**30

Place = tuple[int, int, int]
"""Offset, length and filter mask of a chunk."""


def codec_of(filters: list[tuple[int, list[int]]]) -> dict[str, Any]:
    """The compression in numcodecs' words, where it is all that was done to a chunk."""
    if len(filters) != 1:
        return {}
    code, values = filters[0]
    if code == DEFLATE:
        return {"id": "zlib", "level": values[0] if values else 6}
    if code == ZSTD:
        return {"id": "zstd", "level": values[0] if values else 3}
    if code == BLOSC and len(values) >= 7 and values[6] < len(_CNAMES) and values[5] <= 2:
        return {
            "id": "blosc",
            "cname": _CNAMES[values[6]],
            "clevel": min(values[4], 9),
            "shuffle": values[5],
            "blocksize": 0,
        }
    return {}


class Hdf5Reader(ChunkedReader):
    """Reads a whole dataset. Thread-safe.

    Parameters
    ----------
    shape, chunk
        Of the dataset, in its own axes.
    stored
        dtype in the file's byte order.
    filters
        Code and values of each, in the order in which they were applied.
    places
        Where each chunk lies that is there, by its index in the dataset's own axes.
    size_zyx
        Of the volume, where it is smaller than what is stored (Imaris pads to whole chunks).
    """

    def __init__(
        self,
        source: ByteSource,
        shape: tuple[int, ...],
        chunk: tuple[int, ...],
        stored: np.dtype[Any],
        axes: AxisMap,
        *,
        filters: list[tuple[int, list[int]]],
        places: dict[tuple[int, ...], Place],
        fill_value: int | float = 0,
        size_zyx: ShapeZYX | None = None,
    ) -> None:
        little = stored.itemsize == 1 or stored.byteorder in "<|="
        alone = axes.plain and all(chunk[dim] == 1 for dim in axes.fixed)
        plain = all(mask == 0 for _, _, mask in places.values())
        codec = codec_of(filters) if little and alone and plain else {}
        super().__init__(
            _ordered(source),
            Box.whole(size_zyx or axes.pick_zyx(shape)),
            axes.pick_zyx(chunk),
            delivered_dtype(stored),
            fill_value=fill_value,
            codec=codec,
            fits_shard=bool(codec) and can_pass_through(codec, None, "C", stored.str),
        )
        self._source, self._chunk, self._stored, self._axes = source, chunk, stored, axes
        self._filters, self._places = filters, places
        self._nbytes = math.prod(chunk) * stored.itemsize
        self._most = 2 * self._nbytes + 2**16
        self._neighbours = Neighbours(self._read, min(source.range_bytes, MOST_BYTES))

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def encoded_chunk(self, index_zyx: ShapeZYX) -> Encoded | None:
        """The stored bytes of a chunk; None where the dataset has none there.

        Raises
        ------
        FormatError
            The file says an impossible length, or ends before the chunk does.
        """
        index = array_index(self._axes, index_zyx, self._chunk)
        place = self._places.get(index)
        if place is None:
            return None
        offset, length, _ = place
        if length > self._most:
            raise FormatError(
                f"a chunk of {length} bytes for {self._nbytes}", location=self._source.name
            )
        return self._neighbours.get("", "", index, (offset, length), self._where)

    def expect(self, indices: Iterable[ShapeZYX]) -> None:
        """Say which chunks will be asked for: those that are neighbours come together."""
        self._neighbours.expect("", (array_index(self._axes, i, self._chunk) for i in indices))

    def _where(self, index: Any) -> tuple[int, int] | None:
        place = self._places.get(index)
        return None if place is None else place[:2]

    def _read(self, _: str, offset: int, length: int) -> bytearray:
        data = bytearray(length)
        self._source.read_into(offset, memoryview(data))
        return data

    @property
    def where(self) -> str:
        return self._source.name

    def _decode(self, encoded: Encoded, index_zyx: ShapeZYX) -> NDArray[Any]:
        mask = self._places[array_index(self._axes, index_zyx, self._chunk)][2]
        data: Any = encoded
        for number in reversed(range(len(self._filters))):
            if not mask >> number & 1:  # a filter may have been left out for this chunk
                data = self._undo(*self._filters[number], data)
        if len(data) != self._nbytes:
            raise FormatError(f"a chunk holds {len(data)} bytes instead of {self._nbytes}")
        voxels = np.frombuffer(data, self._stored).reshape(self._chunk).astype(self.dtype)
        return to_zyx(voxels, self._axes, self._chunk)

    def _undo(self, code: int, values: list[int], data: Any) -> Any:
        size = self._nbytes
        if code in (ZSTD, BLOSC):
            out = np.empty(size, np.uint8)
            decode_into(open_codec({"id": "zstd" if code == ZSTD else "blosc"}), data, out)
            return out.data
        if code == SHUFFLE:
            width = values[0] if values else self._stored.itemsize
            if len(data) % width:
                raise FormatError(f"{len(data)} shuffled bytes of {width} each")
            return np.frombuffer(data, np.uint8).reshape(width, -1).T.tobytes()
        if code == FLETCHER32:
            body, stated = bytes(data[:-4]), bytes(data[-4:])
            if len(stated) < 4 or h5checksum_fletcher32(body).to_bytes(4, "little") != stated:
                raise FormatError("a chunk does not fit its fletcher32 checksum")
            return body
        room = size + 4  # a checksum may have been appended before
        if code == DEFLATE:
            return inflate("zlib", data, room)
        if code == BITSHUFFLE:
            return bits_in_place(values, data, room)
        try:
            if code == BZIP2:
                return expand("bz2", data, room)
            if code == LZF:
                return bytes(lzf_decode(bytes(data), out=room))
            if int.from_bytes(data[:8], "big") > room:
                raise FormatError("an LZ4 chunk that is longer than its voxels")
            return bytes(lz4h5_decode(bytes(data)))
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"a compressed chunk is damaged: {error}") from None


_NONE, _LZ4, _ZSTD = 0, 2, 3  # the last step of bitshuffle


def bits_in_place(values: Sequence[int], data: Any, most: int) -> bytes:
    """Undo bitshuffle (filter 32008), and the LZ4 or Zstandard of its blocks.

    github.com/kiyo-masui/bitshuffle. `values` are two of a version, bytes of an element, elements
    of a block (0: some 8 KiB) and the compression. Compressed, a chunk begins with its length and
    that of a block, big-endian; before each block stands its length, and up to seven elements
    that fill no eight follow as they are.

    Raises
    ------
    FormatError
        The chunk is damaged, or holds more than `most` bytes.
    """
    width, elements, packed = (*values[2:5], 0, 0, 0)[:3]
    if not 0 < width <= 2**16 or packed not in (_NONE, _LZ4, _ZSTD) or elements % 8:
        raise FormatError(f"a chunk with the bitshuffle {list(values)}")
    elements = elements or max(8192 // width // 8 * 8, 128)
    view = memoryview(data).cast("B")
    if packed == _NONE:
        return _bits(view, width, elements)
    total, block = int.from_bytes(view[:8], "big"), int.from_bytes(view[8:12], "big")
    if len(view) < 12 or total > most or not block or block % (8 * width):
        raise FormatError(f"a bitshuffled chunk of {total} bytes in blocks of {block}")
    out, at = bytearray(), 12
    plain = total % (8 * width)
    while len(out) < total - plain:
        size, here = int.from_bytes(view[at : at + 4], "big"), min(block, total - plain - len(out))
        piece, at = view[at + 4 : at + 4 + size], at + 4 + size
        if len(piece) < size:
            raise FormatError("a bitshuffled chunk is cut short")
        voxels = np.empty(here, np.uint8)
        if packed == _LZ4:
            try:
                count = len(lz4_decode(bytes(piece), out=voxels.data))
            except (RuntimeError, ValueError) as error:
                raise FormatError(f"a bitshuffled chunk is damaged: {error}") from None
            if count != here:
                raise FormatError(f"a block of a bitshuffled chunk holds {count} bytes of {here}")
        else:
            decode_into(open_codec({"id": "zstd"}), piece, voxels)
        out += _bits(voxels.data, width, here // width)
    if len(view) - at != plain:
        raise FormatError(f"a bitshuffled chunk ends with {len(view) - at} bytes, {plain} belong")
    return bytes(out + view[at:])


def _bits(shuffled: memoryview, width: int, elements: int) -> bytes:
    try:
        return bytes(bitshuffle_decode(bytes(shuffled), itemsize=width, blocksize=elements))
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"a bitshuffled chunk is damaged: {error}") from None


def rows_of(
    offset: int, shape: tuple[int, ...], stored: np.dtype[Any]
) -> tuple[tuple[int, ...], dict[tuple[int, ...], Place]]:
    """A dataset that lies in one piece, as chunks of whole planes.

    Raises
    ------
    FormatError
        A plane is too large.
    """
    plane = math.prod(shape[-2:]) * stored.itemsize
    if plane > _MOST_ROW_BYTES:
        raise FormatError(f"planes of {plane} bytes")
    chunk = (*(1 for _ in shape[:-2]), *shape[-2:])
    outer = shape[:-2]
    places = {}
    for number, index in enumerate(np.ndindex(*outer)):
        places[(*index, 0, 0)] = (offset + number * plane, plane, 0)
    return chunk, places


def _ordered(source: ByteSource) -> Callable[[Iterable[Callable[[], T]]], Iterator[T]]:
    if isinstance(source, RemoteBytes):
        return source.ordered
    return lambda jobs: (job() for job in jobs)
