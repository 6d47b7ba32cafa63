"""Voxel size and place of one volume: plan, record, OME-Zarr, what opens it, viewer and report.

Of lengths that differ along each axis, away from 0, whole, cropped, and from a coarser level.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import macroscope
from lib.present.described import describe
from lib.present.formatting import voxel_text
from lib.present.rows import rows
from lib.present.viewer_app import viewer_state
from lib.records.model import Record
from tests.formats import cases_precomputed

FINE = np.random.default_rng(1).integers(1, 255, (12, 90, 80)).astype("u1")
LEVELS = {"s0": FINE, "s1": FINE[:, ::2, ::2].copy()}


def ngff(folder: Path) -> str:
    """Centres of first voxels in µm, and a transform over all levels that comes last."""
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=3)
    for name, voxels in LEVELS.items():
        group.create_array(name, data=voxels, chunks=(12, 32, 32), dimension_names=[*"zyx"])
    places = [("s0", (0.02, 0.004, 0.002), (0.06, -0.008, 0.005)),
              ("s1", (0.02, 0.008, 0.004), (0.06, -0.006, 0.006))]  # fmt: skip

    def said(scale: Any, at: Any) -> list[dict[str, Any]]:
        return [
            {"type": "scale", "scale": [*scale]},
            {"type": "translation", "translation": [*at]},
        ]

    block = {
        "axes": [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"],
        "datasets": [{"path": p, "coordinateTransformations": said(s, t)} for p, s, t in places],
        "coordinateTransformations": said((2, 2, 2), (0.001, 0.002, 0.003)),
    }
    group.attrs["ome"] = {"version": "0.5", "multiscales": [block]}
    return f"{folder}/a.zarr"


def precomputed(folder: Path) -> str:
    """Corners; the offset of the coarser level is rounded down, so that it begins before."""
    for (key, voxels), (scale, at) in zip(
        LEVELS.items(), (((4.0, 8.0, 40.0), [5, -3, 100]), ((8.0, 16.0, 40.0), [2, -2, 100])),
        strict=True,
    ):  # fmt: skip
        cases_precomputed.volume(folder / "em", voxels, key=key, resolution=scale, offset=at)
    return f"{folder}/em"


@pytest.mark.parametrize("settings", [{"box": "z=3:10,y=10:80,x=7:78"}, {"scale_level": "s1"}])
@pytest.mark.parametrize(
    ("write", "at"),
    [
        (ngff, {"s0": (121.0, -14.0, 13.0), "s1": (121.0, -10.0, 15.0)}),
        (precomputed, {"s0": (4000.0, -24.0, 20.0), "s1": (4000.0, -28.0, 18.0)}),
    ],
)
def test_all_that_says_where_a_volume_lies_says_the_same(
    bench: Any,
    tmp_path: Path,
    write: Callable[[Path], str],
    at: dict[str, tuple[float, ...]],
    settings: dict[str, str],
) -> None:
    one = bench("address", addresses=[write(tmp_path)], kind="image", **settings)
    plan = one.one_plan()
    level = settings.get("scale_level", "s0")
    voxel = np.array((40.0, 8.0, 4.0)) * ((1, 2, 2) if level == "s1" else (1, 1, 1))
    start = np.array((3, 10, 7) if "box" in settings else (0, 0, 0))
    first = np.array(at[level]) + start * voxel
    np.testing.assert_allclose(plan.voxel_nm_zyx, voxel)
    np.testing.assert_allclose(plan.origin_nm_zyx, first, atol=1e-6)
    record = one.complete_record(plan)
    told = Record.read(record)
    np.testing.assert_allclose(told.voxel_nm_zyx or (), voxel)
    said = record["metadata"]["technical"]["translation"]
    np.testing.assert_allclose([said[axis] for axis in "zyx"], first, atol=1e-6)
    assert voxel_text(tuple(voxel), "") in {row.text for row in rows(told, "card")}
    key = record["files"]["volume"]
    opened = macroscope.open(f"{one.store.uri}/{key}")
    inside = tuple(slice(a, a + n) for a, n in zip(start, plan.shape_zyx, strict=True))
    np.testing.assert_array_equal(opened.levels[0][:], LEVELS[level][inside])
    for one_level in opened.levels:  # of halves, the centre of the first voxel is between two
        scale = np.array([one_level.scale_nm[axis] for axis in "zyx"])
        centre = [one_level.translation_nm[axis] for axis in "zyx"]
        np.testing.assert_allclose(centre, first + (scale - voxel) / 2, atol=1e-6)
    state = viewer_state([describe(one.store, key)], ["http://127.0.0.1/x"])
    unit = np.array([state["dimensions"][axis][0] * 1e9 for axis in "zyx"])
    np.testing.assert_allclose(unit, voxel)
    middle = first + np.array(plan.shape_zyx) // 2 * voxel
    np.testing.assert_allclose(np.array(state["position"][::-1]) * unit, middle, atol=1e-6)
