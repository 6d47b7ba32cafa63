"""Triples, boxes and boxes in words against the plainest other way; units, in nanometres."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import geometry
from lib.errors import ConfigError, OutOfBoundsError
from lib.geometry import Box, ShapeZYX, box_axes, parse_box, to_nm, zyx

SMALL = st.integers(-5, 6)
TRIPLES = st.tuples(SMALL, SMALL, SMALL)
STEPS = st.tuples(*[st.integers(1, 4)] * 3)
SHAPE, VOXEL = (64, 128, 256), (8.0, 4.0, 4.0)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    start, size = draw(TRIPLES), draw(st.tuples(*[st.integers(0, 5)] * 3))
    return Box(start, (start[0] + size[0], start[1] + size[1], start[2] + size[2]))


def voxels_of(box: Box) -> set[ShapeZYX]:
    spans = zip(box.start_zyx, box.stop_zyx, strict=True)
    z, y, x = (range(a, b) for a, b in spans)
    return set(itertools.product(z, y, x))


@given(TRIPLES, TRIPLES, STEPS)
def test_triples_are_reckoned_axis_by_axis(a: ShapeZYX, b: ShapeZYX, step: ShapeZYX) -> None:
    one, other, steps = np.array(a), np.array(b), np.array(step)
    assert geometry.add(a, b) == tuple(one + other)
    assert geometry.subtract(a, b) == tuple(one - other)
    assert geometry.multiply(a, b) == tuple(one * other)
    assert geometry.floor_divide(a, step) == tuple(one // steps)
    assert geometry.ceil_divide(a, step) == tuple(np.ceil(one / steps))
    assert geometry.minimum(a, b) == tuple(np.minimum(one, other))
    assert geometry.maximum(a, b) == tuple(np.maximum(one, other))
    assert geometry.is_multiple(a, step) == bool((one % steps == 0).all())


def test_a_triple_has_three_values() -> None:
    assert zyx(iter((1, 2, 3))) == (1, 2, 3)
    for wrong in ((1, 2), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match="values to unpack"):
            zyx(wrong)


@given(boxes(), boxes(), TRIPLES)
def test_a_box_is_the_set_of_its_voxels(box: Box, other: Box, by: ShapeZYX) -> None:
    held = voxels_of(box)
    assert (box.voxels, box.empty) == (len(held), not held)
    assert box.indices() == sorted(held)
    common = box.intersect(other)
    assert (set() if common.empty else voxels_of(common)) == held & voxels_of(other)
    assert voxels_of(box.shifted(by)) == {geometry.add(voxel, by) for voxel in held}
    assert box.contains(box)
    if not box.empty and not other.empty:
        assert box.contains(other) == (voxels_of(other) <= held)


@given(boxes(), STEPS)
def test_tiles_cut_a_box_into_each_voxel_once_and_cells_hold_it(box: Box, step: ShapeZYX) -> None:
    tiles = list(box.tiles(step))
    assert Counter(voxel for tile in tiles for voxel in voxels_of(tile)) == Counter(voxels_of(box))
    assert [tile.start_zyx for tile in tiles] == sorted(tile.start_zyx for tile in tiles)
    assert all(n <= most for tile in tiles for n, most in zip(tile.shape_zyx, step, strict=True))
    if not box.empty:
        cells = {geometry.floor_divide(voxel, step) for voxel in voxels_of(box)}
        assert voxels_of(box.cells(step)) == cells


def test_slices_index_the_array_that_a_box_lies_in() -> None:
    box = Box((1, 2, 3), (2, 4, 6))
    assert box.slices() == (slice(1, 2), slice(2, 4), slice(3, 6))
    assert box.slices((1, 1, 1)) == (slice(0, 1), slice(1, 3), slice(2, 5))
    assert Box.whole((4, 5, 6)) == Box((0, 0, 0), (4, 5, 6))
    assert str(box) == "z=1:2,y=2:4,x=3:6"


def test_boxes_lie_in_the_order_of_their_first_voxels() -> None:
    last, first, second = (
        Box((1, 0, 0), (2, 1, 1)),
        Box((0, 0, 5), (9, 9, 9)),
        Box((0, 1, 0), SHAPE),
    )
    assert sorted([last, second, first]) == [first, second, last]


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("z=0:64", Box((0, 0, 0), SHAPE)),
        ("x=1:2,y=3:", Box((0, 3, 1), (64, 128, 2))),
        ("z=8:16nm", Box((1, 0, 0), (2, 128, 256))),
        ("z=8:16.5nm,x=:4nm", Box((1, 0, 0), (3, 128, 1))),  # widened to whole voxels
        ("y=3.9:4nm", Box((0, 0, 0), (64, 1, 256))),
        (" z = 1 : 2 , x=255:256", Box((1, 0, 255), (2, 128, 256))),
    ],
)
def test_a_box_in_words(text: str, box: Box) -> None:
    assert parse_box(text, SHAPE, VOXEL) == box
    assert parse_box(str(box), SHAPE, VOXEL) == box


def test_nanometres_that_end_at_a_voxel_take_no_voxel_more() -> None:
    # 3 * 0.1 is a little more than 0.3
    assert parse_box("z=0.3:0.6nm", (10, 1, 1), (0.1, 1, 1)) == Box((3, 0, 0), (6, 1, 1))


@pytest.mark.parametrize("text", ["", "z", "z=1", "a=1:2", "z=1:2,z=3:4", "z=-1:2", "z=1.5:2"])
def test_words_that_are_no_box_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="box: ") as caught:
        parse_box(text, SHAPE, VOXEL)
    assert caught.value.location == "box"


@pytest.mark.parametrize("text", ["z=0:65", "x=256:257", "y=5:5", "z=4:3", "x=0:1025nm"])
def test_a_box_that_is_empty_or_reaches_outside_is_refused(text: str) -> None:
    with pytest.raises(OutOfBoundsError, match=r"is not inside the volume z=0:64,y=0:128,x=0:256"):
        parse_box(text, SHAPE, VOXEL)


def test_the_axes_that_a_box_names() -> None:
    assert box_axes("x=0:1,z=2:3nm") == "xz"
    assert box_axes("nonsense") == ""


NM = {
    "pm": 0.001, "A": 0.1, "Å": 0.1, "\N{ANGSTROM SIGN}": 0.1, "angstrom": 0.1, "ANGSTROM": 0.1,
    "nm": 1, "nanometers": 1, "NANOMETER": 1, "nanometer": 1, " nm ": 1,
    "\N{MICRO SIGN}m": 1e3, "\N{GREEK SMALL LETTER MU}m": 1e3, r"\u00B5m": 1e3, r"\u03bcm": 1e3,
    "um": 1e3, "micron": 1e3, "microns": 1e3, "MICROMETER": 1e3, "micrometre": 1e3,
    "mm": 1e6, "MILLIMETER": 1e6, "cm": 1e7, "inch": 2.54e7, "inches": 2.54e7, "m": 1e9,
}  # fmt: skip


@pytest.mark.parametrize("unit", NM)
def test_lengths(unit: str) -> None:
    assert to_nm(1.0, unit) == NM[unit]
    assert to_nm(-2.0, unit) == -2 * NM[unit]


@pytest.mark.parametrize(
    "unit",
    ["", "1/nm", "nm^-1", "eV", "s", "pixel", "PIXEL", "REFERENCEFRAME", "Mm", "M", "nms", "?"],
)
def test_what_is_no_length_is_unknown(unit: str) -> None:
    assert to_nm(1.0, unit) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_unknown(value: float) -> None:
    assert to_nm(value, "nm") is None


def test_decimals_stay_decimals() -> None:
    assert to_nm(0.00799825, "µm") == 7.99825
    assert to_nm(0.02, "µm") == 20.0
    assert to_nm(29.6, "Å") == 2.96
