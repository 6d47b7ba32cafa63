"""The picture beside a published volume. What cannot be drawn is a note, never a failed volume."""

from __future__ import annotations

from lib.errors import StoppedError
from lib.ingest.order import WorkOrder
from lib.ingest.workplace import workplace
from lib.present.preview import preview_key, render_preview, thumbnail
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


def small_picture(order: WorkOrder, volume_key: str) -> bytes | None:
    """The middle plane as a small PNG for a run's page; None where it cannot be drawn."""
    try:
        return thumbnail(workplace(order).store, volume_key)
    except Exception:
        return None
