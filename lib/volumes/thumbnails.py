"""The picture inside an OME-Zarr, as the Zarr convention "thumbnails" has it.

NGFF 0.5 knows no thumbnail. The convention (a proposal, version 1, read by viewers of OME-Zarr
today) lists pictures in the attributes of a group; one lies below the group as a plain object,
which Zarr readers leave alone. https://github.com/clbarnes/zarr-convention-thumbnails
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib.volumes.statistics import Statistics

THUMBNAIL_KEY = "thumbnails/xy.jpg"

Draw = Callable[[str, dict[str, Any], Statistics], tuple[bytes, int, int] | None]
"""Draws a volume whose shards are in the store: from its key, its root document and the statistics
of its voxels to a JPEG, its width and height in pixels; None where it cannot be drawn."""

_SPEC = "https://github.com/zarr-conventions/thumbnails/blob/v1/README.md"
_SCHEMA = "https://raw.githubusercontent.com/zarr-conventions/thumbnails/refs/tags/v1/schema.json"
_CONVENTION = {
    "uuid": "49326c01-1180-4743-b15f-f7157038a6ab",
    "name": "thumbnails",
    "spec_url": _SPEC,
    "schema_url": _SCHEMA,
}


def attributes(width: int, height: int) -> dict[str, Any]:
    """What a group says of its thumbnail.

    Both ``uri`` (the proposal now) and ``path`` (what its first readers look for) name it.
    """
    return {
        "zarr_conventions": [_CONVENTION],
        "thumbnails": [
            {
                "width": width,
                "height": height,
                "media_type": "image/jpeg",
                "uri": THUMBNAIL_KEY,
                "path": THUMBNAIL_KEY,
                "description": "Middle xy plane",
            }
        ],
    }
