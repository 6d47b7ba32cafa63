"""TIFF of all kinds: every voxel, the file's own claims held against it, few requests."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from emulators.ome_tiff import (
    write_big_tiff,
    write_companion_member,
    write_ome_tiff,
)
from emulators.tiff import ImageJTexts, write_imagej_tiff, write_itk_tiff
from lib.bytesource.base import LocalBytes, MemoryBytes
from lib.errors import FormatError, OutOfBoundsError, UnsupportedFormatError
from lib.formats.tiff.reader import TiffReader, open_tiff
from lib.geometry import Box

SHAPE = (5, 37, 53)
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


def make(shape: tuple[int, ...] = SHAPE, dtype: str = "uint8") -> Any:
    return np.random.default_rng(7).integers(0, 120, shape).astype(dtype)


def write(path: Path, volume: Any, **options: Any) -> Path:
    tifffile.imwrite(path, volume, photometric="minisblack", **options)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_every_voxel_type_in_both_byte_orders(
    tmp_path: Path, dtype: str, byteorder: str, bigtiff: bool, assert_voxels: Callable[..., None]
) -> None:
    volume = make(dtype=dtype)
    path = write(tmp_path / "a.tif", volume, byteorder=byteorder, bigtiff=bigtiff)
    found = open_tiff(LocalBytes(path))
    assert_voxels(TiffReader(found), volume, boxes=6)


@pytest.mark.parametrize("compression", ["none", "lzw", "zlib", "packbits", "zstd"])
@pytest.mark.parametrize("pieces", [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float32"])
def test_every_compression_in_strips_and_tiles(
    tmp_path: Path,
    compression: str,
    pieces: dict[str, Any],
    dtype: str,
    assert_voxels: Callable[..., None],
) -> None:
    volume = make(dtype=np.dtype(dtype).name)
    for predictor in (None, True) if compression in ("lzw", "zlib", "zstd") else (None,):
        path = write(
            tmp_path / "a.tif",
            volume,
            compression=compression,
            predictor=predictor,
            byteorder=dtype[0] if dtype[0] == ">" else "<",
            **pieces,
        )
        assert_voxels(TiffReader(open_tiff(LocalBytes(path))), volume, boxes=4)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits"])
def test_a_last_strip_that_is_filled_up_is_cut_to_its_rows(
    tmp_path: Path, compression: str, assert_voxels: Callable[..., None]
) -> None:
    padded = make((1, 42, 53))
    options = {"compression": compression, "rowsperstrip": 7, "metadata": None}
    content = bytearray(write(tmp_path / "a.tif", padded, **options).read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(37)
    assert bytes(content) != (tmp_path / "a.tif").read_bytes()
    reader = TiffReader(open_tiff(LocalBytes(tmp_path / "a.tif")))
    assert_voxels(reader, padded[:, :37], boxes=4)


def test_pages_larger_than_a_block_come_in_pieces(
    tmp_path: Path, assert_voxels: Callable[..., None]
) -> None:
    volume = make((1, 3100, 3000), "uint16")
    for options in ({}, {"compression": "zlib", "rowsperstrip": 3100}):
        path = write(tmp_path / "a.tif", volume, **options)
        assert_voxels(TiffReader(open_tiff(LocalBytes(path))), volume, boxes=2)


def test_the_itk_layout(tmp_path: Path, assert_voxels: Callable[..., None]) -> None:
    volume = make((7, 96, 128))
    write_itk_tiff(tmp_path / "a.tif", volume.shape, volume)
    found = open_tiff(LocalBytes(tmp_path / "a.tif"))
    assert (found.stated_planes, found.voxel.provenance) == (7, None)
    assert_voxels(TiffReader(found), volume)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), volume)


@pytest.mark.parametrize("unit", [r"\u00B5m", "micron", "um"])
def test_the_imagej_layout(tmp_path: Path, unit: str, assert_voxels: Callable[..., None]) -> None:
    volume = make()
    write_imagej_tiff(tmp_path / "a.tif", volume.shape, volume, ImageJTexts(unit=unit))
    found = open_tiff(LocalBytes(tmp_path / "a.tif"))
    assert (found.kind, found.stated_planes) == ("imagej", 5)
    assert found.voxel.known_nm_zyx == (20.0, 20.0, 20.0)
    assert_voxels(TiffReader(found), volume)


def test_an_uncalibrated_imagej_stack_has_no_voxel_size(tmp_path: Path) -> None:
    volume = make()
    texts = ImageJTexts(spacing=None, pixels_per_million=None)
    write_imagej_tiff(tmp_path / "a.tif", volume.shape, volume, texts)
    voxel = open_tiff(LocalBytes(tmp_path / "a.tif")).voxel
    assert (voxel.z_nm, voxel.y_nm, voxel.x_nm) == (None, None, None)


def hyperstack(path: Path, volume: Any) -> bytes:
    """An ImageJ stack as written above 4 GB: one directory, the other planes by arithmetic."""
    write_imagej_tiff(path, volume.shape, volume)
    content = bytearray(path.read_bytes())
    content[8 + 2 + 12 * 13 : 8 + 2 + 12 * 13 + 4] = bytes(4)
    return bytes(content[: len(content) - 162 * (len(volume) - 1)])


def test_an_imagej_stack_with_one_directory(
    tmp_path: Path, assert_voxels: Callable[..., None]
) -> None:
    volume = make()
    content = hyperstack(tmp_path / "a.tif", volume)
    assert len(tifffile.TiffFile(tmp_path / "a.tif").pages) == 5
    assert_voxels(TiffReader(open_tiff(MemoryBytes(content))), volume)
    with pytest.raises(FormatError, match="5 planes"):
        open_tiff(MemoryBytes(content[:-1]))


def test_hyperstacks_are_indexed_or_refused(
    tmp_path: Path, assert_voxels: Callable[..., None]
) -> None:
    volume = make((4, 3, 20, 30))
    write(tmp_path / "a.tif", volume, imagej=True, metadata={"axes": "ZCYX"})
    write_ome_tiff(tmp_path / "b.tif", [volume.swapaxes(0, 1)], voxel_nm_zyx=None)
    for name in ("a.tif", "b.tif"):
        with pytest.raises(UnsupportedFormatError, match="3 channels"):
            open_tiff(LocalBytes(tmp_path / name))
        with pytest.raises(OutOfBoundsError):
            open_tiff(LocalBytes(tmp_path / name), channel=3)
        found = open_tiff(LocalBytes(tmp_path / name), channel=2)
        assert_voxels(TiffReader(found), volume[:, 2], boxes=3)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"levels": 2, "big": True}, {"levels": 3}]
)
def test_ome_tiff(
    tmp_path: Path, options: dict[str, Any], assert_voxels: Callable[..., None]
) -> None:
    volume = make((6, 140, 150), "uint16")
    write_ome_tiff(tmp_path / "a.ome.tif", [volume], voxel_nm_zyx=(30, 4, 4), **options)
    found = open_tiff(LocalBytes(tmp_path / "a.ome.tif"))
    assert (found.kind, found.stated_planes) == ("ome", 6)
    assert found.voxel.known_nm_zyx == (30, 4, 4)
    assert any("SubIFDs" in note for note in found.notes) == ("levels" in options)
    assert_voxels(TiffReader(found), volume, boxes=5)


def test_each_series_is_a_volume_of_its_own(
    tmp_path: Path, assert_voxels: Callable[..., None]
) -> None:
    volumes = [make((3, 20, 30)), make((4, 25, 35), "uint16")]
    write_ome_tiff(tmp_path / "a.tif", volumes, voxel_nm_zyx=None)
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        for plane in (*volumes[0], *volumes[1]):
            writer.write(plane, contiguous=False, metadata=None, photometric="minisblack")
    for name in ("a.tif", "b.tif"):
        for index, volume in enumerate(volumes):
            found = open_tiff(LocalBytes(tmp_path / name), series=index)
            assert (len(found.series), found.index) == (2, index)
            assert any("others" in note for note in found.notes)
            assert_voxels(TiffReader(found), volume, boxes=3)
        with pytest.raises(OutOfBoundsError):
            open_tiff(LocalBytes(tmp_path / name), series=2)


def test_planes_follow_the_ome_xml_and_not_the_pages(
    tmp_path: Path, assert_voxels: Callable[..., None]
) -> None:
    volume = make((3, 20, 30))
    xml = ome_xml(3, '<TiffData IFD="0" FirstZ="2"/><TiffData IFD="1" FirstZ="0" PlaneCount="2"/>')
    write(tmp_path / "a.tif", volume, description=xml, metadata=None)
    assert_voxels(TiffReader(open_tiff(LocalBytes(tmp_path / "a.tif"))), volume[[1, 2, 0]])


def ome_xml(slices: int, tiff_data: str, dtype: str = "uint8", head: str = "") -> str:
    return (
        f'{head}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels DimensionOrder="XYZCT" Type="{dtype}" SizeX="30" SizeY="20" SizeZ="{slices}" '
        f'SizeC="1" SizeT="1">{tiff_data}</Pixels></Image></OME>'
    )


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        (ome_xml(4, ""), "4 planes"),
        (ome_xml(2, '<TiffData IFD="2" FirstZ="0" PlaneCount="2"/>'), "page 3"),
        (ome_xml(3, '<TiffData IFD="0" FirstZ="0" PlaneCount="2"/>'), "1 of 3 planes"),
        (ome_xml(3, '<TiffData/><TiffData FirstZ="1"/>'), "one page|puts plane"),
        (ome_xml(3, "", "uint16"), "uint16"),
        (ome_xml(3, "").replace('SizeX="30"', 'SizeX="31"'), "20 x 31"),
        (ome_xml(3, "").replace('SizeZ="3"', 'SizeZ="many"'), "SizeZ"),
        (ome_xml(3, "").replace("</Image>", ""), "invalid"),
        (ome_xml(3, "", head='<!DOCTYPE OME [<!ENTITY a "b">]>'), "invalid"),
    ],
)
def test_ome_xml_that_contradicts_the_file_is_refused(tmp_path: Path, xml: str, words: str) -> None:
    write(tmp_path / "a.tif", make((3, 20, 30)), description=xml, metadata=None)
    with pytest.raises(FormatError, match=words):
        open_tiff(LocalBytes(tmp_path / "a.tif"))


def test_planes_in_other_files_are_missed(tmp_path: Path) -> None:
    parts = "".join(
        f'<TiffData IFD="0" FirstZ="{z}"><UUID FileName="z{z}.tif">urn:uuid:{z}</UUID></TiffData>'
        for z in range(3)
    )
    xml = ome_xml(3, parts).replace("<OME ", '<OME UUID="urn:uuid:0" ')
    for pages in (1, 3):
        write(tmp_path / "z0.tif", make((pages, 20, 30)), description=xml, metadata=None)
        with pytest.raises(FormatError, match="planes"):
            open_tiff(LocalBytes(tmp_path / "z0.tif"))


def test_a_missing_companion_is_named(tmp_path: Path) -> None:
    write_companion_member(tmp_path / "a.ome.tif", make())
    with pytest.raises(FormatError, match=r"absent\.companion\.ome"):
        open_tiff(LocalBytes(tmp_path / "a.ome.tif"))


def test_plain_big_tiff(tmp_path: Path, assert_voxels: Callable[..., None]) -> None:
    volume = make(dtype="int16")
    write_big_tiff(tmp_path / "a.tif", volume)
    assert_voxels(TiffReader(open_tiff(LocalBytes(tmp_path / "a.tif"))), volume)


@pytest.mark.parametrize(
    ("per_unit", "unit", "expected"),
    [(2.5e6, "CENTIMETER", 4.0), (2.54e6, "INCH", 10.0), (72, "INCH", None), (5, "NONE", None)],
)
def test_resolution_fields(
    tmp_path: Path, per_unit: float, unit: str, expected: float | None
) -> None:
    path = write(tmp_path / "a.tif", make(), resolution=(per_unit, per_unit), resolutionunit=unit)
    voxel = open_tiff(LocalBytes(path)).voxel
    assert (voxel.z_nm, voxel.x_nm) == (None, expected)


@pytest.mark.parametrize("writer", [write_itk_tiff, write_imagej_tiff])
def test_an_archive_file_cut_anywhere_is_refused(
    tmp_path: Path, writer: Callable[..., None]
) -> None:
    volume = make((6, 32, 512))
    writer(tmp_path / "a.tif", volume.shape, volume)
    content = (tmp_path / "a.tif").read_bytes()
    needed = len(content) - (len(b"InsightToolkit\0") if writer is write_itk_tiff else 0)
    for length in [*range(0, needed, 1999), needed - 1]:
        for remote in (False, True):
            with pytest.raises(FormatError):
                open_tiff(Counting(content[:length], remote=remote))


def test_a_compressed_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    write_ome_tiff(tmp_path / "a.tif", [make((4, 40, 50))], voxel_nm_zyx=None, compression="zlib")
    content = (tmp_path / "a.tif").read_bytes()
    for length in range(0, len(content) - 2, 97):
        with pytest.raises(FormatError):
            open_tiff(MemoryBytes(content[:length]))


PIECES: list[dict[str, Any]] = [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}]


@pytest.mark.parametrize(
    ("bits", "options"),
    [(bits, one) for bits in (1, 2, 4, 6, 10, 12, 14) for one in PIECES]
    + [(1, {"compression": "zlib"}), (1, {"compression": "packbits"})],
)
def test_voxels_of_few_bits_keep_their_values(
    tmp_path: Path, bits: int, options: dict[str, Any], assert_voxels: Callable[..., None]
) -> None:
    """As tifffile writes a mask of booleans, and cameras of 12 bits; they were refused."""
    volume = np.random.default_rng(3).integers(0, 2**bits, SHAPE).astype("u1" if bits < 8 else "u2")
    given = volume.astype(bool) if bits == 1 else volume
    more = {} if bits == 1 else {"bitspersample": bits}
    found = open_tiff(LocalBytes(write(tmp_path / "a.tif", given, **more, **options)))
    assert f"stored in {bits} bits a voxel; values are kept" in found.notes
    assert_voxels(TiffReader(found), volume, boxes=4)


def test_a_mask_of_single_bits_in_ome_tiff(
    tmp_path: Path, assert_voxels: Callable[..., None]
) -> None:
    mask = make() > 50
    write(tmp_path / "a.ome.tif", mask, metadata={"axes": "ZYX"})
    assert_voxels(TiffReader(open_tiff(LocalBytes(tmp_path / "a.ome.tif"))), mask.astype("u1"))


def test_a_description_names_the_axes_of_a_hyperstack(
    tmp_path: Path, assert_voxels: Callable[..., None]
) -> None:
    volume = make((3, 2, 4, 20, 30))
    write(tmp_path / "a.tif", volume, metadata={"axes": "CTZYX"})
    with pytest.raises(UnsupportedFormatError, match=r"channels|time points"):
        open_tiff(LocalBytes(tmp_path / "a.tif"))
    found = open_tiff(LocalBytes(tmp_path / "a.tif"), channel=2, time=1)
    assert_voxels(TiffReader(found), volume[2, 1], boxes=3)


@pytest.mark.parametrize("axes", ["ZXY", "XZY"])
def test_axes_in_another_order_are_told(tmp_path: Path, axes: str) -> None:
    write(tmp_path / "a.tif", make(), metadata={"axes": axes})
    (note,) = open_tiff(LocalBytes(tmp_path / "a.tif")).notes
    assert f"calls the axes {axes}" in note


@pytest.mark.parametrize(
    ("volume", "options", "words"),
    [
        (make((20, 30, 3)), {"photometric": "rgb"}, "samples"),
        (make((3, 20, 30), "complex64"), {"photometric": "minisblack"}, "sample format"),
        (make((2, 3, 20, 30)), {"photometric": "minisblack"}, "axes"),
    ],
)
def test_other_kinds_are_refused_by_name(
    tmp_path: Path, volume: Any, options: dict[str, Any], words: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", volume, **options)
    with pytest.raises(UnsupportedFormatError, match=words):
        open_tiff(LocalBytes(tmp_path / "a.tif"))


def test_a_chain_that_loops_is_refused(tmp_path: Path) -> None:
    volume = make((3, 32, 512))
    write_itk_tiff(tmp_path / "a.tif", volume.shape, volume)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    first = struct.unpack("<I", content[4:8])[0]
    following = first + 2 + 12 * 14
    content[following : following + 4] = struct.pack("<I", first)
    with pytest.raises(FormatError, match="loops"):
        open_tiff(MemoryBytes(bytes(content)))


def test_a_strip_that_is_absent_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", make(), compression="zlib", rowsperstrip=10)
    with tifffile.TiffFile(path, mode="r+") as file:
        counts = list(file.pages[2].databytecounts)
        file.pages[2].tags["StripByteCounts"].overwrite([counts[0], 0, *counts[2:]])
    with pytest.raises(FormatError, match="absent"):
        open_tiff(LocalBytes(path))


def test_damaged_compressed_voxels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", make(), compression="zlib")
    offset = tifffile.TiffFile(path).pages[3].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset + 20 : offset + 40] = bytes(20)
    reader = TiffReader(open_tiff(MemoryBytes(bytes(content))))
    with pytest.raises(FormatError, match="decode") as caught:
        list(reader.blocks(Box.whole(SHAPE)))
    assert caught.value.unit == "z 3, strip or tile 0"


def test_a_box_outside_the_volume_is_refused(tmp_path: Path) -> None:
    reader = TiffReader(open_tiff(LocalBytes(write(tmp_path / "a.tif", make()))))
    with pytest.raises(OutOfBoundsError):
        list(reader.blocks(Box((0, 0, 0), (6, 37, 53))))


class Counting(MemoryBytes):
    """A source that claims to be remote and counts what is asked of it, with read-ahead."""

    def __init__(self, content: bytes, *, remote: bool = True) -> None:
        super().__init__(content)
        self.remote = remote
        self.requests = 0

    def read_into(self, offset: int, view: memoryview) -> None:
        self.requests += 1
        super().read_into(offset, view)


def test_scattered_directories_are_extrapolated_and_verified(
    tmp_path: Path, assert_voxels: Callable[..., None]
) -> None:
    volume = make((9, 192, 256))
    write_itk_tiff(tmp_path / "a.tif", volume.shape, volume)
    source = Counting((tmp_path / "a.tif").read_bytes())
    found = open_tiff(source)
    assert found.pages.extrapolated
    pages_read = source.requests
    open_tiff(walked := Counting(source.read(0, source.size), remote=False))
    assert pages_read < walked.requests / 2
    reader = TiffReader(found)
    assert reader.layout.random_access is False
    assert_voxels(reader, volume)
    assert not any(found.pages.unverified(index) for index in range(9))


def patched(content: bytes, page: int, tag: int, value: int) -> bytes:
    """Change the value of one field of one page's directory."""
    edited = bytearray(content)
    offset = struct.unpack("<I", content[4:8])[0]
    for _ in range(page):
        (offset,) = struct.unpack("<I", content[offset + 2 + 12 * 14 :][:4])
    for entry in range(offset + 2, offset + 2 + 12 * 14, 12):
        if struct.unpack("<H", content[entry : entry + 2])[0] == tag:
            edited[entry + 8 : entry + 12] = struct.pack("<I", value)
    assert bytes(edited) != content
    return bytes(edited)


@pytest.mark.parametrize(("tag", "value"), [(257, 100), (262, 0), (297, 5 | 9 << 16), (273, 8)])
def test_a_page_that_is_not_as_extrapolated_is_refused(
    tmp_path: Path, tag: int, value: int
) -> None:
    volume = make((9, 192, 256))
    write_itk_tiff(tmp_path / "a.tif", volume.shape, volume)
    content = patched((tmp_path / "a.tif").read_bytes(), 4, tag, value)
    found = open_tiff(Counting(content))
    assert found.pages.extrapolated
    with pytest.raises(FormatError) as caught:
        list(TiffReader(found).blocks(Box.whole(volume.shape)))
    assert caught.value.unit == "page 4"


def test_a_pattern_that_does_not_hold_is_walked(
    tmp_path: Path, assert_voxels: Callable[..., None]
) -> None:
    volume = make((9, 192, 256))
    write_itk_tiff(tmp_path / "a.tif", volume.shape, volume)
    content = (tmp_path / "a.tif").read_bytes()
    stride = 192 * 256 + 190 + 8 * 6
    gap = 8 + 3 * stride  # page 3 and all after it lie 500 bytes further
    moved = bytearray(content[:gap] + bytes(500) + content[gap:])
    directory = 8 + 192 * 256
    for page in range(9):
        shift = 500 if page >= 3 else 0
        at = directory + page * stride + shift
        if page < 8:
            target = directory + (page + 1) * stride + (500 if page >= 2 else 0)
            moved[at + 170 : at + 174] = struct.pack("<I", target)
        for entry in (at + 2 + 12 * 6, at + 2 + 12 * 10, at + 2 + 12 * 13):
            (where,) = struct.unpack("<I", moved[entry + 8 : entry + 12])
            moved[entry + 8 : entry + 12] = struct.pack("<I", where + shift)
        table = at + 174
        strips = struct.unpack("<6I", moved[table : table + 24])
        moved[table : table + 24] = struct.pack("<6I", *(offset + shift for offset in strips))
    found = open_tiff(Counting(bytes(moved)))
    assert not found.pages.extrapolated
    assert_voxels(TiffReader(found), volume, boxes=3)
