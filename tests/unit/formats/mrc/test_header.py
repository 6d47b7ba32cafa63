"""Everything an MRC header says of geometry and signs: applied, noted or refused, never dropped."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lib.archives.voxels import decide_voxel
from lib.bytesource.base import MemoryBytes
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.format import VoxelSize
from lib.formats.mrc.format import MrcReader, MrcVolume, open_mrc
from lib.formats.mrc.header import IMOD_STAMP, MrcChoices

SHAPE = (4, 6, 8)
VOXEL = (1.0, 1.0, 1.0)  # nm
Changes = dict[int, tuple[str, tuple[Any, ...]]]
"""Byte of the header -> struct code and values."""

FIRST = ("3i", (100, -20, 7))  # NXSTART, NYSTART, NZSTART
IMOD = ("i", (IMOD_STAMP,))


def an_mrc(changes: Changes, mode: int = 0) -> bytes:
    """A file of zeros, 1 nm voxels, space group 1, no version, and some words changed."""
    z, y, x = SHAPE
    raw = bytearray(1024 + z * y * x * (2 if mode == 1 else 1))
    plain: Changes = {
        0: ("4i", (x, y, z, mode)),
        28: ("3i", (x, y, z)),
        40: ("6f", (10.0 * x, 10.0 * y, 10.0 * z, 90.0, 90.0, 90.0)),
        64: ("3i", (1, 2, 3)),
        76: ("3f", (0.0, -1.0, -2.0)),  # minimum, maximum, mean: not computed
        88: ("i", (1,)),
        208: ("4s2s", (b"MAP ", b"\x44\x44")),
    }
    for one in (plain, changes):
        for offset, (code, values) in one.items():
            struct.pack_into("<" + code, raw, offset, *values)
    return bytes(raw)


def read(changes: Changes, **choices: Any) -> MrcVolume:
    return open_mrc(MemoryBytes(an_mrc(changes)), choices=MrcChoices(**choices))


# what the header says -> the outcome: origin z, y, x in nm, voxel size, a word of the note
APPLIED: list[tuple[str, Changes, tuple[float, ...] | None, tuple[Any, ...], str]] = [
    ("nothing", {}, None, VOXEL, ""),
    ("NXSTART", {16: FIRST}, (7.0, -20.0, 100.0), VOXEL, ""),
    (
        "NXSTART of permuted axes",
        {16: FIRST, 64: ("3i", (3, 1, 2))},  # columns are z, rows x, sections y
        (100.0, 7.0, -20.0),
        VOXEL,
        "",
    ),
    ("ORIGIN", {196: ("3f", (30.0, 20.0, -10.0))}, (-1.0, 2.0, 3.0), VOXEL, ""),
    (
        "both, and they disagree",
        {16: FIRST, 196: ("3f", (30.0, 20.0, -10.0))},
        (-1.0, 2.0, 3.0),
        VOXEL,
        "twice",
    ),
    (
        "ORIGIN of older IMOD",
        {152: IMOD, 196: ("3f", (30.0, 20.0, -10.0))},
        (1.0, -2.0, -3.0),
        VOXEL,
        "turned round",
    ),
    (
        "ORIGIN of IMOD with its flag",
        {152: IMOD, 156: ("i", (4,)), 196: ("3f", (30.0, 20.0, -10.0))},
        (-1.0, 2.0, 3.0),
        VOXEL,
        "",
    ),
    (
        "ORIGIN of IMOD by MRC2014",
        {108: ("i", (20140,)), 152: IMOD, 196: ("3f", (30.0, 20.0, -10.0))},
        (-1.0, 2.0, 3.0),
        VOXEL,
        "",
    ),
    (
        "ORIGIN without MAP",
        {196: ("3f", (30.0, 20.0, -10.0)), 208: ("4s", (b"\0\0\0\0",))},
        None,
        VOXEL,
        "without the MAP identifier",
    ),
    ("ORIGIN that is none", {196: ("3f", (np.nan, 0.0, 0.0))}, None, VOXEL, "no sense"),
    ("NXSTART that is none", {16: ("3i", (2**31 - 1, 0, 0))}, None, VOXEL, "no sense"),
    ("angles never filled in", {52: ("3f", (0.0, 0.0, 0.0))}, None, VOXEL, ""),
    ("angles that are none", {52: ("3f", (1e30, 90.0, 90.0))}, None, VOXEL, "no sense"),
    (
        "a stack of images",
        {36: ("i", (1,)), 48: ("f", (1.0,)), 88: ("i", (0,))},
        None,
        (None, 1.0, 1.0),
        "stack of images",
    ),
    ("space group 0 with MZ = NZ", {88: ("i", (0,))}, None, VOXEL, ""),
    (
        "tilt angles",
        {88: ("i", (0,)), 104: ("4s", (b"SERI",)), 128: ("2h", (2, 1))},
        None,
        (None, 1.0, 1.0),
        "tilt series",
    ),
    (
        "tilt angles of older SerialEM",
        {128: ("2h", (8, 3)), 152: IMOD},
        None,
        (None, 1.0, 1.0),
        "tilt series",
    ),
    ("no tilt angles", {104: ("4s", (b"SERI",)), 128: ("2h", (6, 2))}, None, VOXEL, ""),
    (
        "a volume that IMOD turned",
        {152: IMOD, 184: ("3f", (0.0, 90.0, 0.0))},
        None,
        VOXEL,
        "turned by 0, 90, 0",
    ),
    ("no cell along z", {48: ("f", (0.0,))}, None, (None, 1.0, 1.0), ""),
    ("a negative cell", {48: ("f", (-9.0,))}, None, (None, 1.0, 1.0), "are not all lengths"),
]


@pytest.mark.parametrize(
    ("changes", "origin", "voxel", "note"),
    [row[1:] for row in APPLIED],
    ids=[row[0] for row in APPLIED],
)
def test_what_a_header_says_is_applied_or_noted(
    changes: Changes, origin: tuple[float, ...] | None, voxel: tuple[Any, ...], note: str
) -> None:
    found = read(changes)
    assert found.origin.stated == (origin is not None)
    assert found.origin.at(VOXEL) == (origin or (0.0, 0.0, 0.0))
    assert (found.voxel.z_nm, found.voxel.y_nm, found.voxel.x_nm) == voxel
    notes = [n for n in found.notes if "mode 0" not in n and "lacks the MAP" not in n]
    assert bool(notes) == bool(note)
    assert all(note in n for n in notes[-1:])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({52: ("3f", (90.0, 90.0, 120.0))}, "cell angles are 90, 90, 120"),
        ({52: ("3f", (90.0, 89.0, 90.0))}, "cell angles"),
        ({88: ("i", (401,))}, "stack of volumes"),
        ({152: IMOD, 156: ("i", (16,))}, "two 4-bit voxels"),
    ],
)
def test_what_would_shear_or_mix_voxels_is_refused(changes: Changes, what: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=what):
        read(changes)


# --- signed or unsigned -------------------------------------------------------------------------

RANGE = 76  # minimum, maximum, mean
SIGNED: list[tuple[str, Changes, dict[str, Any], str, str]] = [
    ("a setting", {152: IMOD}, {"mode0": "int8"}, "int8", "configuration"),
    ("IMOD's flag", {152: IMOD, 156: ("i", (1,))}, {"stated": "uint8"}, "int8", "file"),
    ("IMOD without it", {152: IMOD}, {"stated": "int8"}, "uint8", "file"),
    ("the maximum", {RANGE: ("2f", (0.0, 200.0))}, {"stated": "int8"}, "uint8", "file"),
    ("the minimum", {RANGE: ("2f", (-3.0, 90.0))}, {"stated": "uint8"}, "int8", "file"),
    ("the archive", {}, {"stated": "uint8"}, "uint8", "api"),
    ("the archive again", {}, {"stated": "int8"}, "int8", "api"),
    ("the archive before the rule", {108: ("i", (20140,))}, {"stated": "uint8"}, "uint8", "api"),
    ("the rule of MRC2014", {108: ("i", (20141,))}, {}, "int8", "file"),
    ("an archive that speaks of others", {}, {"stated": "float32"}, "int8", "assumed"),
    ("nobody", {}, {}, "int8", "assumed"),
]


@pytest.mark.parametrize(
    ("changes", "choices", "dtype", "by"),
    [row[1:] for row in SIGNED],
    ids=[row[0] for row in SIGNED],
)
def test_signed_or_unsigned_is_decided_by_a_witness_and_says_by_which(
    changes: Changes, choices: dict[str, Any], dtype: str, by: str
) -> None:
    found = read(changes, **choices)
    assert found.dtype == np.dtype(dtype)
    assert found.header.signedness is not None
    assert (found.header.signedness.value, found.header.signedness.source) == (dtype, by)
    doubted = any("mrc_mode0" in note for note in found.notes)
    assert doubted == (by == "assumed")


def test_other_modes_leave_nothing_to_decide() -> None:
    data = an_mrc({}, mode=1)
    assert open_mrc(MemoryBytes(data), choices=MrcChoices("uint8")).header.signedness is None


# --- more sections than the header says ---------------------------------------------------------


def test_sections_that_the_header_does_not_count_are_asked_about(
    assert_voxels: Callable[..., None],
) -> None:
    volume = np.arange(4 * 6 * 8, dtype=np.int16).reshape(SHAPE)
    data = bytearray(an_mrc({}, mode=1))
    data[1024:] = volume.tobytes()
    struct.pack_into("<i", data, 8, 3)  # NZ
    struct.pack_into("<i", data, 36, 3)  # MZ
    struct.pack_into("<f", data, 48, 30.0)  # cell along z
    source = MemoryBytes(bytes(data) + b"tail")
    with pytest.raises(FormatError, match="says 3 sections, and the file holds 4") as caught:
        open_mrc(source)
    assert "mrc_sections" in caught.value.advice
    by_header = open_mrc(source, choices=MrcChoices(sections="header"))
    assert_voxels(MrcReader(by_header), volume[:3])
    by_file = open_mrc(source, choices=MrcChoices(sections="file"))
    assert_voxels(MrcReader(by_file), volume)
    assert by_file.voxel.known_nm_zyx == VOXEL
    for found in (by_header, by_file):
        assert any("says 3 sections, and the file holds 4" in note for note in found.notes)
    assert any("4 bytes follow" in note for note in by_file.notes)
    less = MemoryBytes(bytes(data[: 1024 + 3 * 96]) + b"x" * 95)
    assert any("95 bytes follow" in note for note in open_mrc(less).notes)


def test_one_angstrom_is_what_programs_write_that_know_no_size() -> None:
    """IMOD, EMAN2 and RELION: it stood in records as measured, and beat the archive's own size."""
    z, y, x = SHAPE
    found = read({40: ("3f", (float(x), float(y), float(z)))})
    assert found.voxel == VoxelSize(0.1, 0.1, 0.1, "MRC header (cell over samples)", "zyx")
    assert any("1 Å along every axis" in note for note in found.notes)
    assert not read({40: ("3f", (float(x), float(y), 2.0 * z))}).voxel.assumed
    alone = decide_voxel(found.voxel, (None,) * 3, "the API")
    assert alone.approximate and alone.nm_zyx == (0.1, 0.1, 0.1)
    said = decide_voxel(found.voxel, (None, 8.0, 8.0), "the API")
    assert said.nm_zyx == (0.1, 8.0, 8.0)
    assert said.stated["voxel_size_nm.x"].source == "api"
    assert any("MRC header" in note for note in said.notes)
