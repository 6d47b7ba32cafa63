"""The pictures of a volume. What cannot be drawn is a note, never a failed volume."""

from __future__ import annotations

import hashlib
from typing import Any

from lib.errors import MacroscopeError, StoppedError
from lib.ingest.context import VolumeRequest, volume_context
from lib.present.described import describe_group
from lib.present.formatting import picture_data_uri
from lib.present.planes import planes_beneath, read_planes
from lib.present.preview import draw_preview, draw_thumbnail, preview_key, render_preview
from lib.records.lifecycle import RecordDict
from lib.storage.base import Store
from lib.volumes.finish import PublishedVolume
from lib.volumes.statistics import Statistics


class PreviewRenderer:
    """Draws one volume: its thumbnail before it is published, its preview afterwards.

    Both come from planes that are read once. `notes` say what could not be drawn.
    """

    def __init__(self, request: VolumeRequest) -> None:
        self._request, self._store = request, volume_context(request).store
        self._preview: bytes | None = None
        self.notes: tuple[str, ...] = ()

    def thumbnail(
        self, key: str, group: dict[str, Any], statistics: Statistics
    ) -> tuple[bytes, int, int] | None:
        """For `lib.volumes.finish.finish`."""
        try:
            volume = describe_group(self._store, key, group)
            planes = read_planes(self._store, volume)
            title = self._title
            beneath = planes_beneath(self._store, volume, planes, self._request.plan.within)
            self._preview = draw_preview(
                volume,
                planes,
                statistics=statistics,
                title=title,
                beneath=beneath,
                assumed_axes=self._request.plan.assumed_axes,
            )
            small = draw_thumbnail(volume, planes, statistics=statistics)
        except StoppedError:
            raise  # the next run draws it
        except Exception as error:
            self._note("thumbnail", error)
            return None
        return small.jpeg, small.width, small.height

    def preview(self, published: PublishedVolume) -> tuple[str, str] | None:
        """Store the picture beside a published volume; its key and sha256, or None without one."""
        key = preview_key(published.volume_key)
        try:
            picture = self._preview or render_preview(
                self._store,
                published.volume_key,
                statistics=published.statistics,
                voxel_nm_zyx=self._request.plan.voxel_nm_zyx,
                assumed_axes=self._request.plan.assumed_axes,
                title=self._title,
            )
            self._store.put(key, picture)
        except StoppedError:
            raise
        except Exception as error:
            self._note("preview", error)
            return None
        return key, hashlib.sha256(picture).hexdigest()

    @property
    def _title(self) -> str:
        return self._request.plan.about.title or self._request.plan.source_id

    def _note(self, what: str, error: Exception) -> None:
        self.notes += (f"no {what} could be drawn: {type(error).__name__}: {error}",)


def stored_picture(store: Store, record: RecordDict, width: int) -> str | None:
    """The picture of a complete volume as a ``data:`` address, for a page that shows its run."""
    key = record["files"].get("preview")
    try:
        found = picture_data_uri(store.get(key), width) if key else None
    except MacroscopeError:  # a picture is not worth a failed run
        return None
    return found[0] if found else None
