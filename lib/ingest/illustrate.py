"""The picture beside a published volume. What cannot be drawn is a note, never a failed volume."""

from __future__ import annotations

from lib.errors import MacroscopeError, StoppedError
from lib.ingest.order import WorkOrder
from lib.ingest.workplace import workplace
from lib.present.inline import inline_picture
from lib.present.preview import preview_key, render_preview
from lib.records import Record
from lib.storage.base import Store
from lib.volumes.finish import Finished


def illustrate(order: WorkOrder, finished: Finished) -> tuple[str | None, tuple[str, ...]]:
    """Draw the three middle planes and store them beside the volume.

    Returns
    -------
    The picture's key, or None and a note that says why there is none.
    """
    store, plan = workplace(order).store, order.plan
    try:
        picture = render_preview(
            store,
            finished.volume_key,
            statistics=finished.statistics,
            voxel_nm_zyx=plan.voxel_nm_zyx,
            title=plan.about.title or plan.source_id,
        )
        key = preview_key(finished.volume_key)
        store.put(key, picture)
    except StoppedError:
        raise  # the next run draws it
    except Exception as error:
        return None, (f"no preview could be drawn: {type(error).__name__}: {error}",)
    return key, ()


def stored_picture(store: Store, record: Record, width: int) -> str | None:
    """The picture of a complete volume as a ``data:`` address, for a page that shows its run."""
    key = record["files"].get("preview")
    try:
        found = inline_picture(store.get(key), width) if key else None
    except MacroscopeError:  # a picture is not worth a failed run
        return None
    return found[0] if found else None
