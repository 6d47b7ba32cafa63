"""How far each volume is, for whoever wants to watch, and what a source's run came to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from lib.geometry import LengthsZYX, ShapeZYX
from lib.ingest.costs import VolumeCost
from lib.present.formatting import duration_text, size_text


class VolumeResult(BaseModel):
    """One volume of a run, for the summary table."""

    model_config = ConfigDict(frozen=True)

    name: str
    source_id: str
    status: str  # complete, failed, cancelled, skipped, planned
    shape_zyx: ShapeZYX
    voxel_nm_zyx: LengthsZYX
    assumed_axes: str = ""  # of ``zyx``, those whose length nobody states
    stored_bytes: int = 0
    seconds: float = 0.0
    made: bool = True  # False: it was complete already
    repaired_files: int = 0  # of a complete volume that was damaged: what was made anew of it
    metadata_path: str | None = None
    error: str | None = None
    store_requests: dict[str, int] = Field(default_factory=dict)  # to the destination, by kind


class ProcessingResult(BaseModel):
    """What one source's flow returns.

    Attributes
    ----------
    files_processed
        Volumes that are complete, those recognised from an earlier run included.
    metadata_paths
        Address of each volume's record.
    errors
        One sentence for each volume that failed, or for the source itself.
    total_size_bytes
        Bytes of the complete volumes as stored.
    """

    model_config = ConfigDict(frozen=True)

    success: bool
    source: str
    source_id: str
    files_processed: int = 0
    metadata_paths: list[str] = Field(default_factory=list)
    errors: list[str] = Field(default_factory=list)
    processing_time_seconds: float = 0.0
    total_size_bytes: int = 0
    volumes: list[VolumeResult] = Field(default_factory=list)
    plan: list[VolumeCost] = Field(default_factory=list)
    dataset: str | None = None  # of a run of many: what people call it
    group: str | None = None

    @property
    def label(self) -> str:
        """What people call it: the dataset, else the source."""
        return self.dataset or self.source

    def in_words(self) -> str:
        """One line for people: ``1 complete, 270 kB, 7.1 s``."""
        found = Counter(volume.status for volume in self.volumes)
        parts = [f"{count} {status}" for status, count in sorted(found.items())] or ["no volume"]
        if self.total_size_bytes:
            parts.append(size_text(self.total_size_bytes))
        return ", ".join([*parts, duration_text(self.processing_time_seconds)])


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One volume at one moment. Bytes are those received from the archive.

    ``total_shards`` is 0 while files are fetched, before the grid is known.
    """

    volume: str
    done_shards: int
    total_shards: int
    received_bytes: int
    expected_bytes: int


ProgressListener = Callable[[ProgressEvent], None]

_listeners: list[ProgressListener] = []
_guard = threading.Lock()


@contextmanager
def subscribe(
    listener: ProgressListener,
    look: Callable[[], Iterable[ProgressEvent]] | None = None,
    *,
    every_s: float = 1.0,
) -> Iterator[None]:
    """Tell `listener` of every finished shard of this process; called from worker threads.

    Parameters
    ----------
    look
        Where the volumes of this process are now: asked every `every_s` seconds, because bytes come
        long before the shard that they belong to is done.
    """
    over = threading.Event()

    def ask() -> None:
        while look is not None and not over.wait(every_s):
            for event in look():
                listener(event)

    ticker = threading.Thread(target=ask, name="progress", daemon=True)
    with _guard:
        _listeners.append(listener)
    ticker.start()
    try:
        yield
    finally:
        over.set()
        ticker.join()
        with _guard:
            _listeners.remove(listener)


def emit(event: ProgressEvent) -> None:
    """Pass an event on. Listeners bound their own rate."""
    with _guard:
        listeners = list(_listeners)
    for listener in listeners:
        listener(event)
