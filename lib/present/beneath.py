"""The image beneath its labels: the very planes that a picture of the labels shows, in grey.

Both lie on one grid, so the nearest voxel of the image is the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.geometry import Box, zyx
from lib.present.described import DescribedLevel, DescribedVolume, describe
from lib.present.drawing import grey, measured, window_of
from lib.present.planes import AXES, Planes
from lib.storage.base import Store


def planes_beneath(
    store: Store, labels: DescribedVolume, planes: Planes, key: str | None
) -> Planes | None:
    """The image's planes, uint8, of the shapes of `planes`; None where labels have no image.

    What the image does not have is black.

    Parameters
    ----------
    key
        Of the image, if there is one.

    Raises
    ------
    NotFoundError, IntegrityError, UnsupportedFormatError
        The image cannot be read.
    """
    if key is None or not labels.levels:
        return None
    image, level = describe(store, key), labels.levels[planes.level]
    near = min(image.levels, key=lambda one: _unlike(one, level))
    places = [_nearest(n, level, near) for n in range(3)]
    found = {}
    for name, axis in AXES.items():
        middle = level.grid.shape_zyx[axis] // 2
        chosen = [at[middle : middle + 1] if n == axis else at for n, at in enumerate(places)]
        found[name] = _read(store, image, near, chosen).squeeze(axis)
    values = np.concatenate([plane.reshape(-1) for plane in found.values()])
    window = image.window or window_of(measured(values))
    xy, xz, yz = (grey(found[name], window) for name in ("xy", "xz", "yz"))
    return replace(planes, xy=xy, xz=xz, yz=yz)


def _unlike(image: DescribedLevel, labels: DescribedLevel) -> float:
    lengths = zip(image.scale_nm_zyx, labels.scale_nm_zyx, strict=True)
    return float(sum(abs(np.log(a / b)) for a, b in lengths))


def _nearest(axis: int, labels: DescribedLevel, image: DescribedLevel) -> NDArray[np.int64]:
    """For each voxel of the labels along an axis the image's; none of its own outside of it."""
    at = labels.translation_nm_zyx[axis] + labels.scale_nm_zyx[axis] * np.arange(
        labels.grid.shape_zyx[axis]
    )
    steps = (at - image.translation_nm_zyx[axis]) / image.scale_nm_zyx[axis]
    nearest: NDArray[np.int64] = np.floor(steps + 0.5).astype(np.int64)
    return nearest


def _read(
    store: Store,
    image: DescribedVolume,
    level: DescribedLevel,
    places: Sequence[NDArray[np.int64]],
) -> NDArray[Any]:
    """The image's voxels at some places along each axis; 0 where there is none."""
    inside = [(at >= 0) & (at < n) for at, n in zip(places, level.grid.shape_zyx, strict=True)]
    voxels = np.zeros(tuple(len(at) for at in places), image.dtype)
    if not all(one.any() for one in inside):
        return voxels
    kept = [at[one] for at, one in zip(places, inside, strict=True)]
    box = Box(zyx(int(at.min()) for at in kept), zyx(int(at.max()) + 1 for at in kept))
    part = image.open_level(store, level).read(box)
    own = [at - start for at, start in zip(kept, box.start_zyx, strict=True)]
    voxels[np.ix_(*inside)] = part[np.ix_(*own)]
    return voxels
