"""DM3 and DM4: every voxel, the right z step and date; no damaged file passes for a whole one."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulators.dm import Section, write_dm
from lib.bytesource.base import LocalBytes, MemoryBytes
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.dm.format import second_opinion
from lib.formats.dm.reader import DmReader, open_dm
from lib.formats.dm.tags import MAX_DEPTH, read_tags
from lib.formats.planes import Section as StackSection
from lib.formats.planes import SectionStack
from lib.formats.sections import group_sections

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
PIXEL = (0.05, 0.007998250424861908, 0.007998250424861908)


def make(shape: tuple[int, ...], dtype: str = "uint8") -> Any:
    values = np.random.default_rng(5).integers(0, 120, shape)
    return values.astype(dtype)


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_voxel_of_a_stack(
    tmp_path: Path, version: int, dtype: str, assert_voxels: Callable[..., None]
) -> None:
    volume = make((5, 21, 34), dtype)
    write_dm(tmp_path / "a.dm3", volume, version=version, pixel_size_zyx=PIXEL)
    image = open_dm(LocalBytes(tmp_path / "a.dm3"))
    assert image.version == version
    assert image.voxel.known_nm_zyx == (50.0, 7.99825, 7.99825)
    assert second_opinion(tmp_path / "a.dm3", image) == ()
    assert_voxels(DmReader(image), volume)


@pytest.mark.parametrize("thumbnail", [True, False])
@pytest.mark.parametrize("document_list", [True, False])
@pytest.mark.parametrize("trailer", [True, False])
def test_the_image_is_found_and_not_its_thumbnail(
    tmp_path: Path,
    thumbnail: bool,
    document_list: bool,
    trailer: bool,
    assert_voxels: Callable[..., None],
) -> None:
    plane = make((40, 30))
    path = tmp_path / "a.dm3"
    write_dm(
        path,
        plane,
        pixel_size_zyx=PIXEL[1:],
        thumbnail=thumbnail,
        document_list=document_list,
        trailer=trailer,
    )
    assert_voxels(DmReader(open_dm(LocalBytes(path))), plane[np.newaxis])


def test_the_z_step_comes_from_the_recording_and_not_from_the_approach(tmp_path: Path) -> None:
    path = tmp_path / "a.dm3"
    write_dm(path, make((20, 30)), pixel_size_zyx=PIXEL[1:], section=Section(2), tags_first=True)
    image = open_dm(LocalBytes(path))
    assert image.voxel.known_nm_zyx == (50.0, 7.99825, 7.99825)
    assert "Meta Data.Dimension info" in str(image.voxel.provenance)


def test_a_section_without_recording_has_no_z_step(tmp_path: Path) -> None:
    path = tmp_path / "a.dm3"
    write_dm(path, make((20, 30)), pixel_size_zyx=PIXEL[1:])
    assert open_dm(LocalBytes(path)).voxel.z_nm is None


@pytest.mark.parametrize("unit", ["", "pixels", "furlong"])
def test_a_scale_that_is_no_length_gives_no_voxel_size(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "a.dm3"
    write_dm(path, make((20, 30)), pixel_size_zyx=PIXEL[1:], unit=unit)
    voxel = open_dm(LocalBytes(path)).voxel
    assert (voxel.y_nm, voxel.x_nm, voxel.provenance) == (None, None, None)


def test_a_spectrum_is_no_volume(tmp_path: Path) -> None:
    path = tmp_path / "a.dm3"
    write_dm(path, make((4, 20, 30)), pixel_size_zyx=(1.0, 1.0, 1.0), unit="eV")
    with pytest.raises(UnsupportedFormatError, match="spectrum"):
        open_dm(LocalBytes(path))


def test_the_date_is_day_first_where_the_scan_stamp_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.dm3"
    write_dm(path, make((20, 30)), pixel_size_zyx=PIXEL[1:], section=Section(0))
    assert open_dm(LocalBytes(path)).acquired == "2018-06-11"
    # the same file as a machine that writes the month first would have made it
    swapped = path.read_bytes().replace(
        "11.06.2018".encode("utf-16-le"), "06/11/2018".encode("utf-16-le")
    )
    assert open_dm(MemoryBytes(swapped)).acquired == "2018-06-11"
    # and without a stamp nobody can tell
    alone = swapped.replace("Mon Jun".encode("utf-16-le"), "??? ???".encode("utf-16-le"))
    image = open_dm(MemoryBytes(alone))
    assert image.acquired is None
    assert any("two ways" in note for note in image.notes)


def test_facts_hold_the_microscope_and_no_path_or_user(tmp_path: Path) -> None:
    path = tmp_path / "a.dm3"
    write_dm(path, make((20, 30)), pixel_size_zyx=PIXEL[1:], section=Section(3))
    assert b"s\0o\0m\0e\0o\0n\0e" in path.read_bytes()
    image = open_dm(LocalBytes(path))
    assert image.facts["microscope"] == "FEI Quanta"
    assert image.facts["voltage_v"] == 1900
    assert image.facts["exposure_number"] == 897134
    assert "someone" not in str(dataclasses.asdict(dataclasses.replace(image, source=None)))  # type: ignore[arg-type]


def test_a_misled_second_opinion_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.dm3"
    write_dm(path, make((20, 30)), pixel_size_zyx=PIXEL[1:], section=Section(2), tags_first=True)
    image = open_dm(LocalBytes(path))
    assert any("ncempy reads" in note for note in second_opinion(path, image))


@pytest.mark.parametrize("version", [3, 4])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, version: int) -> None:
    volume = make((2, 12, 15))
    path = tmp_path / "a.dm4"
    write_dm(path, volume, version=version, pixel_size_zyx=PIXEL, section=Section(1))
    whole = path.read_bytes()
    cuts = [*range(0, len(whole) - 8, 37), len(whole) - 9]
    for length in cuts:
        with pytest.raises(FormatError):
            open_dm(MemoryBytes(whole[:length]))
    for length in range(len(whole) - 8, len(whole)):  # the zeros at the end mean nothing
        assert open_dm(MemoryBytes(whole[:length])).shape_zyx == (2, 12, 15)


def test_values_in_big_endian_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dm3"
    write_dm(path, make((20, 30)), pixel_size_zyx=PIXEL[1:], byte_order=0)
    with pytest.raises(UnsupportedFormatError, match="byte order"):
        open_dm(LocalBytes(path))


def test_other_files_are_not_taken_for_dm() -> None:
    for content in (b"", b"\0\0\0\3", b"II*\0" + bytes(100), b"\0\0\0\5" + bytes(100)):
        with pytest.raises(FormatError):
            open_dm(MemoryBytes(content))


def test_groups_nested_without_end_are_refused() -> None:
    group = b"\0\0" + struct.pack(">I", 1) + b"\x14\0\0"
    content = struct.pack(">III", 3, 0, 1) + group * (10 * MAX_DEPTH)
    with pytest.raises(FormatError, match="nested"):
        read_tags(MemoryBytes(content))


def test_a_size_that_contradicts_the_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dm3"
    write_dm(path, make((20, 31)), pixel_size_zyx=PIXEL[1:], thumbnail=False)
    tag = struct.pack(">II", 1, 5)
    content = path.read_bytes().replace(tag + struct.pack("<I", 31), tag + struct.pack("<I", 2**31))
    with pytest.raises(FormatError, match="needs"):
        open_dm(MemoryBytes(content))


def stack_of(paths: list[Path]) -> SectionStack:
    images = [open_dm(LocalBytes(path)) for path in paths]
    return SectionStack(
        [
            StackSection(
                path.name,
                image.shape_zyx[1:],
                image.dtype,
                lambda path=path, image=image: DmReader(  # type: ignore[misc]
                    dataclasses.replace(image, source=LocalBytes(path))
                ),
            )
            for path, image in zip(paths, images, strict=True)
        ]
    )


def test_sections_become_one_volume_in_slice_order(
    tmp_path: Path, assert_voxels: Callable[..., None]
) -> None:
    volume = make((12, 20, 30))
    names = [f"F57-8_test1_3VBSED_slice_{z:04d}.dm3" for z in range(12)]
    for z, name in enumerate(names):
        write_dm(tmp_path / name, volume[z], pixel_size_zyx=PIXEL[1:], section=Section(z))
    (group,), singles = group_sections(["notes.dm3", *reversed(names)])
    assert (list(group.names), group.missing, [*singles]) == (names, (), ["notes.dm3"])
    assert_voxels(stack_of([tmp_path / name for name in group.names]), volume)


def test_a_section_of_another_shape_is_refused(tmp_path: Path) -> None:
    for name, shape in (("a_1.dm3", (20, 30)), ("a_2.dm3", (20, 31))):
        write_dm(tmp_path / name, make(shape), pixel_size_zyx=PIXEL[1:])
    with pytest.raises(UnsupportedFormatError, match=r"a_2\.dm3"):
        stack_of([tmp_path / "a_1.dm3", tmp_path / "a_2.dm3"])


def test_sections_are_counted_by_number_and_not_by_name() -> None:
    (group,), _ = group_sections(["s9.dm3", "s10.dm3", "s11.dm3"])
    assert group.names == ("s9.dm3", "s10.dm3", "s11.dm3")


def test_a_missing_section_is_seen() -> None:
    (group,), _ = group_sections(["s1.dm3", "s2.dm3", "s5.dm3"])
    assert group.missing == (3, 4)


def numbered(*texts: str) -> list[str]:
    return [f"s_{text}.dm3" for text in texts]


@pytest.mark.parametrize(
    ("texts", "stacks", "single"),
    [
        (("1", "01", "2"), [("1", "2")], ["01"]),
        (("1", "01", "10", "11"), [("1", "10", "11")], ["01"]),
        (("01", "02", "2", "99", "100"), [("01", "02", "99", "100")], ["2"]),
        (("1", "01"), [], ["01", "1"]),
        (("1", "2", "01", "02"), [("1", "2"), ("01", "02")], []),
        (("1", "2", "3", "99999999"), [("1", "2", "3")], ["99999999"]),
        (("1", "2", "70001", "70002"), [("1", "2"), ("70001", "70002")], []),
        (("20180611", "5", "6"), [("5", "6")], ["20180611"]),
    ],
)
def test_one_file_keeps_no_other_from_its_stack(
    texts: tuple[str, ...], stacks: list[tuple[str, ...]], single: list[str]
) -> None:
    groups, singles = group_sections(numbered(*texts))
    assert sorted(group.names for group in groups) == sorted(tuple(numbered(*s)) for s in stacks)
    assert [*singles] == sorted(numbered(*single))
    assert len({group.pattern for group in groups}) == len(groups)
    for group in groups:
        assert sorted([*group.names, *group.apart]) == sorted(numbered(*texts))


def test_suffixes_in_capitals_make_no_second_section() -> None:
    (group,), singles = group_sections(["s_1.dm3", "s_1.DM3", "s_2.dm3"])
    assert (group.numbers, len(singles)) == ((1, 2), 1)


def test_files_far_apart_all_over_are_no_sections() -> None:
    (group,), _ = group_sections([f"t_{number}.dm3" for number in (1, 8000, 17000, 21000)])
    assert group.sparse
    (group,), _ = group_sections([f"t_{number}.dm3" for number in (0, 9000, 18000)])
    assert not group.sparse


def test_what_is_left_out_has_a_part_in_which_number_counts() -> None:
    names = [f"t{t}_{z}.dm3" for t in (1, 2) for z in (1, 2, 3)]
    kept = [name for name in names if not name.endswith("_2.dm3")]
    groups, _ = group_sections(kept, set(names) - set(kept))
    assert [group.numbers for group in groups] == [(1, 3), (1, 3)]
    assert [(g.excluded, g.excluded_numbers) for g in groups] == [
        (("t1_2.dm3",), (2,)),
        (("t2_2.dm3",), (2,)),
    ]
    first, _ = group_sections(["t1_1.dm3", "t2_1.dm3"], [n for n in names if n[3] != "1"])
    assert first == []


def test_what_is_left_out_far_away_or_twice_is_nothing_of_the_stack() -> None:
    (group,), _ = group_sections(numbered("1", "2"), numbered("01", "99999999"))
    assert group.excluded == ()
    assert group.pattern == "s_#.dm3"


def test_folders_and_formats_are_stacks_of_their_own() -> None:
    names = [f"{folder}/s_{z}.{kind}" for folder in "ab" for kind in ("dm3", "mrc") for z in (1, 2)]
    groups, singles = group_sections(names)
    assert [*singles] == []
    assert [group.pattern for group in groups] == [
        "a/s_#.dm3",
        "a/s_#.mrc",
        "b/s_#.dm3",
        "b/s_#.mrc",
    ]


def test_several_stacks_in_one_folder_are_told_apart() -> None:
    names = [f"tile{t}_{z:03d}_8nm.dm3" for t in (1, 2) for z in range(4)]
    groups, singles = group_sections([*names, "overview.tif", "other_7.dm4"])
    assert [len(group.names) for group in groups] == [4, 4]
    assert groups[0].names == tuple(names[:4])
    assert [*singles] == ["other_7.dm4", "overview.tif"]
