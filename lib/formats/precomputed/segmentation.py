"""The encoding ``compressed_segmentation``, with every offset checked before it is followed.

neuroglancer ``src/sliceview/compressed_segmentation``. The published decoders follow the offsets of
a damaged chunk out of their memory; this one gives a named error.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import FormatError
from lib.geometry import ShapeZYX

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
