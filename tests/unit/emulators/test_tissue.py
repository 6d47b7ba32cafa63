"""Tissue is a function of coordinates: the same in every crop, process and dtype."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulators import catalogue
from emulators.documents import DVID_SIZE_XYZ
from emulators.tissue import RepeatedTissue, labels, pages, tissue
from lib.errors import ConfigError

EVERY_DTYPE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("voxel", [(8.0, 8.0, 8.0), (50.0, 8.0, 8.0), (2.96, 4.0, 4.0)])
@pytest.mark.parametrize("make", [tissue, labels])
def test_a_crop_equals_the_same_part_of_a_bigger_crop(make: Any, voxel: Any) -> None:
    big = make((37, 1001, 40003), (20, 50, 70), seed=5, voxel_nm_zyx=voxel)
    for oz, oy, ox in ((0, 0, 0), (3, 17, 29), (13, 41, 59)):
        small = make((37 + oz, 1001 + oy, 40003 + ox), (7, 9, 11), seed=5, voxel_nm_zyx=voxel)
        np.testing.assert_array_equal(small, big[oz : oz + 7, oy : oy + 9, ox : ox + 11])


def test_another_process_makes_the_same_tissue() -> None:
    code = (
        "from emulators.tissue import tissue; import zlib;"
        "print(zlib.crc32(tissue((9, 99, 999), (8, 40, 40), seed=4)))"
    )
    here = zlib.crc32(tissue((9, 99, 999), (8, 40, 40), seed=4).tobytes())
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert int(there.stdout) == here


def test_tissue_has_structure_and_never_says_no_data() -> None:
    voxels = tissue((0, 0, 0), (4, 200, 200), seed=1)
    assert voxels.min() > 0
    bodies = labels((0, 0, 0), (4, 200, 200), seed=1)
    membrane, inside = voxels[bodies == 0].mean(), voxels[bodies > 0].mean()
    assert inside - membrane > 40, "cells stand out from their borders"
    assert len(np.unique(bodies)) > 10
    step = np.abs(np.diff(voxels.astype(int), axis=2)).mean()
    assert step < 0.6 * voxels.std(), "neighbours resemble each other, as in no noise"
    assert not np.array_equal(voxels, tissue((0, 0, 0), (4, 200, 200), seed=2))


@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_every_dtype_spreads_the_same_picture(dtype: str) -> None:
    picture = tissue((0, 0, 0), (2, 60, 60), seed=1).astype(float).ravel()
    other = tissue((0, 0, 0), (2, 60, 60), seed=1, dtype=dtype)
    assert other.dtype == dtype
    assert np.corrcoef(picture, other.astype(float).ravel())[0, 1] > 0.999
    if dtype == "int16":
        assert other.min() < -2000 and other.max() > 2000


def test_a_dtype_of_no_microscope_is_refused() -> None:
    with pytest.raises(ConfigError, match="complex64"):
        tissue((0, 0, 0), (1, 2, 2), seed=1, dtype="complex64")


def test_pages_are_the_planes_of_the_volume() -> None:
    whole = tissue((0, 0, 0), (7, 20, 30), seed=8)
    np.testing.assert_array_equal(np.stack(list(pages((7, 20, 30), seed=8, slab=3))), whole)


def test_repeated_tissue_has_the_tiles_period() -> None:
    endless = RepeatedTissue((4, 8, 16), seed=3)
    crop = endless((3, 7, 15), (4, 8, 16))
    np.testing.assert_array_equal(crop, np.roll(endless.tile, (-3, -7, -15), (0, 1, 2)))
    np.testing.assert_array_equal(list(endless.pages((5, 8, 16)))[4], endless.tile[0])


def test_the_hemibrain_is_tissue_inside_its_extents_and_zero_outside() -> None:
    x, y, z = DVID_SIZE_XYZ
    corner = catalogue.dvid_voxels((z - 2, y - 3, x - 4), (5, 6, 7))
    assert np.count_nonzero(corner) == 2 * 3 * 4
    inside = tissue((z - 2, y - 3, x - 4), (2, 3, 4), seed=6)
    np.testing.assert_array_equal(corner[:2, :3, :4], inside)
    assert not catalogue.dvid_voxels((z, 0, 0), (4, 4, 4)).any()
    below = catalogue.dvid_voxels((-1, 0, 0), (2, 4, 4))
    assert not below[0].any() and below[1].all()
