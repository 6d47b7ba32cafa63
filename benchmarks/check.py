"""Every output of every contender is held against its source: a fast wrong copy wins nothing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.truth import volume
from emulators.tissue import TripleZYX

_BOXES = 16
_EDGE = 64


def check_output(output: Path, origin_zyx: TripleZYX) -> int:
    """Compare boxes of each volume below a folder with the voxels that they were made from.

    Returns
    -------
    int
        Volumes looked at; programs that copy files leave none.

    Raises
    ------
    RuntimeError
        A voxel differs.
    """
    found = 0
    for path in sorted(output.rglob("*")):
        if path.suffix == ".zarr":
            opened: Any = zarr.open(path, mode="r")
            array = opened["0"] if isinstance(opened, zarr.Group) else opened
        elif path.suffix == ".npy":
            array = np.load(path, mmap_mode="r")
        else:
            continue
        _compare(array, origin_zyx, path)
        found += 1
    return found


def _compare(array: Any, origin_zyx: TripleZYX, path: Path) -> None:
    truth, draw = volume(str(array.dtype)), random.Random(path.name)
    last = [max(0, n - _EDGE) for n in array.shape]
    corners = [tuple(last), *(tuple(draw.randint(0, n) for n in last) for _ in range(_BOXES - 1))]
    for z, y, x in corners:
        part = np.asarray(array[z : z + _EDGE, y : y + _EDGE, x : x + _EDGE])
        at = (origin_zyx[0] + z, origin_zyx[1] + y, origin_zyx[2] + x)
        if not np.array_equal(part, truth(at, part.shape)):
            raise RuntimeError(f"{path.name} differs from its source at {z}, {y}, {x}")
