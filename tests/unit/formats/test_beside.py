"""Volumes whose voxels lie in several files: all of them, each in its place, or a named error."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from lib.bytesource.base import FilePart, JoinedBytes, LocalBytes, MemoryBytes
from lib.config.loader_base import AddressConfig
from lib.errors import ConfigError, FormatError, SourceChangedError, UnsupportedFormatError
from lib.formats import registry
from lib.formats.format import Options, VolumeDescription
from lib.formats.nrrd import text_numbers
from lib.formats.tiff.reader import open_tiff
from lib.geometry import Box
from lib.ingest.stages import plan_source
from lib.plan import VolumePlan
from tests.formats import cases_single_files as single
from tests.formats import cases_tiff as tiff


def plan_of(address: Path, tmp_path: Path, **more: Any) -> VolumePlan:
    config = AddressConfig(addresses=[str(address)], **more)
    (plan,) = plan_source("address", config, tmp_path / "scratch").plans
    return plan


def described(path: Path, form: str) -> list[VolumeDescription]:
    return registry.file_format(form).describe(LocalBytes(path), "", Options())


def joined(path: Path, volume: VolumeDescription) -> JoinedBytes:
    files = [path, *(path.parent / name for name in volume.beside)]
    parts = [FilePart(one.name, one.stat().st_size, partial(LocalBytes, one)) for one in files]
    return JoinedBytes(parts, str(path))


def read(path: Path, form: str, scratch: Path, number: int = 0) -> Any:
    volume = described(path, form)[number]
    if volume.refused is not None:
        raise FormatError(volume.refused)
    out = np.zeros(volume.shape_zyx, volume.dtype)
    source = joined(path, volume)
    registry.file_format(form).survey(source, volume, Box.whole(volume.shape_zyx))
    with registry.file_format(form).open(source, volume.handle, scratch) as reader:
        for block in reader.blocks(Box.whole(volume.shape_zyx)):
            out[block.box.slices()] = block.data
    return out


def test_joined_files_are_read_over_their_ends_and_no_further() -> None:
    pieces = [b"abc", b"", b"defgh", b"i"]
    parts = [
        FilePart(str(n), len(piece), partial(MemoryBytes, piece)) for n, piece in enumerate(pieces)
    ]
    source, whole = JoinedBytes(parts, "x"), b"".join(pieces)
    for start in range(10):
        for stop in range(start, 10):
            assert source.read(start, stop - start) == whole[start:stop]
    with pytest.raises(FormatError, match="cut short"):
        source.read(8, 2)
    other = JoinedBytes([parts[0], FilePart("1", 4, partial(MemoryBytes, b"defgh"))], "x")
    with pytest.raises(SourceChangedError, match="5 bytes, 4 when it was planned"):
        other.read(2, 3)


@pytest.mark.parametrize(
    ("write", "header"),
    [
        (partial(single.by_pynrrd, "uint16", name="a.nhdr"), "a.nhdr"),
        (partial(single.slices_beside, True), "a.nhdr"),
        (partial(single.metaimage, "uint16", "slices"), "a.mhd"),
        (tiff.ome_files, "a z0.ome.tif"),
        (tiff.ome_companion, "a.companion.ome"),
    ],
)
def test_a_folder_of_parts_is_the_volume_that_its_header_names(
    write: Callable[[Path], Any], header: str, tmp_path: Path
) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    shape = write(folder).shape
    (folder / "readme.txt").write_text("no part")
    plan = plan_of(folder, tmp_path, channel=1 if "companion" in header else None)
    assert plan.shape_zyx == shape
    assert plan.files[0].name == header
    names = {path.name for path in folder.iterdir()} - {"readme.txt"}
    named = {file.name for file in plan.files}
    assert named == (names - {"w1.ome.tif"} if "companion" in header else names)
    assert all(
        file.url == f"{folder.as_uri()}/{file.name}".replace(" ", "%20") for file in plan.files
    )
    assert (
        plan_of(folder / header, tmp_path, channel=plan.reader["handle"].get("channel")).files[1:]
        == plan.files[1:]
    )
    absent = max(named - {header})
    (folder / absent).unlink()
    with pytest.raises(UnsupportedFormatError, match=f"1 are not there: {re.escape(absent)}"):
        plan_of(folder / header, tmp_path, channel=plan.reader["handle"].get("channel"))


def test_an_archive_of_single_files_refuses_a_part_by_name(tmp_path: Path) -> None:
    single.by_pynrrd("uint16", tmp_path, name="a.nhdr")
    _, (volume,) = registry.describe_volumes(LocalBytes(tmp_path / "a.nhdr"), "a.nhdr", Options())
    assert volume.refused == (
        "its voxels lie in other files (a.raw): give the address of this one to read them"
    )


def change(path: Path, old: str, new: str) -> None:
    data = path.read_bytes()
    assert old.encode() in data
    path.write_bytes(data.replace(old.encode(), new.encode()))


def companion(folder: Path, change_xml: Callable[[str], str]) -> Path:
    tiff.ome_companion(folder)
    path = folder / "a.companion.ome"
    before = path.read_text()
    path.write_text(change_xml(before))
    assert path.read_text() != before
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('FirstC="1"', 'FirstC="0"', "in two places"),
        ('FirstC="1"', 'FirstC="2"', "outside of its image"),
        ('PlaneCount="9"', 'PlaneCount="8"', "1 of 9 planes are in no file"),
        ('PlaneCount="9"', 'PlaneCount="99"', "outside of its image|two places"),
        ('FileName="w2.ome.tif"', 'FileName="w1.ome.tif"', "one page for several planes"),
        ('<UUID FileName="w1.ome.tif">urn:uuid:0</UUID>', "", "the companion itself"),
        ('SizeZ="9"', 'SizeZ="999999999"', "1999999998 planes"),
        ('SizeC="2"', 'SizeC="99999999999"', "899999999991 planes"),
        ('Type="uint8"', 'Type="complex"', "'complex'"),
        ('FileName="w1.ome.tif"', "", "does not name the file"),
        ('SizeX="53"', 'SizeX="54"', r"planes of \(37, 54\) uint8, the file has \(37, 53\)"),
        ('Type="uint8"', 'Type="int8"', "int8, the file has"),
        ('IFD="0"', 'IFD="1"', "page 9, the file has 9"),
        ("urn:uuid:0</UUID>", "urn:uuid:5</UUID>", "another file of the same name"),
    ],
)
def test_an_ome_xml_that_does_not_fit_its_files(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    path = companion(tmp_path, lambda xml: xml.replace(old, new))
    with pytest.raises(FormatError, match=said):
        read(path, "tiff", tmp_path)


def test_each_channel_needs_its_own_files_only(tmp_path: Path) -> None:
    voxels = tiff.ome_companion(tmp_path)
    path = tmp_path / "a.companion.ome"
    first, second = described(path, "tiff")
    assert (first.beside, second.beside) == (("w1.ome.tif",), ("w2.ome.tif",))
    (tmp_path / "w1.ome.tif").unlink()
    np.testing.assert_array_equal(read(path, "tiff", tmp_path, 1), voxels)


def test_files_that_changed_their_names_are_no_others(tmp_path: Path) -> None:
    """Two files whose names were swapped: the voxels of one would be taken for the other's."""
    tiff.ome_files(tmp_path)
    one, other = tmp_path / "a z0.ome.tif", tmp_path / "a z1.ome.tif"
    shutil.move(one, tmp_path / "x")
    shutil.move(other, one)
    shutil.move(tmp_path / "x", other)
    with pytest.raises(FormatError, match="it was renamed"):
        read(one, "tiff", tmp_path)


def test_the_file_with_the_ome_xml_may_have_another_name(tmp_path: Path) -> None:
    voxels = tiff.ome_files(tmp_path)
    shutil.move(tmp_path / "a z0.ome.tif", tmp_path / "other.ome.tif")
    np.testing.assert_array_equal(read(tmp_path / "other.ome.tif", "tiff", tmp_path), voxels)


def test_colours_in_a_part_are_refused(tmp_path: Path) -> None:
    path = companion(tmp_path, lambda xml: xml.replace("urn:uuid:0</UUID>", "</UUID>"))
    tifffile.imwrite(tmp_path / "w1.ome.tif", np.zeros((9, *tiff.SHAPE[1:], 3), np.uint8))
    with pytest.raises(UnsupportedFormatError, match=r"colour|samples|RGB"):
        read(path, "tiff", tmp_path)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("s%02d.raw 1 11 0", "names files by"),
        ("s%02d.raw 1 999999999 1", "names files by"),
        ("../s%02d.raw 1 11 1", "only files beside it"),
        ("s%02d.raw 1 10 1", "where its voxels are"),
    ],
)
def test_a_pattern_of_files_that_makes_no_volume(pattern: str, said: str, tmp_path: Path) -> None:
    single.slices_beside(True, tmp_path)
    change(tmp_path / "a.nhdr", "s%02d.raw 1 11 1 2", pattern)
    with pytest.raises(FormatError, match=said):
        read(tmp_path / "a.nhdr", "nrrd", tmp_path)


@pytest.mark.parametrize("skip", ["7", "-1"])
def test_what_a_header_skips_of_its_data_file(skip: str, tmp_path: Path) -> None:
    voxels = single.by_pynrrd("uint16", tmp_path, name="a.nhdr", **{"byte skip": skip})
    raw = tmp_path / "a.raw"
    raw.write_bytes(b"7 bytes" + voxels.tobytes())
    np.testing.assert_array_equal(read(tmp_path / "a.nhdr", "nrrd", tmp_path), voxels)
    raw.write_bytes(voxels.tobytes()[2:])
    with pytest.raises(FormatError, match=r"where its voxels are|too short for its voxels"):
        read(tmp_path / "a.nhdr", "nrrd", tmp_path)


def test_voxels_that_end_a_file_are_none_of_its_header(tmp_path: Path) -> None:
    head = b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 30 3\nbyte skip: -1\n\n"
    (tmp_path / "a.nrrd").write_bytes(head + bytes(40))
    with pytest.raises(FormatError, match="too short for its voxels"):
        described(tmp_path / "a.nrrd", "nrrd")


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (b"1 2 3", "u1", "within its last voxel"),
        (b"1 256\n", "u1", "no uint8"),
        (b"1 -1\n", "u2", "no uint16"),
        (b"1 1.5\n", "i4", "no int32"),
        (b"1_0 2\n", "i4", "no int32"),
        (b"1e39 2\n", "f4", "no float32"),
        (b"x" * 500 + b"\n", "f4", "no float32"),
    ],
)
def test_text_that_is_no_voxels(text: bytes, kind: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        list(text_numbers(MemoryBytes(text), 0, np.dtype(kind)))


def test_numbers_that_lie_over_the_border_of_two_reads() -> None:
    text = b" ".join(b"%d" % n for n in range(200_000)) + b"\n"
    found = b"".join(text_numbers(MemoryBytes(text), 0, np.dtype("<u4")))
    assert len(text) > 2**20
    assert np.array_equal(np.frombuffer(found, "<u4"), np.arange(200_000))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("MET_USHORT", "MET_USHORT_ARRAY", "voxels of 1 x USHORT_ARRAY"),
        ("CenterOfRotation = 0 0 0", "ElementNumberOfChannels = 3", "voxels of 3 x USHORT"),
        ("NDims = 3", "NDims = 4", "of 4 dimensions"),
        ("CenterOfRotation = 0 0 0", "HeaderSize = 4", "HeaderSize 4"),
        ("CenterOfRotation = 0 0 0", "ElementByteOrderMSB = True", "two byte orders"),
        ("DimSize = 36", "DimSize = -36", "DimSize -36"),
        ("ElementDataFile = LOCAL", "ElementDataFile = ", "before it names its voxels"),
    ],
)
def test_what_a_metaimage_may_be_and_is_not_read(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    single.metaimage("uint16", "", tmp_path)
    change(tmp_path / "a.mha", old, new)
    with pytest.raises(FormatError, match=said):
        described(tmp_path / "a.mha", "metaimage")


def test_a_metaimage_that_turns_its_axes_is_told_and_not_placed(tmp_path: Path) -> None:
    single.metaimage("uint16", "", tmp_path)
    change(tmp_path / "a.mha", "TransformMatrix = 1", "TransformMatrix = -1")
    (volume,) = described(tmp_path / "a.mha", "metaimage")
    assert volume.origin_nm_zyx is None
    assert any("turns or mirrors axes" in note for note in volume.notes)
    change(tmp_path / "a.mha", "DistanceUnits = nm\n", "")
    (volume,) = described(tmp_path / "a.mha", "metaimage")
    assert volume.voxel.known_nm_zyx is None
    assert any("has no unit: not taken" in note for note in volume.notes)


def test_rows_of_one_voxel_are_told_from_a_plane(tmp_path: Path) -> None:
    """tifffile writes (3, 37, 1) as one page of 3 x 37; only named axes tell which it is."""
    path, voxels = tmp_path / "a.tif", np.arange(111, dtype="u1").reshape(3, 37, 1)
    tifffile.imwrite(path, voxels, photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(UnsupportedFormatError, match="rows of one voxel"):
        open_tiff(LocalBytes(path))
    tifffile.imwrite(path, voxels, photometric="minisblack")
    volume = open_tiff(LocalBytes(path))
    assert volume.shape_zyx == (1, 3, 37)
    assert any("(3, 37, 1) is taken for rows, columns and one sample" in n for n in volume.notes)


def test_two_headers_in_a_folder_are_offered(tmp_path: Path) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    for name in ("a.nhdr", "b.nhdr"):
        single.by_pynrrd("uint16", folder, name=name)
    with pytest.raises(ConfigError, match="2 volumes are here"):
        plan_of(folder, tmp_path)
