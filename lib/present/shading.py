"""From voxels to pixels: contrast from percentiles, and a colour for every label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.volumes.statistics import Statistics, of_chunk

LOW_PERCENT, HIGH_PERCENT = 0.5, 99.5


def window_of(statistics: Statistics) -> tuple[float, float]:
    """The display window of an image: its 0.5th and 99.5th percentile, or its whole range."""
    low = statistics.percentile(LOW_PERCENT) or 0.0
    high = statistics.percentile(HIGH_PERCENT) or 0.0
    if high <= low:
        low = float(statistics.minimum or 0.0)
        high = max(float(statistics.maximum or 0.0), low + 1.0)
    return low, high


def measured(values: NDArray[Any]) -> Statistics:
    """Statistics of some voxels, whatever their dtype."""
    if values.dtype.kind in "iu" and values.dtype.itemsize < 4:
        values = values.astype(np.int32)
    if values.dtype == np.uint64 or values.dtype.itemsize == 2:  # float16 included
        values = values.astype(np.float64)
    return of_chunk(values)


def grey(plane: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Map the window to 0..255; what is not a number becomes black.

    Parameters
    ----------
    plane
        Any real dtype, any shape.

    Returns
    -------
    ``uint8``, same shape.
    """
    low, high = window
    scaled = (plane.astype(np.float64) - low) * (255.0 / (high - low))
    return np.nan_to_num(np.clip(scaled, 0, 255), nan=0.0).round().astype(np.uint8)


def colours(plane: NDArray[Any]) -> NDArray[np.uint8]:
    """Give each label a colour of its own, the same in every picture; 0 is black.

    Returns
    -------
    ``uint8``, shape ``(*plane.shape, 3)``.
    """
    ids, where = np.unique(plane, return_inverse=True)
    palette = np.array([_colour(int(label)) for label in ids], np.uint8).reshape(-1, 3)
    return palette[where.reshape(plane.shape)]


def _colour(label: int) -> tuple[int, int, int]:
    if label == 0:
        return (0, 0, 0)
    # steps of the golden ratio around the colour circle keep consecutive numbers far apart
    hue = (label * 0.6180339887498949) % 1.0
    mixed = (label * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 32
    strength, value = 0.55 + (mixed & 0xFF) / 255 * 0.35, 0.70 + (mixed >> 8 & 0xFF) / 255 * 0.30
    channels = []
    for turn in (5, 3, 1):  # HSV to RGB
        k = (turn + hue * 6) % 6
        channels.append(round(255 * (value - value * strength * max(0.0, min(k, 4 - k, 1.0)))))
    return (channels[0], channels[1], channels[2])
