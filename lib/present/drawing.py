"""What pictures are drawn with: contrast from percentiles, a colour for every label, text.

Text is written with Pillow and the font that comes inside it (Aileron), which has no micro sign: it
is drawn here.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

from lib.volumes.label_ids import colour_of
from lib.volumes.statistics import Statistics, of_chunk

Colour = tuple[int, int, int]


class Point(NamedTuple):
    """Pixels from the upper left corner."""

    x: float
    y: float


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes inside Pillow."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> float:
    """Pixels that `text` is wide."""
    return font(size).getlength(_plain(text))


def fitted(text: str, size: int, width: float) -> str:
    """Cut `text` in its middle so that it fits."""
    if text_width(text, size) <= width:
        return text
    keep = len(text)
    while keep > 4:
        keep -= 1
        short = text[: keep - keep // 2] + "..." + text[len(text) - keep // 2 :]
        if text_width(short, size) <= width:
            return short
    return text[:4]


def write(
    draw: ImageDraw.ImageDraw, at: Point, text: str, size: int, fill: Colour, outline: int = 0
) -> None:
    """Write one line whose upper left corner is `at`; `outline` pixels of black go around it."""
    face, plain = font(size), _plain(text)
    black = (0, 0, 0)
    draw.text(at, plain, fill, face, stroke_width=outline, stroke_fill=black)
    for index, letter in enumerate(text):
        if letter == "µ":  # the font's u, with its stem drawn down
            stem = at.x + face.getlength(plain[:index]) + size * 0.1
            foot = Point(stem, at.y + size * 1.18)
            width = max(1, round(size / 11))
            if outline:
                draw.line((stem, at.y + size * 0.9, *foot), black, width + 2 * outline)
            draw.line((stem, at.y + size * 0.55, *foot), fill, width)


def _plain(text: str) -> str:
    """`text` with what the font lacks replaced, letter for letter."""
    known = {"µ": "u", "×": "x", "–": "-", "—": "-", "’": "'"}
    return "".join(known.get(c, c if " " <= c <= "~" else "?") for c in text)


def round_length(at_most: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, ... that is not above `at_most`."""
    decade = 10.0 ** math.floor(math.log10(at_most))
    return max(step * decade for step in (1, 2, 5) if step * decade <= at_most * (1 + 1e-9))


def length_text(nanometres: float) -> str:
    """``200 nm``, ``5 µm``, ``1 mm``: the unit that keeps the number between 1 and 1000."""
    for factor, unit in ((1e6, "mm"), (1e3, "µm"), (1.0, "nm")):
        if nanometres >= factor:
            return f"{nanometres / factor:.4g} {unit}"
    return f"{nanometres:.3g} nm"


# --- from voxels to pixels ------------------------------------------------------------------

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
    palette = np.array([colour_of(int(label)) for label in ids], np.uint8).reshape(-1, 3)
    return palette[where.reshape(plane.shape)]
