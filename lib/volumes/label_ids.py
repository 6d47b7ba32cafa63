"""Which ids there are in a label volume: exact, mergeable, and held level against level.

Ids come in runs along x, so that the first voxel of each run is all that has to be looked at.
"""

from __future__ import annotations

import base64
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import IntegrityError
from lib.volumes import kernels

MOST_IDS = 2**20
"""Different ids that are held in memory, and packed into a ledger, for one part or level; of more
nothing is said."""

MOST_COLOURS = 256
"""Ids that a record names, and NGFF's ``image-label`` gives a colour each. Of more none is named:
viewers hide ids that a list of colours leaves out."""

Ids = NDArray[Any] | None
"""Different ids, ascending; None for too many."""


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """What is said of the ids of a finished label volume.

    Attributes
    ----------
    background
        Voxels of the finest level that are 0; None where some of it was not counted.
    ids_of_levels
        Different ids other than 0 of each level, finest first; None for too many.
    values
        The ids of the finest level, ascending, 0 included; empty for more than `MOST_COLOURS`.
    """

    background: int | None
    ids_of_levels: tuple[int | None, ...]
    values: tuple[int, ...] = ()


def ids_of(voxels: NDArray[Any]) -> Ids:
    """The different ids of some voxels."""
    return _few(np.unique(kernels.run_starts(np.ascontiguousarray(voxels).reshape(-1))))


def merged(parts: Sequence[Ids]) -> Ids:
    """The different ids of several parts."""
    if not parts or any(part is None for part in parts):
        return None
    return _few(np.unique(np.concatenate([part for part in parts if part is not None])))


def require_among(coarse: Ids, finer: Ids, level: int, location: str) -> None:
    """Raise `IntegrityError` where a level holds an id that the finer one does not have."""
    if coarse is None or finer is None:
        return
    made = coarse[~np.isin(coarse, finer, assume_unique=True)]
    if made.size:
        raise IntegrityError(
            f"level {level} holds {made.size} ids that the finer level does not have, such as "
            f"{made[0]}",
            location=location,
            advice="Report this: the volume was not published",
        )


def count_ids(ids: Ids) -> int | None:
    """How many ids other than 0."""
    return None if ids is None else int(ids.size) - int(np.count_nonzero(ids == 0))


def values_of(ids: Ids) -> tuple[int, ...]:
    """The ids one by one, where they are few."""
    return () if ids is None or ids.size > MOST_COLOURS else tuple(int(one) for one in ids)


def colour_of(label: int) -> tuple[int, int, int]:
    """Red, green and blue of an id, 0 to 255: the same in every picture and document; 0 is black.

    Steps of the golden ratio around the colour circle keep consecutive numbers far apart.
    """
    if label == 0:
        return (0, 0, 0)
    hue = (label * 0.6180339887498949) % 1.0
    mixed = (label * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 32
    strength, value = 0.55 + (mixed & 0xFF) / 255 * 0.35, 0.70 + (mixed >> 8 & 0xFF) / 255 * 0.30
    channels = []
    for turn in (5, 3, 1):  # HSV to RGB
        k = (turn + hue * 6) % 6
        channels.append(round(255 * (value - value * strength * max(0.0, min(k, 4 - k, 1.0)))))
    return (channels[0], channels[1], channels[2])


def pack(ids: Ids) -> str | None:
    """Ids as a short text: the steps between them, compressed."""
    if ids is None:
        return None
    unsigned = ids.astype("<i8" if ids.dtype.kind == "i" else "<u8").view("<u8")
    steps = np.diff(unsigned, prepend=np.uint64(0))  # modulo 2^64, as the sum is that undoes it
    return base64.b64encode(zlib.compress(steps.astype("<u8").tobytes(), 1)).decode()


def unpack(text: str | None, dtype: np.dtype[Any]) -> Ids:
    """Inverse of `pack`."""
    if text is None:
        return None
    steps = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u8")
    whole = np.cumsum(steps, dtype=np.uint64)
    return whole.view("<i8" if dtype.kind == "i" else "<u8").astype(dtype)


class IdsAccumulator:
    """The ids of one shard, from many threads; and how many of its voxels are 0."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: list[Ids] = []
        self._background = 0

    def add(self, voxels: NDArray[Any]) -> None:
        """Add the voxels of one chunk, without its padding."""
        ids, background = ids_of(voxels), int(voxels.size - np.count_nonzero(voxels))
        with self._lock:
            self._parts.append(ids)
            self._background += background
            if len(self._parts) > 64:
                self._parts = [merged(self._parts)]

    def result(self) -> tuple[Ids, int]:
        """The different ids, and the voxels that are 0."""
        return merged(self._parts), self._background


def _few(ids: NDArray[Any]) -> Ids:
    return ids if ids.size <= MOST_IDS else None
