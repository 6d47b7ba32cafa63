"""The voxels of every benchmark source, as a function of coordinates.

Tissue with coarser grey levels: zstd-1 compresses the bytes about 1.55 times, and blosc-zstd-1
with shuffle the 16-bit values about 1.5 times, as recorded volumes do.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulators.dvid_labels import dvid_labels
from emulators.tissue import RepeatedTissue, TripleZYX

LABELS = ("uint64", "int8")
"""Types of the volumes of labels: bodies, and classes of a byte, where images have others."""
TILE = 128
"""Period of the volume; a multiple of every chunk edge."""


class Volume:
    """An endless volume of one dtype, made of one tile again and again."""

    def __init__(self, dtype: str) -> None:
        if dtype in LABELS:  # bodies with walls, blocks of background and of one body
            self._repeated = RepeatedTissue((TILE, TILE, TILE), dtype="uint8")
            bodies = dvid_labels((0, 0, 0), (TILE, TILE, TILE))
            classes = np.unique(bodies, return_inverse=True)[1].reshape(bodies.shape)
            self._repeated.tile = bodies if dtype == "uint64" else classes.astype(dtype)
            return
        self._repeated = RepeatedTissue((TILE, TILE, TILE), dtype=dtype)
        step = 3 if dtype == "uint8" else 64
        tile = self._repeated.tile // step * step
        self._repeated.tile = np.ascontiguousarray(tile + 1 if dtype == "uint8" else tile)

    def __call__(self, origin_zyx: TripleZYX, shape_zyx: TripleZYX) -> NDArray[Any]:
        """Voxels of a crop."""
        return self._repeated(origin_zyx, shape_zyx)


@cache
def volume(dtype: str) -> Volume:
    """The volume of a dtype, ``uint8`` or ``int16``; made once a process."""
    return Volume(dtype)


def shape_for(megabytes: float, itemsize: int) -> TripleZYX:
    """A shape of about so many MB (of 10^6 bytes), in whole chunks of 128 voxels."""
    voxels = megabytes * 1e6 / itemsize
    edge = next(n for n in (1024, 512, 256, 128) if n == 128 or voxels >= n * n * n / 3)
    depth = max(1, round(voxels / (edge * edge) / 128)) * 128
    return (depth, edge, edge)
