"""Crops of DVID instances as volumes: ``uint8blk`` tile by tile, labels block by block.

DVID's HTTP API (``/api/node/{uuid}/{data}/raw/0_1_2/{size}/{offset}``): sizes and offsets are
x, y, z; the answer is exactly sx*sy*sz bytes with x fastest, that is C order of z, y, x. Requests
of more than 256^3 voxels take a server-wide lock, so no tile is larger. Outside the extents, and
for blocks that the server cannot decode, the answer is background with status 200.

Labels: DVID ``datatype/labelmap`` (``/blocks``) and ``datatype/common/labels`` (the compressed
block). An answer is a stream of records: x, y, z of a block and its length (4 x int32,
little-endian), then that many bytes. ``compression=blocks`` is named in every request, for the
server's defaults differ and ``lz4`` does not say whether the block or its voxels were compressed.
An error while streaming ends the answer, or puts a sentence into it, under status 200: so every
block is counted, and one that did not come is asked for as plain voxels; the first that comes is
compared with those, too.
"""

from __future__ import annotations

import math
import struct
import threading
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.base import BufferPool
from lib.errors import BadAnswerError, FormatError
from lib.formats.base import Block, Layout, VolumeReader
from lib.geometry import Box, ShapeZYX, multiply, subtract
from lib.transport.session import Session

MAX_TILE_ZYX: ShapeZYX = (256, 256, 256)


class DvidReader(VolumeReader):
    """Reads a crop. Thread-safe.

    Parameters
    ----------
    raw_url
        ``.../api/node/{uuid}/{instance}/raw/0_1_2``.
    crop
        The volume's box in the instance's voxels, z, y, x.
    """

    def __init__(self, session: Session, service: str, raw_url: str, crop: Box) -> None:
        self._session, self._service, self._raw_url, self._crop = session, service, raw_url, crop
        self.shape_zyx = crop.shape_zyx
        self.dtype: np.dtype[Any] = np.dtype("uint8")
        self.layout = Layout((64, 64, 64), max_tile_zyx=MAX_TILE_ZYX)
        self._buffers = BufferPool(math.prod(MAX_TILE_ZYX))

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield tiles of at most 256^3 voxels, one request each."""
        jobs = [partial(self._tile, tile) for tile in box.tiles(MAX_TILE_ZYX)]
        for tile, view in self._session.ordered(self._service, jobs):
            yield Block(tile, np.frombuffer(view, np.uint8).reshape(tile.shape_zyx))
            self._buffers.give(view)

    def _tile(self, tile: Box) -> tuple[Box, memoryview]:
        view = self._buffers.take(tile.voxels)
        url = tile_url(self._raw_url, tile.shifted(self._crop.start_zyx))
        self._session.http(self._service).read_exact_into(
            url, view, params={"throttle": "true", "interactive": "false", "app": "macroscope"}
        )
        return tile, view


def tile_url(raw_url: str, box: Box) -> str:
    """The address of one crop: size and offset in x_y_z."""
    size = "_".join(str(n) for n in reversed(box.shape_zyx))
    offset = "_".join(str(n) for n in reversed(box.start_zyx))
    return f"{raw_url}/{size}/{offset}"


BLOCK = 64
"""Voxels along each axis of a block; other sizes are refused when ``info`` is read."""

TILE_ZYX: ShapeZYX = (128, 128, 128)
"""Of one request: eight blocks, 16 MiB of voxels."""

_BLOCK_ZYX: ShapeZYX = (BLOCK,) * 3
_SUB = 8  # voxels along each axis of a sub-block, which has its own list of labels
_VOXELS = BLOCK**3
_MOST_BYTES = 8 * _VOXELS + (1 << 20)  # of a block: every voxel a label of its own, and its tables
_HEAD = struct.Struct("<4i")
_GZIP = b"\x1f\x8b"


def decode_block(data: bytes | memoryview) -> NDArray[np.uint64]:
    """The labels of one compressed block, shape (64, 64, 64) in z, y, x.

    Raises
    ------
    FormatError
        It is damaged: counts, indices or lengths do not fit each other.
    """
    if len(data) < 24:
        raise FormatError(f"a block of labels of {len(data)} bytes")
    gx, gy, gz, count = struct.unpack_from("<4I", data)
    if (gx, gy, gz) != (BLOCK // _SUB,) * 3 or not 1 <= count <= _VOXELS:
        raise FormatError(f"a block of {gx} x {gy} x {gz} sub-blocks and {count} labels")
    if len(data) < 16 + 8 * count:
        raise FormatError("a block of labels ends within its labels")
    labels = np.frombuffer(data, "<u8", count, 16)
    if count == 1:
        if len(data) != 24:
            raise FormatError("a solid block of labels has more than its label")
        return np.full((BLOCK,) * 3, labels[0], np.uint64)
    subs, at = gx * gy * gz, 16 + 8 * count
    if len(data) < at + 2 * subs:
        raise FormatError("a block of labels ends within its sub-blocks")
    numbers = np.frombuffer(data, "<u2", subs, at)
    at += 2 * subs
    total = int(numbers.sum(dtype=np.int64))
    if len(data) < at + 4 * total or int(numbers.max()) > _SUB**3:
        raise FormatError("a block of labels ends within its indices")
    indices = np.frombuffer(data, "<u4", total, at)
    if total and int(indices.max()) >= count:
        raise FormatError("an index of a block of labels leads out of its list")
    at += 4 * total
    own = labels[indices]
    parts, first = np.zeros((subs, _SUB**3), np.uint64), 0
    for sub, number in enumerate(numbers.tolist()):
        if number == 1:
            parts[sub] = own[first]
        elif number:
            bits = (number - 1).bit_length()
            size = bits * _SUB**3 // 8
            packed = np.frombuffer(data, np.uint8, size, at) if len(data) >= at + size else None
            if packed is None:
                raise FormatError("a block of labels ends within its voxels")
            at += size
            places = np.unpackbits(packed).reshape(_SUB**3, bits) @ (1 << np.arange(bits)[::-1])
            if int(places.max()) >= number:
                raise FormatError("a voxel of a block of labels leads out of its sub-block's list")
            parts[sub] = own[first + places]
        first += number
    if at != len(data):
        raise FormatError(f"a block of labels has {len(data) - at} bytes too many")
    cube = parts.reshape(gz, gy, gx, _SUB, _SUB, _SUB).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(cube.reshape((BLOCK,) * 3))


def read_stream(data: bytes, wanted: set[ShapeZYX]) -> dict[ShapeZYX, NDArray[np.uint64]]:
    """The blocks of an answer, by their coordinates in blocks (z, y, x).

    Raises
    ------
    FormatError
        It holds something else than such blocks, each once and whole.
    """
    found: dict[ShapeZYX, NDArray[np.uint64]] = {}
    at = 0
    while at < len(data):
        if len(data) < at + _HEAD.size:
            raise FormatError("the stream of blocks ends within a block's head")
        x, y, z, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if (z, y, x) not in wanted or (z, y, x) in found or not 0 < size <= len(data) - at:
            raise FormatError(f"the stream of blocks has a block {(z, y, x)} of {size} bytes")
        found[z, y, x] = decode_block(_unpacked(data[at : at + size]))
        at += size
    return found


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(_GZIP):  # a store of LZ4 sends its own, whatever is asked
        raise FormatError("a block of labels is not compressed as it was asked for")
    unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        block = unpacking.decompress(data, _MOST_BYTES)
    except zlib.error as error:
        raise FormatError(f"a compressed block of labels is damaged: {error}") from None
    if not unpacking.eof or unpacking.unused_data:
        raise FormatError("a compressed block of labels is cut, or too long")
    return block


class DvidLabelReader(VolumeReader):
    """Reads a crop of labels, uint64. Thread-safe.

    Parameters
    ----------
    data_url
        ``.../api/node/{uuid}/{instance}``.
    crop
        The volume's box in the voxels of the scale, z, y, x.
    supervoxels
        The labels before any merge, instead of bodies.
    """

    def __init__(
        self,
        session: Session,
        service: str,
        data_url: str,
        crop: Box,
        *,
        scale: int = 0,
        supervoxels: bool = False,
    ) -> None:
        self._session, self._service, self._url, self._crop = session, service, data_url, crop
        self._asked = {"scale": str(scale), "supervoxels": str(supervoxels).lower()}
        self.shape_zyx = crop.shape_zyx
        self.dtype: np.dtype[Any] = np.dtype("uint64")
        self.layout = Layout((BLOCK,) * 3, max_tile_zyx=TILE_ZYX)
        self._lock, self._compared = threading.Lock(), False

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield tiles that begin at the server's own blocks, one request each."""
        inside = box.shifted(self._crop.start_zyx)
        jobs = [partial(self._tile, tile) for tile in aligned_tiles(inside)]
        back = subtract((0, 0, 0), self._crop.start_zyx)
        for tile, voxels in self._session.ordered(self._service, jobs):
            yield Block(tile.shifted(back), voxels)

    def _tile(self, tile: Box) -> tuple[Box, NDArray[np.uint64]]:
        wanted = tile.cells(_BLOCK_ZYX).indices()
        found = self._blocks(wanted)
        voxels = np.empty(tile.shape_zyx, np.uint64)
        for index in wanted:
            where = _of_block(index)
            part = tile.intersect(where)
            block = found[index] if index in found else self._raw(where)
            voxels[part.slices(tile.start_zyx)] = block[part.slices(where.start_zyx)]
        return tile, voxels

    def _blocks(self, wanted: list[ShapeZYX]) -> dict[ShapeZYX, NDArray[np.uint64]]:
        query = {"compression": "blocks", **self._asked, "throttle": "true", "app": "macroscope"}
        box = Box(_of_block(wanted[0]).start_zyx, _of_block(wanted[-1]).stop_zyx)
        url = f"{tile_url(f'{self._url}/blocks', box)}?{urlencode(query)}"
        most = len(wanted) * (_MOST_BYTES + _HEAD.size)
        client = self._session.http(self._service)
        try:
            found = read_stream(client.get_bytes(url, max_bytes=most), set(wanted))
        except FormatError:  # what a server's error in mid-stream leaves: once more, then for good
            try:
                found = read_stream(client.get_bytes(url, max_bytes=most), set(wanted))
            except FormatError as error:
                raise BadAnswerError(error.message, location=url) from None
        self._compare(found)
        return found

    def _compare(self, found: dict[ShapeZYX, NDArray[np.uint64]]) -> None:
        """Hold the first block that ever comes against the server's plain voxels of it.

        Raises
        ------
        BadAnswerError
        """
        with self._lock:
            if self._compared or not found:
                return
            self._compared = True
        index, block = next(iter(found.items()))
        if not np.array_equal(self._raw(_of_block(index)), block):
            raise BadAnswerError(
                "blocks and voxels of the server are not the same labels",
                location=self._url,
                retryable=False,
            )

    def _raw(self, box: Box) -> NDArray[np.uint64]:
        voxels = np.empty(box.shape_zyx, "<u8")
        self._session.http(self._service).read_exact_into(
            tile_url(f"{self._url}/raw/0_1_2", box),
            voxels.reshape(-1).view(np.uint8).data,
            params={**self._asked, "throttle": "true", "app": "macroscope"},
        )
        return voxels


def aligned_tiles(box: Box) -> Iterator[Box]:
    """The parts of a box that lie in tiles of `TILE_ZYX` counted from voxel 0."""
    for index in box.cells(TILE_ZYX).indices():
        yield Box.whole(TILE_ZYX).shifted(multiply(index, TILE_ZYX)).intersect(box)


def tiles_of(box: Box) -> int:
    """How many requests a box takes."""
    return box.cells(TILE_ZYX).voxels


def _of_block(index_zyx: ShapeZYX) -> Box:
    """The voxels of a block."""
    return Box.whole(_BLOCK_ZYX).shifted(multiply(index_zyx, _BLOCK_ZYX))
