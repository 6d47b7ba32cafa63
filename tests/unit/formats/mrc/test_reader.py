"""MRC: every mode, order of axes and bytes; nothing short, nothing guessed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from emulators.mrc import write_mrc
from lib.bytesource.base import LocalBytes, MemoryBytes
from lib.errors import ConfigError, DestinationError, FormatError, UnsupportedFormatError
from lib.formats.mrc.format import MrcReader, open_mrc

VOXEL = (2.5, 1.25, 1.0)
SHAPE = (5, 14, 23)


def volume(dtype: str = "int16") -> np.ndarray:
    return np.random.default_rng(6).integers(-100, 100, SHAPE).astype(dtype)


def plain(path: Path, dtype: str = "int16") -> bytearray:
    write_mrc(path, volume(dtype), voxel_nm_zyx=VOXEL)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32", "float16"])
@pytest.mark.parametrize("permuted", [False, True])
def test_every_voxel_of_every_mode(
    tmp_path: Path, dtype: str, permuted: bool, assert_voxels: Callable[..., None]
) -> None:
    expected = volume(dtype)
    write_mrc(tmp_path / "a.rec", expected, voxel_nm_zyx=VOXEL, permuted=permuted)
    found = open_mrc(LocalBytes(tmp_path / "a.rec"))
    assert found.voxel.known_nm_zyx == pytest.approx(VOXEL, rel=1e-6)
    widened = expected.astype(np.float32) if dtype == "float16" else expected
    assert any("float16" in note for note in found.notes) == (dtype == "float16")
    assert_voxels(MrcReader(found), widened)


def test_mrcfile_reads_the_same(tmp_path: Path) -> None:
    plain(tmp_path / "a.mrc")
    found = open_mrc(LocalBytes(tmp_path / "a.mrc"))
    with mrcfile.open(tmp_path / "a.mrc") as other:
        assert other.data.shape == found.shape_zyx
        assert other.data.dtype == found.dtype
        assert found.voxel.x_nm == pytest.approx(float(other.voxel_size.x) / 10)


@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
def test_compressed_files_are_unpacked_to_scratch(
    tmp_path: Path, suffix: str, assert_voxels: Callable[..., None]
) -> None:
    path = tmp_path / f"a.mrc{suffix}"
    write_mrc(path, volume(), voxel_nm_zyx=VOXEL)
    with pytest.raises(ConfigError, match="scratch"):
        open_mrc(LocalBytes(path))
    assert_voxels(MrcReader(open_mrc(LocalBytes(path), scratch=tmp_path / "scratch")), volume())
    with pytest.raises(DestinationError):
        open_mrc(LocalBytes(path), scratch=tmp_path / "no such folder" / "scratch")


@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
def test_a_compressed_file_cut_short_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.mrc{suffix}"
    write_mrc(path, volume(), voxel_nm_zyx=VOXEL)
    content = path.read_bytes()
    scratch = tmp_path / "scratch"
    for length in (40, len(content) // 2, len(content) - 1):
        with pytest.raises(FormatError):
            open_mrc(MemoryBytes(content[:length]), scratch=scratch)
        assert not scratch.exists()


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    import gzip

    header = plain(tmp_path / "a.mrc")[:1024]
    bomb = gzip.compress(bytes(header) + bytes(30_000_000))
    with pytest.raises(FormatError, match="far more"):
        open_mrc(MemoryBytes(bomb), scratch=tmp_path / "scratch")
    header[:12] = struct.pack("<3i", 60_000, 60_000, 60_000)
    claim = gzip.compress(bytes(header) + bytes(1000))
    with pytest.raises(FormatError, match="cannot hold"):
        open_mrc(MemoryBytes(claim), scratch=tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("stamp", [b"\x44\x44", b"\x44\x41", b"\x44\x00", b"\x44\x20", b"\0\0"])
def test_machine_stamps_of_the_wild(
    tmp_path: Path, stamp: bytes, assert_voxels: Callable[..., None]
) -> None:
    content = plain(tmp_path / "a.mrc")
    content[212:214] = stamp
    assert_voxels(MrcReader(open_mrc(MemoryBytes(bytes(content)))), volume(), boxes=2)


@pytest.mark.parametrize("stamp", [b"\x11\x11", b"\0\0"])
def test_big_endian_files_come_out_native(
    tmp_path: Path, stamp: bytes, assert_voxels: Callable[..., None]
) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(volume().astype(">i2"))
    content = bytearray((tmp_path / "a.mrc").read_bytes())
    assert content[:4] == struct.pack(">i", SHAPE[2])
    content[212:214] = stamp
    assert_voxels(MrcReader(open_mrc(MemoryBytes(bytes(content)))), volume(), boxes=3)


@pytest.mark.parametrize(("flags", "dtype"), [(0, "uint8"), (1, "int8")])
def test_imod_says_whether_bytes_are_signed(tmp_path: Path, flags: int, dtype: str) -> None:
    content = plain(tmp_path / "a.mrc", "int8")
    content[152:160] = struct.pack("<2i", 1146047817, flags)
    assert open_mrc(MemoryBytes(bytes(content))).dtype == dtype


def test_bytes_of_older_imod_are_unsigned_if_their_maximum_says_so(tmp_path: Path) -> None:
    content = plain(tmp_path / "a.mrc", "int8")
    content[76:84] = struct.pack("<2f", 0.0, 240.0)
    found = open_mrc(MemoryBytes(bytes(content)))
    assert found.dtype == np.uint8
    assert any("unsigned" in note for note in found.notes)


@pytest.mark.parametrize("mode", [3, 4, 101, 99])
def test_other_modes_are_refused(tmp_path: Path, mode: int) -> None:
    content = plain(tmp_path / "a.mrc")
    content[12:16] = struct.pack("<i", mode)
    with pytest.raises(UnsupportedFormatError, match=f"mode {mode}"):
        open_mrc(MemoryBytes(bytes(content)))


def test_a_file_shorter_than_its_header_says_is_refused(tmp_path: Path) -> None:
    content = bytes(plain(tmp_path / "a.mrc"))
    for length in (0, 3, 500, 1023, 1024, 2000, len(content) - 1):
        with pytest.raises(FormatError):
            open_mrc(MemoryBytes(content[:length]))


@pytest.mark.parametrize("nsymbt", [-1, 1, 2**30])
def test_an_impossible_extended_header_is_refused(tmp_path: Path, nsymbt: int) -> None:
    content = plain(tmp_path / "a.mrc")
    content[92:96] = struct.pack("<i", nsymbt)
    with pytest.raises(FormatError):
        open_mrc(MemoryBytes(bytes(content)))


def test_an_extended_header_is_skipped(tmp_path: Path, assert_voxels: Callable[..., None]) -> None:
    content = plain(tmp_path / "a.mrc")
    content[92:96] = struct.pack("<i", 160)
    content[1024:1024] = bytes(range(160))
    assert_voxels(MrcReader(open_mrc(MemoryBytes(bytes(content)))), volume(), boxes=2)


def test_bytes_after_the_voxels_are_noted(tmp_path: Path) -> None:
    content = bytes(plain(tmp_path / "a.mrc"))
    assert any("follow" in note for note in open_mrc(MemoryBytes(content + b"123")).notes)
    assert open_mrc(MemoryBytes(content)).notes == ()


@pytest.mark.parametrize("cell", [0.0, -10.0, float("nan"), float("inf")])
def test_an_impossible_cell_is_an_unknown_voxel_size(tmp_path: Path, cell: float) -> None:
    content = plain(tmp_path / "a.mrc")
    content[40:44] = struct.pack("<f", cell)
    voxel = open_mrc(MemoryBytes(bytes(content))).voxel
    assert voxel.x_nm is None
    assert voxel.z_nm == pytest.approx(VOXEL[0])


def test_axes_that_are_no_permutation_are_refused(tmp_path: Path) -> None:
    content = plain(tmp_path / "a.mrc")
    content[64:76] = struct.pack("<3i", 1, 1, 3)
    with pytest.raises(FormatError):
        open_mrc(MemoryBytes(bytes(content)))
