"""A volume as a map-style data set of patches, as ``torch.utils.data.DataLoader`` takes it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

import macroscope


class Patches:
    """Every whole patch of one level, in the order z, y, x.

    Each worker of a loader opens the volume by itself, at its first patch.

    Parameters
    ----------
    place
        As `macroscope.open` takes it.
    patch_zyx
        Voxels of a patch.
    level
        0 is the finest.
    transform
        Applied to each patch, for example ``torch.from_numpy``.
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        patch_zyx: tuple[int, int, int],
        *,
        level: int = 0,
        data_dir: str | os.PathLike[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self._place, self._data_dir, self._index = place, data_dir, level
        self._patch, self._transform = patch_zyx, transform
        self._level: Any = None
        shape = self._open().shape
        counts = [n // size for n, size in zip(shape, patch_zyx, strict=True)]
        self._corners = list(itertools.product(*map(range, counts)))

    def __len__(self) -> int:
        return len(self._corners)

    def __getitem__(self, index: int) -> Any:
        """One patch, (1, z, y, x): a channel before the axes."""
        corner = self._corners[index]
        starts = [i * size for i, size in zip(corner, self._patch, strict=True)]
        part = tuple(slice(a, a + size) for a, size in zip(starts, self._patch, strict=True))
        patch = np.ascontiguousarray(self._open()[part])[np.newaxis]
        return self._transform(patch) if self._transform else patch

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_level": None}

    def _open(self) -> Any:
        if self._level is None:
            self._level = macroscope.open(self._place, data_dir=self._data_dir).levels[self._index]
        return self._level
