"""Shared by the unit tests of readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lib.geometry import Box
from lib.readers.base import VolumeReader

AssertVoxels = Callable[[VolumeReader, NDArray[Any]], None]


@pytest.fixture
def assert_voxels() -> AssertVoxels:
    """Compare a reader with the volume (z, y, x) it should give: whole, and in random boxes."""

    def compare(reader: VolumeReader, volume: NDArray[Any], boxes: int = 12) -> None:
        assert reader.shape_zyx == volume.shape
        assert reader.dtype == volume.dtype
        assert reader.dtype.isnative
        random = np.random.default_rng(20)
        whole = Box.whole(reader.shape_zyx)
        for number in range(boxes):
            box = whole if number == 0 else _random_box(random, reader)
            voxels = np.zeros(box.shape_zyx, reader.dtype)
            times = np.zeros(box.shape_zyx, np.uint8)
            for block in reader.blocks(box):
                assert block.data.shape == block.box.shape_zyx
                assert block.data.dtype == reader.dtype
                assert block.data.nbytes <= 16 * 2**20
                voxels[block.box.slices(box.start_zyx)] = block.data
                times[block.box.slices(box.start_zyx)] += 1
            assert np.all(times == 1), f"blocks do not tile {box}"
            np.testing.assert_array_equal(voxels, volume[box.slices()])

    return compare


def _random_box(random: np.random.Generator, reader: VolumeReader) -> Box:
    start, stop = [], []
    for size in reader.shape_zyx:
        a, b = sorted(random.choice(size + 1, 2, replace=False).tolist())
        start.append(a)
        stop.append(b)
    return Box(tuple(start), tuple(stop))  # type: ignore[arg-type]
