"""How Jupyter shows a volume: its preview, and the facts beside it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from lib.errors import MacroscopeError
from lib.present.formatting import picture_data_uri
from lib.present.preview import preview_key

if TYPE_CHECKING:
    from lib.storage.base import Store
    from macroscope._open import OpenVolume

_WIDTH = 720


def volume_html(volume: OpenVolume, store: Store, key: str) -> str:
    """A fragment of HTML; every text of an archive is escaped."""
    core = ((volume.record or {}).get("metadata") or {}).get("core") or {}
    rows = [
        ("shape z, y, x", " × ".join(map(str, volume.shape))),
        ("dtype", volume.dtype.name),
        ("voxel nm", ", ".join(f"{a} {v:g}" for a, v in volume.voxel_size_nm.items())),
        ("levels", str(len(volume.levels))),
        ("licence", core.get("licence")),
        ("cite", core.get("citation") or core.get("doi")),
        ("at", volume.address),
    ]
    cells = "".join(
        f"<tr><th style='text-align:left'>{name}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in rows
        if value
    )
    title = escape(str(core.get("title") or volume.name))
    return f"<div><strong>{title}</strong><br>{_picture(store, key)}<table>{cells}</table></div>"


def _picture(store: Store, key: str) -> str:
    try:
        found = picture_data_uri(store.get(preview_key(key)), _WIDTH)
    except MacroscopeError:
        return ""
    if found is None:
        return ""
    address, (width, height) = found
    return f"<img src='{address}' width='{width}' height='{height}' alt='three middle planes'>"
