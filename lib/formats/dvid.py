"""Crops of a DVID ``uint8blk`` instance as a volume, tile by tile.

DVID's HTTP API (``/api/node/{uuid}/{data}/raw/0_1_2/{size}/{offset}``): sizes and offsets are
x, y, z; the answer is exactly sx*sy*sz bytes with x fastest, that is C order of z, y, x. Requests
of more than 256^3 voxels take a server-wide lock, so no tile is larger. Outside the extents, and
for blocks that the server cannot decode, the answer is background with status 200.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from lib.bytesource.base import BufferPool
from lib.formats.base import Block, Layout, VolumeReader
from lib.geometry import Box, ShapeZYX
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
