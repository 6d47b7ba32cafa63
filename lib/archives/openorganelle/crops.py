"""Ground-truth crops with the EM around them: which level of the EM, and which part of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lib.archives.pairs import Grid, OnGrid, overlap_of, voxels_of
from lib.errors import GridMismatchError
from lib.geometry import Box, add, maximum, minimum, subtract, zyx


def fitting_level(levels: Sequence[Grid], labels: Sequence[OnGrid]) -> Grid:
    """The level of the EM on whose grid all labels of a crop lie, the nearest in voxel size.

    Ground truth is drawn at the EM's own voxel, or at a half or another whole share of it, with the
    edges of both on each other; a level of another grid is passed over.

    Raises
    ------
    GridMismatchError
        There is none; the error is that of the nearest level.
    """
    first: GridMismatchError | None = None
    for level in sorted(levels, key=lambda one: _unlike(one, labels[0])):
        try:
            for one in labels:
                overlap_of(level, one)
        except GridMismatchError as error:
            first = first or error
            continue
        return level
    raise first or GridMismatchError("the EM has no level")


def box_around(em: Grid, labels: Sequence[OnGrid], padding: int) -> Box:
    """The part of an EM level that holds all labels, and so many of its voxels on each side.

    What lies outside of the EM is left out.
    """
    overlaps = [overlap_of(em, one) for one in labels]
    start = zyx(min(one.start_nm_zyx[n] for one in overlaps) for n in range(3))
    stop = zyx(max(one.stop_nm_zyx[n] for one in overlaps) for n in range(3))
    inside, margin = voxels_of(em, start, stop), (padding,) * 3
    return Box(
        maximum(subtract(inside.start_zyx, margin), (0, 0, 0)),
        minimum(add(inside.stop_zyx, margin), em.shape_zyx),
    )


def _unlike(level: OnGrid, labels: OnGrid) -> float:
    lengths = zip(level.voxel_nm_zyx, labels.voxel_nm_zyx, strict=True)
    return sum(abs(math.log(a / b)) for a, b in lengths)
