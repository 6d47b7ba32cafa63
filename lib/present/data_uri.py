"""Pictures carried inside a page, so that the page needs nothing beside it."""

from __future__ import annotations

import base64
import io

from PIL import Image


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
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            image.thumbnail((width, 4 * width))
            data = io.BytesIO()
            image.convert("RGB").save(data, "JPEG", quality=82, optimize=True)
            size = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode(), size
