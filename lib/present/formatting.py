"""Numbers as people read them; and pictures carried inside a page, which is then whole."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

_UNKNOWN = "unknown"


def size_text(count: float | None) -> str:
    """Bytes in decimal units, as disks and downloads are counted: ``3.21 GB``."""
    if count is None:
        return _UNKNOWN
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 999.5 * 1000 ** (power - 1):
            return f"{_three(count / 1000**power)} {unit}"
    return f"{count:.0f} B"


def rate_text(per_second: float | None) -> str:
    """Bytes in a second: ``12.3 MB/s``."""
    return _UNKNOWN if per_second is None else f"{size_text(per_second)}/s"


def duration_text(seconds: float | None) -> str:
    """``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds is None or not math.isfinite(seconds):
        return _UNKNOWN
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def shape_text(shape: Sequence[int] | None) -> str:
    """``24 × 400 × 400``."""
    return " × ".join(str(n) for n in shape) if shape else _UNKNOWN


def voxel_text(
    voxel_nm_zyx: Sequence[float] | None, assumed_axes: str = "", digits: int = 6
) -> str:
    """``8 nm`` where all sides are alike, else ``50 × 10 × 10 nm``, or ``? × 10 × 10 nm``."""
    if not voxel_nm_zyx or len(assumed_axes) == len(voxel_nm_zyx):
        return _UNKNOWN
    if len({*voxel_nm_zyx}) == 1 and not assumed_axes:
        return f"{voxel_nm_zyx[0]:.{digits}g} nm"
    return lengths_text(voxel_nm_zyx, assumed_axes, " × ", digits) + " nm"


def lengths_text(
    lengths_zyx: Sequence[float], assumed_axes: str, between: str, digits: int = 6
) -> str:
    """``? x 12.33 x 12.33``: a length that nobody states is not shown as a measurement."""
    lengths = zip("zyx", lengths_zyx, strict=True)
    return between.join("?" if axis in assumed_axes else f"{v:.{digits}g}" for axis, v in lengths)


def _three(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def picture_data_uri(png: bytes, width: int) -> tuple[str, tuple[int, int]] | None:
    """A ``data:`` address of a picture, made small enough to be carried in a page.

    Parameters
    ----------
    png
        A preview as `lib.present.preview.render_preview` draws it.
    width
        Pixels, at most; the height follows.

    Returns
    -------
    Address, and width and height in pixels; None where `png` is no picture.
    """
    from PIL import Image  # for pages only: what is printed does not wait for it

    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            image.thumbnail((width, 4 * width))
            data = io.BytesIO()
            image.convert("RGB").save(data, "JPEG", quality=82, optimize=True)
            size = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode(), size
