"""Everything a DM file says of its axes: applied, noted or refused, never dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulators.dm import Section, write_dm
from lib.bytesource.base import LocalBytes
from lib.errors import UnsupportedFormatError
from lib.formats.dm.format import second_opinion
from lib.formats.dm.reader import DmImage, open_dm
from lib.geometry import other_quantity

PLANE, STACK = (4, 5), (3, 4, 5)


def read(folder: Path, shape: tuple[int, ...] = PLANE, **given: Any) -> DmImage:
    path = folder / "a.dm3"
    pixels = given.pop("pixel_size_zyx", (2.0,) * len(shape))
    write_dm(path, np.ones(shape, np.uint8), pixel_size_zyx=pixels, **{"unit": "nm"} | given)
    image = open_dm(LocalBytes(path))
    assert second_opinion(path, image) == () or given.get("unit", "nm") != "nm"
    return image


# what the file says -> where the first voxel lies (z, y, x in nm), voxel size, a word of the note
APPLIED: list[tuple[str, tuple[int, ...], dict[str, Any], Any, Any, str]] = [
    ("nothing of a place", PLANE, {}, None, (None, 2.0, 2.0), ""),
    ("a place", PLANE, {"origin_zyx": (-20, -10)}, (0.0, 40.0, 20.0), (None, 2.0, 2.0), ""),
    ("a place to the left", PLANE, {"origin_zyx": (0, 5)}, (0, 0, -10), (None, 2.0, 2.0), ""),
    (
        "a place of a stack",
        STACK,
        {"origin_zyx": (-1.5, 0, 4), "pixel_size_zyx": (50.0, 2.0, 2.0)},
        (75.0, 0.0, -8.0),
        (50.0, 2.0, 2.0),
        "",
    ),
    ("no unit", PLANE, {"unit": ""}, None, (None, None, None), "without a unit: not taken"),
    ("a unit that is none", PLANE, {"unit": "pixels"}, None, (None, None, None), "'pixels'"),
    (
        "slices along z",
        STACK,
        {"unit": ("slice", "nm", "nm")},
        None,
        (None, 2.0, 2.0),
        "axis z is calibrated in 'slice'",
    ),
    (
        "a recorded thickness",
        PLANE,
        {"section": Section(0)},
        None,
        (50.0, 2.0, 2.0),
        "",
    ),
    ("an image by name", PLANE, {"format_name": "Image"}, None, (None, 2.0, 2.0), ""),
]


@pytest.mark.parametrize(
    ("shape", "given", "place", "voxel", "note"),
    [row[1:] for row in APPLIED],
    ids=[row[0] for row in APPLIED],
)
def test_what_a_file_says_is_applied_or_noted(
    tmp_path: Path, shape: tuple[int, ...], given: dict[str, Any], place: Any, voxel: Any, note: str
) -> None:
    image = read(tmp_path, shape, **given)
    found = (image.voxel.z_nm, image.voxel.y_nm, image.voxel.x_nm)
    assert found == voxel
    assert image.origin.stated == (place is not None)
    assert image.origin.at((found[0] or 1.0, 2.0, 2.0)) == (place or (0, 0, 0))
    assert bool(image.notes) == bool(note)
    assert all(note in one for one in image.notes[:1])


@pytest.mark.parametrize(
    ("shape", "given", "what"),
    [
        (STACK, {"format_name": "Spectrum image"}, "calls itself 'Spectrum image'"),
        (PLANE, {"format_name": "Spectrum"}, "calls itself"),
        (PLANE, {"format_name": "Diffraction image"}, "calls itself"),
        (STACK, {"unit": ("eV", "nm", "nm")}, "'eV' \\(energy\\): a spectrum"),
        (STACK, {"unit": ("s", "nm", "nm")}, "'s' \\(time\\)"),
        (STACK, {"unit": ("deg", "nm", "nm")}, "a tilt series"),
        (STACK, {"unit": ("°", "nm", "nm")}, "a tilt series"),
        (PLANE, {"unit": "1/nm"}, "a diffraction pattern"),
        (PLANE, {"unit": "mrad"}, "'mrad' \\(angle\\)"),
        (PLANE, {"unit": ("nm", "1/nm")}, "axis x .* a diffraction pattern"),
    ],
)
def test_what_is_no_volume_is_refused_by_name(
    tmp_path: Path, shape: tuple[int, ...], given: dict[str, Any], what: str
) -> None:
    with pytest.raises(UnsupportedFormatError, match=what):
        read(tmp_path, shape, **given)


@pytest.mark.parametrize(
    ("unit", "quantity"),
    [
        ("1/nm", "reciprocal length"),
        ("nm^-1", "reciprocal length"),
        ("Å⁻¹", "reciprocal length"),
        ("1/\u00b5m", "reciprocal length"),
        ("keV", "energy"),
        ("ms", "time"),
        ("degrees", "angle"),
        ("kHz", "frequency"),
        ("mV", "voltage"),
        ("°C", "temperature"),
        ("nm", None),
        ("m", None),
        ("A", None),
        ("mm", None),
        ("micron", None),
        ("inches", None),
        ("pixels", None),
        ("", None),
    ],
)
def test_units_of_other_quantities_are_known(unit: str, quantity: str | None) -> None:
    assert other_quantity(unit) == quantity
