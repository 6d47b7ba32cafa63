"""Units as archives write them, in nanometres."""

from __future__ import annotations

import pytest

from lib.geometry import to_nm

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
    "unit", ["", "1/nm", "nm^-1", "eV", "s", "pixel", "PIXEL", "REFERENCEFRAME", "Mm", "M", "?"]
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
