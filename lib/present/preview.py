"""A picture of a finished volume: its three orthogonal middle planes, drawn to one scale.

The planes stand as in an engineering drawing: xy at the upper left, yz to its right with the same
y, xz below it with the same x. A scale bar, named axes, the display window and a histogram go with
them, so that a person can judge size, contrast and anisotropy at a glance.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lib.geometry import LengthsZYX
from lib.present.described import DescribedVolume, beside, describe
from lib.present.drawing import (
    Colour,
    Point,
    colours,
    fitted,
    grey,
    length_text,
    measured,
    round_length,
    text_width,
    window_of,
    write,
)
from lib.present.formatting import voxel_text
from lib.present.planes import Planes, planes_beneath, read_planes
from lib.storage.base import Store
from lib.storage.keys import image_of
from lib.volumes.statistics import Statistics

PREVIEW_SUFFIX = ".preview.png"
THUMBNAIL = 192
"""Pixels of the longer side: the Zarr convention "thumbnails" asks for 128 to 512."""

_SIDE = 620  # longest side of the three planes together, pixels
_LEAST_WIDTH = 480
_MARGIN, _GAP, _FOOT, _HEAD = 26, 34, 140, 68
_TITLE, _TEXT, _BAR = 20, 15, 19  # heights of letters
_PAPER, _INK, _FAINT = (16, 20, 26), (240, 243, 246), (152, 163, 175)
_AXIS: dict[str, Colour] = {"x": (255, 123, 114), "y": (126, 231, 135), "z": (121, 192, 255)}


@dataclass(frozen=True, slots=True)
class _Panel:
    """One plane on the page: where, how large, and which axes run to the right and down."""

    picture: Image.Image
    at: Point
    across: str
    down: str


def preview_key(volume_key: str) -> str:
    """Where a volume's preview lies: ``ebi/a.ome.zarr`` -> ``ebi/a.preview.png``."""
    return beside(volume_key, PREVIEW_SUFFIX)


def render_preview(
    store: Store,
    volume_key: str,
    *,
    statistics: Statistics | None = None,
    voxel_nm_zyx: LengthsZYX | None = None,
    assumed_axes: str = "",
    title: str | None = None,
) -> bytes:
    """Draw a finished volume.

    Parameters
    ----------
    volume_key
        ``<source>/<name>.ome.zarr`` or ``.npy``.
    statistics
        Of the whole volume, for contrast and histogram. Without them the stored display window is
        used, or what the three planes hold.
    voxel_nm_zyx
        Nanometres, for a ``.npy`` whose record is not written yet.
    assumed_axes
        Of ``zyx``, those whose length nobody states: it is not drawn as a measurement.
    title
        Heading; the volume's name by default.

    Returns
    -------
    bytes
        A PNG about 700 pixels wide, the same for the same volume.

    Raises
    ------
    NotFoundError, IntegrityError, UnsupportedFormatError, DestinationError
        See `lib.present.described.describe` and `lib.present.planes.read_planes`.
    """
    volume = _with_voxel(describe(store, volume_key), voxel_nm_zyx)
    planes = read_planes(store, volume)
    beneath = planes_beneath(store, volume, planes, image_of(volume_key))
    return draw_preview(
        volume,
        planes,
        statistics=statistics,
        title=title,
        beneath=beneath,
        assumed_axes=assumed_axes,
    )


def draw_preview(
    volume: DescribedVolume,
    planes: Planes,
    *,
    statistics: Statistics | None,
    title: str | None,
    beneath: Planes | None = None,
    assumed_axes: str = "",
) -> bytes:
    """`render_preview` of planes that are at hand.

    Parameters
    ----------
    beneath
        Of labels: the same planes of their image, uint8.
    """
    shown = statistics if statistics and statistics.finite else measured(planes.values())
    window = window_of(shown) if statistics or volume.window is None else volume.window
    pictures = _pictures(planes, volume.kind, window)
    if beneath is not None:
        under = _pictures(beneath, "image", (0.0, 255.0))
        pictures = {name: _over(picture, under[name]) for name, picture in pictures.items()}
    panels, width, height = _arrange(pictures, planes)
    page = Image.new("RGB", (max(width, _LEAST_WIDTH), height + _FOOT), _PAPER)
    draw = ImageDraw.Draw(page)
    room = page.width - 2 * _MARGIN
    write(draw, Point(_MARGIN, 9), fitted(title or volume.name, _TITLE, room), _TITLE, _INK)
    shape = " × ".join(str(n) for n in volume.shape_zyx)
    facts = [f"{shape} voxels (z, y, x)", volume.dtype.name]
    if volume.voxel_nm_zyx is None or assumed_axes == "zyx":
        facts.append("voxel size unknown")
    else:
        facts.append(voxel_text(volume.voxel_nm_zyx, assumed_axes, 4))
    write(draw, Point(_MARGIN, 38), fitted(", ".join(facts), _TEXT, room), _TEXT, _FAINT)
    for panel in panels:
        page.paste(panel.picture, (round(panel.at.x), round(panel.at.y)))
        _frame(draw, panel)
    known = volume.voxel_nm_zyx is not None and "x" not in assumed_axes
    _scale_bar(draw, panels[0], planes.extent_nm_zyx, known=known)
    if volume.kind == "labels":
        _label_facts(draw, Point(_MARGIN, height), planes)
    else:
        whole = statistics is not None and shown is statistics
        _histogram(draw, Point(_MARGIN, height), page.width - 2 * _MARGIN, shown, window, whole)
    data = io.BytesIO()
    page.save(data, "PNG", compress_level=3)  # a tenth smaller here than 9, in a sixth of its time
    return data.getvalue()


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A JPEG and its size in pixels."""

    jpeg: bytes
    width: int
    height: int


def draw_thumbnail(
    volume: DescribedVolume, planes: Planes, *, statistics: Statistics | None = None
) -> Thumbnail:
    """The middle xy plane alone, `THUMBNAIL` pixels on its longer side; the same each time."""
    whole = statistics if statistics and statistics.finite else None
    window = window_of(whole) if whole else volume.window or window_of(measured(planes.values()))
    picture = _pictures(planes, volume.kind, window)["xy"]
    _, y, x = planes.extent_nm_zyx
    scale = THUMBNAIL / max(y, x)
    small = _resized(picture, (x * scale, y * scale))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=75, optimize=True)
    return Thumbnail(data.getvalue(), small.width, small.height)


def _with_voxel(volume: DescribedVolume, voxel: LengthsZYX | None) -> DescribedVolume:
    if voxel is None or volume.levels:
        return volume
    return DescribedVolume(
        volume.key, volume.kind, volume.dtype, volume.shape_zyx, voxel, npy_offset=volume.npy_offset
    )


def _over(labels: Image.Image, image: Image.Image) -> Image.Image:
    """Colours of labels over the grey that they belong to; background lets it through."""
    shown, grey_ = np.asarray(labels), np.asarray(image.convert("RGB"))
    mixed = np.where(shown.any(axis=2, keepdims=True), (shown // 2 + grey_ // 2), grey_)
    both = Image.fromarray(mixed.astype(np.uint8))
    both.info["nearest"] = True
    return both


def _pictures(planes: Planes, kind: str, window: tuple[float, float]) -> dict[str, Image.Image]:
    def picture(plane: NDArray[Any]) -> Image.Image:
        if kind == "labels":
            image = Image.fromarray(colours(plane))
            image.info["nearest"] = True
            return image
        return Image.fromarray(grey(plane, window))

    # yz is drawn with z to the right, so that its y runs beside that of xy
    return {
        "xy": picture(planes.xy),
        "yz": picture(np.ascontiguousarray(planes.yz.T)),
        "xz": picture(planes.xz),
    }


def _resized(picture: Image.Image, size: tuple[float, float]) -> Image.Image:
    whole = (max(1, round(size[0])), max(1, round(size[1])))
    how = Image.Resampling.NEAREST if "nearest" in picture.info else Image.Resampling.LANCZOS
    return picture.resize(whole, how)


def _arrange(pictures: dict[str, Image.Image], planes: Planes) -> tuple[list[_Panel], int, int]:
    """Place the planes to one scale; returns them with the page's width and their lower edge."""
    z, y, x = planes.extent_nm_zyx
    deep = planes.xz.shape[0] > 1
    scale = _SIDE / max(x + (z if deep else 0), y + (z if deep else 0))
    wide, high, thick = max(1.0, x * scale), max(1.0, y * scale), max(1.0, z * scale)
    first = Point(_MARGIN, _HEAD)
    panels = [_Panel(_resized(pictures["xy"], (wide, high)), first, "x", "y")]
    if not deep:
        return panels, round(wide) + 2 * _MARGIN, round(_HEAD + high) + _GAP
    right = Point(first.x + round(wide) + _GAP, first.y)
    below = Point(first.x, first.y + round(high) + _GAP)
    panels.append(_Panel(_resized(pictures["yz"], (thick, high)), right, "z", "y"))
    panels.append(_Panel(_resized(pictures["xz"], (wide, thick)), below, "x", "z"))
    width = right.x + max(round(thick), 20) + _MARGIN
    return panels, round(width), round(below.y + thick) + _GAP


def _frame(draw: ImageDraw.ImageDraw, panel: _Panel) -> None:
    """An arrow along each axis, outside the picture, with the axis's name at its tip."""
    left, top = panel.at
    right, bottom = left + panel.picture.width, top + panel.picture.height
    draw.rectangle((left - 1, top - 1, right, bottom), outline=(60, 68, 78))
    for name, start, along in (
        (panel.across, Point(left, bottom + 6), Point(1, 0)),
        (panel.down, Point(left - 7, top), Point(0, 1)),
    ):
        length = max(0, min(34, (right - left) * along.x + (bottom - top) * along.y - 14))
        tip = Point(start.x + length * along.x, start.y + length * along.y)
        colour = _AXIS[name]
        if length >= 8:
            side = Point(4 * along.y, 4 * along.x)
            back = Point(tip.x - 6 * along.x, tip.y - 6 * along.y)
            draw.line((*start, *tip), colour, 2)
            draw.polygon(
                [tip, (back.x + side.x, back.y + side.y), (back.x - side.x, back.y - side.y)],
                colour,
            )
            at = Point(tip.x + 5, tip.y - 9) if along.x else Point(tip.x - 5, tip.y)
        else:
            at = Point(start.x, start.y - 2) if along.x else Point(start.x - 6, start.y - 3)
        write(draw, at, name, _TEXT + 1, colour)


def _scale_bar(
    draw: ImageDraw.ImageDraw, panel: _Panel, extent_nm_zyx: LengthsZYX, *, known: bool
) -> None:
    """A bar of a round length, at most a third of the xy plane's width."""
    width, height = panel.picture.size
    per_pixel = extent_nm_zyx[2] / width
    length = round_length(per_pixel * width / 3)
    pixels = max(1.0, length / per_pixel)
    label = length_text(length) if known else f"{length:.4g} voxels"
    left, bottom = panel.at.x + 12, panel.at.y + height - 12
    draw.rectangle((left - 2, bottom - 7, left + pixels + 1, bottom + 2), fill=(0, 0, 0))
    draw.rectangle((left, bottom - 5, left + pixels - 1, bottom), fill=(255, 255, 255))
    at = Point(left + max(0, (pixels - text_width(label, _BAR)) / 2), bottom - 33)
    write(draw, at, label, _BAR, (255, 255, 255), outline=2)


def _histogram(
    draw: ImageDraw.ImageDraw,
    at: Point,
    width: float,
    statistics: Statistics,
    window: tuple[float, float],
    whole: bool,
) -> None:
    """Bars of the values, with the part that the picture's contrast covers drawn brighter."""
    height, bars = 62, round(min(width, 512) / 2)
    span = window[1] - window[0]
    low = max(float(statistics.minimum or 0), window[0] - span * 0.25)
    high = min(float(statistics.maximum or 0), window[1] + span * 0.25)
    high = max(high, low + 1e-9)
    histogram = statistics.histogram
    counts = np.asarray(histogram.counts, dtype=np.float64)
    below = np.concatenate(([0.0], np.cumsum(counts)))
    edges = (histogram.first + np.arange(counts.size + 1)) * histogram.width
    # dyadic bins of another width than the bars: differences of the cumulative curve
    grid = np.linspace(low, high + (histogram.width if whole else 0), bars + 1)
    shares = np.diff(np.interp(grid, edges, below))
    top = float(np.sqrt(shares.max())) if shares.size and shares.max() > 0 else 1.0
    step = width / bars
    heading = "Values of the volume" if whole else "Values of these planes"
    write(draw, Point(at.x, at.y + 4), heading, _TEXT, _FAINT)
    base = at.y + 24 + height
    for index, share in enumerate(shares):
        inside = window[0] <= grid[index] <= window[1]
        tall = float(np.sqrt(share)) / top * height
        left = at.x + index * step
        draw.rectangle(
            (left, base - tall, left + step, base), fill=(138, 180, 248) if inside else (70, 82, 98)
        )
    draw.line((at.x, base + 1, at.x + width, base + 1), _FAINT, 1)
    _window_marks(draw, Point(at.x, base), width, (low, float(grid[-1])), window)


def _window_marks(
    draw: ImageDraw.ImageDraw,
    at: Point,
    width: float,
    span: tuple[float, float],
    window: tuple[float, float],
) -> None:
    texts = (f"black {window[0]:.4g}", f"white {window[1]:.4g}")
    wide = [text_width(text, _TEXT) for text in texts]
    marks = [at.x + (v - span[0]) / (span[1] - span[0]) * width for v in window]
    first = min(max(at.x, marks[0] - wide[0] / 2), at.x + width - sum(wide) - 16)
    second = max(first + wide[0] + 16, min(marks[1] - wide[1] / 2, at.x + width - wide[1]))
    for mark in marks:
        if at.x <= mark <= at.x + width:
            draw.line((mark, at.y - 8, mark, at.y + 5), _INK, 1)
    for text, left in zip(texts, (first, second), strict=True):
        write(draw, Point(left, at.y + 7), text, _TEXT, _INK)


def _label_facts(draw: ImageDraw.ImageDraw, at: Point, planes: Planes) -> None:
    values = planes.values()
    ids = np.unique(values)
    labels, background = int((ids != 0).sum()), float((values == 0).mean())
    lines = (
        f"{labels} labels in these planes, each with its own colour",
        f"{background:.1%} of them is background (0)",
    )
    for index, line in enumerate(lines):
        write(draw, Point(at.x, at.y + 6 + 22 * index), line, _TEXT, _FAINT)
