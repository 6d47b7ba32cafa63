"""EMPIAR: numbered sections become one volume, the file is believed, listings are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import nrrd
import numpy as np
import pytest
import tifffile
from PIL import Image

from emulators.dm import write_dm
from emulators.documents import empiar_entry
from emulators.mrc import write_mrc
from emulators.serving import Samples
from lib.archives.ebi.entry import organism_in, parse_entry
from lib.archives.ebi.grouping import sort_files
from lib.archives.ebi.volumes import why_none
from lib.errors import (
    BadAnswerError,
    FormatError,
    IncompleteTransferError,
    NotFoundError,
    OutOfBoundsError,
    SourceChangedError,
)
from lib.formats.format import VolumeDescription
from lib.geometry import Box

SLICE = "F57-8_test1_3VBSED_slice_{:04d}.dm3"


@pytest.fixture
def data(samples: Samples) -> Iterator[Path]:
    """The folder of entry 11759, put right again after the test."""
    folder = samples.root / "ftp/empiar/world_availability/11759/data"
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    yield folder
    shutil.rmtree(folder)
    kept.rename(folder)


# --- files of every format ----------------------------------------------------------------------


def test_an_entry_of_another_format_is_read_as_by_its_address(bench: Any, data: Path) -> None:
    """Sections of TIFF in a folder of their own, labels of PNG, one file of NRRD."""
    random = np.random.default_rng(3)
    em = random.integers(0, 255, (7, 20, 30), dtype=np.uint8)
    labels = random.integers(0, 9, (5, 20, 30), dtype=np.uint8)
    folder = data / "aligned"
    folder.mkdir()
    for z, plane in enumerate(em):
        tifffile.imwrite(folder / f"slice {z + 1}_z={z * 5}.tif", plane)
    for z, plane in enumerate(labels):
        Image.fromarray(plane).save(folder / f"label_{z:03d}.png")
    Image.fromarray(em[0]).save(folder / "preview.png")
    nrrd.write(str(folder / "volume.nrrd"), em, index_order="C")
    one = bench("ebi", folder="data/aligned")
    plans = {plan.reader["format"]: plan for plan in one.plan()}
    assert set(plans) == {"tiff", "png", "nrrd"}
    for name, truth in (("tiff", em), ("png", labels), ("nrrd", em)):
        np.testing.assert_array_equal(one.read(plans[name]), truth)
        assert one.verify_source_unchanged(plans[name])
    assert any("preview.png was left out: one picture" in note for note in plans["tiff"].notes)
    box = bench("ebi", folder="data/aligned", box="z=2:5,y=3:9", include=["*.tif"])
    np.testing.assert_array_equal(box.read(box.one_plan()), em[2:5, 3:9])


def test_a_file_of_several_volumes_is_as_many(bench: Any, data: Path) -> None:
    (data / "aligned").mkdir()
    random = np.random.default_rng(4)
    truth = {name: random.integers(0, 9, (4, 5, 6), np.uint8) for name in ("raw", "labels")}
    with h5py.File(data / "aligned/both.h5", "w") as file:
        for name, voxels in truth.items():
            file.create_dataset(name, data=voxels, chunks=(2, 5, 6))
    one = bench("ebi", folder="data/aligned")
    plans = {plan.internal_path: plan for plan in one.plan()}
    assert {name: plan.kind for name, plan in plans.items()} == {"raw": "image", "labels": "labels"}
    for name, voxels in truth.items():
        np.testing.assert_array_equal(one.read(plans[name]), voxels)
        assert one.verify_source_unchanged(plans[name])


# --- the plan ---------------------------------------------------------------------------------


def test_sixteen_sections_are_one_volume_told_by_the_files(bench: Any) -> None:
    plan = bench("ebi").one_plan()
    assert plan.source_id == "EMPIAR-11759"
    assert plan.name == "EMPIAR-11759_F57-8_test1_3VBSED"
    assert plan.shape_zyx == (16, 48, 64)
    assert plan.voxel_nm_zyx == (50.0, 7.99825, 7.99825)
    assert plan.voxel_size_provenance == "file"
    assert [file.name for file in plan.files] == [SLICE.format(n) for n in range(16)]


def test_the_record_is_the_entrys_with_the_files_date(bench: Any) -> None:
    about = bench("ebi").one_plan().about
    assert about.title == "Developing retina in zebrafish 55 hpf larval eye."
    assert about.organism == "Danio rerio"
    assert about.modality == "SBF-SEM"
    assert about.licence == "CC0-1.0"
    assert about.authors == ("Wilsch-Bräuninger M",)
    assert about.doi == "10.6019/EMPIAR-11759"
    assert about.release_date == "2024-01-15"
    assert about.imaging_date == "2018-06-11"
    assert about.extra["deposition_date"] == "2023-11-01"
    assert "Users" not in str(about)  # the tags hold a Windows path


def test_what_is_no_volume_is_listed_and_no_error(bench: Any) -> None:
    listed = bench("ebi").one_plan().about.extra["unsupported_files"]
    assert "F57-8_test1.xml.gz" in listed
    assert any(name.startswith("trakem2.") and name.endswith("/") for name in listed)


def test_each_contradiction_of_the_api_is_noted(bench: Any) -> None:
    notes = " ".join(bench("ebi").one_plan().notes)
    assert "5628 x 5632" in notes
    assert "the API says 8 nm, the file 7.99825 nm" in notes


@pytest.mark.parametrize("entry_id", ["11759", "EMPIAR-11759", "empiar-11759"])
def test_an_entry_is_found_by_any_spelling(bench: Any, entry_id: str) -> None:
    assert bench("ebi", entry_id=entry_id).one_plan().source_id == "EMPIAR-11759"


def test_an_unknown_entry_is_named(bench: Any) -> None:
    with pytest.raises(NotFoundError) as caught:
        bench("ebi", entry_id="424242").plan()
    assert "entry_id" in caught.value.advice


def test_files_of_other_kinds_are_volumes_of_their_own(bench: Any, truth: Any) -> None:
    one = bench("ebi", entry_id="99001")
    plans = one.plan()
    assert [plan.name.removeprefix("EMPIAR-99001_") for plan in plans] == [
        "aligned_ali",
        "block_dm4",
        "packed_mrc_gz",
        "packed_rec_bz2",
        "permuted_mrc",
        "reconstruction_rec",
        "tilts_st",
        "volume_mrc",
    ]
    for plan in plans:
        np.testing.assert_array_equal(one.read(plan), truth(plan))
    assert one.leftovers() == []


def test_a_voxel_size_that_nobody_gives_is_marked(bench: Any) -> None:
    plans = {plan.name: plan for plan in bench("ebi", entry_id="99001").plan()}
    plan = plans["EMPIAR-99001_tilts_st"]
    assert (plan.voxel_size_provenance, plan.voxel_size_approximate) == ("unknown", True)
    assert any("neither file nor the API" in note for note in plan.notes)


def test_sections_can_be_volumes_of_their_own(bench: Any) -> None:
    plans = bench("ebi", assemble="files").plan()
    assert len(plans) == 16
    assert {plan.shape_zyx for plan in plans} == {(1, 48, 64)}


def test_a_stack_that_is_none_is_refused(bench: Any) -> None:
    with pytest.raises(FormatError, match="no numbered sections"):
        bench("ebi", entry_id="99001", assemble="stack").plan()


def test_a_box_brings_only_its_sections(bench: Any, truth: Any) -> None:
    one = bench("ebi", box="z=3:6,x=10:20")
    plan = one.one_plan()
    np.testing.assert_array_equal(one.read(plan), truth(bench("ebi").one_plan())[3:6, :, 10:20])
    assert [file.name for file in plan.files] == [SLICE.format(n) for n in (3, 4, 5)]


def test_optional_keys_of_the_entry_may_be_absent(bench: Any, faults: Any) -> None:
    keys = ["citation", "authors", "imagesets", "experiment_type", "release_date", "entry_doi"]
    faults.add("missing_json_keys", "empiar", keys=keys)
    plan = bench("ebi").one_plan()
    assert plan.shape_zyx == (16, 48, 64)
    assert plan.about.authors == ()
    assert plan.about.citation is plan.about.modality is None


# --- both protocols ---------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["ftp", "https"])
def test_either_protocol_alone_brings_the_same_voxels(
    bench: Any, truth: Any, faults: Any, protocol: str
) -> None:
    dead = "mirror" if protocol == "ftp" else "ftp"
    kind = "status_403" if protocol == "ftp" else "greeting_reset"
    faults.add(kind, dead)
    one = bench("ebi", protocol=protocol, box="z=0:3")
    plan = one.one_plan()
    np.testing.assert_array_equal(one.read(plan), truth(plan))
    assert len(one.verify_source_unchanged(plan)) == 3


def test_ftp_takes_over_where_https_fails(bench: Any, truth: Any, faults: Any) -> None:
    one = bench("ebi", box="z=0:3")
    plan = one.one_plan()
    assert plan.files[0].url.startswith("http://")
    faults.add("status_403", "mirror")
    np.testing.assert_array_equal(one.read(plan), truth(plan))
    assert len(one.verify_source_unchanged(plan)) == 3


@pytest.mark.parametrize("protocol", ["auto", "ftp"])
def test_half_a_listing_is_not_taken_for_the_entry(bench: Any, faults: Any, protocol: str) -> None:
    faults.add("short_list", "ftp")
    one = bench("ebi", protocol=protocol)
    if protocol == "auto":
        assert one.one_plan().shape_zyx == (16, 48, 64)
    else:
        with pytest.raises(IncompleteTransferError, match="listing"):
            one.plan()


# --- the files --------------------------------------------------------------------------------


def test_a_section_that_is_absent_from_the_archive_is_a_named_hole(
    bench: Any, data: Path, truth: Any
) -> None:
    expected = truth(bench("ebi").one_plan())
    (data / SLICE.format(5)).unlink()
    one = bench("ebi")
    plan = one.one_plan()
    assert plan.shape_zyx == (16, 48, 64)
    assert plan.sections == 16, "holes are counted in sections"
    assert any("1 sections are absent from the archive: 5" in note for note in plan.notes)
    voxels = one.read(plan)
    expected = expected.copy()
    expected[5] = 0
    np.testing.assert_array_equal(voxels, expected)
    with one.archive.open(plan, one.config, one.session, one.raw(plan)) as reader:
        missing = [m for block in reader.blocks(Box.whole(plan.shape_zyx)) for m in block.missing]
    assert missing == ["section 5"]


def test_a_section_of_another_size_is_a_volume_of_its_own(
    bench: Any, data: Path, truth: Any
) -> None:
    expected = truth(bench("ebi").one_plan()).copy()
    write_dm(data / SLICE.format(7), np.ones((50, 64), np.uint8), pixel_size_zyx=(0.008, 0.008))
    one = bench("ebi")
    stack, single = one.plan()
    assert (stack.shape_zyx, len(stack.files)) == ((16, 48, 64), 15)
    assert any("1 sections are left out, their places are empty: 7" in n for n in stack.notes)
    assert any("slice_0007.dm3 is a volume of its own: it is (1, 50, 64)" in n for n in stack.notes)
    expected[7] = 0
    np.testing.assert_array_equal(one.read(stack), expected)
    assert (one.read(single) == 1).all()


def test_a_section_cut_short_in_the_archive_is_left_out_by_name(bench: Any, data: Path) -> None:
    path = data / SLICE.format(7)
    path.write_bytes(path.read_bytes()[:-3000])
    plan = bench("ebi").one_plan()
    assert len(plan.files) == 15
    assert any(f"{SLICE.format(7)} was left out: " in note for note in plan.notes)
    assert f"data/{SLICE.format(7)}" in plan.about.extra["unsupported_files"]


def test_a_bad_section_that_no_header_shows_fails_by_name(bench: Any, data: Path) -> None:
    one = bench("ebi")
    plan = one.one_plan()
    path = data / SLICE.format(7)
    content = path.read_bytes()
    path.write_bytes(b"\0" * len(content))
    with pytest.raises(FormatError) as caught:
        one.read(plan)
    assert caught.value.unit == SLICE.format(7)
    assert "exclude" in caught.value.advice or "Fetch" in caught.value.advice
    assert SLICE.format(7) not in " ".join(one.downloads())


def test_a_file_that_is_not_there_is_asked_for_once_however_many_wait_for_it(
    bench: Any, data: Path
) -> None:
    one = bench("ebi", protocol="https")
    plan = one.one_plan()
    (data / SLICE.format(7)).unlink()
    reading = one.archive._reading(plan, one.config, one.session, one.raw(plan))
    said = []
    for _ in range(2):
        with pytest.raises(NotFoundError) as caught:
            reading.bring(plan.files[7])
        said.append((caught.value, one.session.counters.snapshot()))
    assert said[0] == said[1]


def test_a_stack_that_is_demanded_lacks_no_file(bench: Any, data: Path) -> None:
    write_dm(data / SLICE.format(7), np.ones((50, 64), np.uint8), pixel_size_zyx=(0.008, 0.008))
    with pytest.raises(FormatError, match="no whole stack") as caught:
        bench("ebi", assemble="stack").plan()
    assert str(caught.value.location).endswith(SLICE.format(7))
    assert "exclude" in caught.value.advice


def test_files_are_chosen_by_pattern(bench: Any, truth: Any) -> None:
    whole = bench("ebi").one_plan()
    for settings in (
        {"include": [SLICE.format(n) for n in range(3)]},
        {"exclude": ["data/*_00[01][3-9].dm3", "*_001[0-2].dm3"]},
    ):
        one = bench("ebi", **settings)
        plan = one.one_plan()
        assert [file.name for file in plan.files] == [SLICE.format(n) for n in range(3)]
        assert plan.name.startswith(f"{whole.name}_without-")
        assert "include and exclude leave out 13 of 16" in plan.notes
        np.testing.assert_array_equal(one.read(plan), truth(whole)[:3])


def test_a_section_that_is_excluded_leaves_its_place_empty(bench: Any, truth: Any) -> None:
    one = bench("ebi", exclude=[SLICE.format(n) for n in range(1, 16, 2)])
    plan = one.one_plan()
    assert plan.shape_zyx == (15, 48, 64)
    voxels = one.read(plan)
    np.testing.assert_array_equal(voxels[::2], truth(bench("ebi").one_plan())[::2])
    assert not voxels[1::2].any()


def test_a_pattern_that_fits_nothing_is_told(bench: Any) -> None:
    (plan,) = bench("ebi", exclude=["*.tif"]).plan()
    assert any("no path fits the pattern '*.tif' of exclude" in note for note in plan.notes)
    with pytest.raises(NotFoundError, match="leave none of 16 paths, such as data/F57"):
        bench("ebi", include=["sec_*.dm3"]).plan()


def test_a_file_that_is_replaced_meanwhile_is_not_settled(bench: Any, data: Path) -> None:
    one = bench("ebi", box="z=0:2")
    plan = one.one_plan()
    one.read(plan)
    with (data / SLICE.format(1)).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(SourceChangedError, match="size was"):
        one.verify_source_unchanged(plan)


def test_a_file_that_is_replaced_before_the_next_run_is_fetched_again(
    bench: Any, data: Path
) -> None:
    first = bench("ebi", box="z=0:2")
    plan = first.one_plan()
    first.read(plan)
    path = data / SLICE.format(1)
    path.write_bytes(path.read_bytes() + b"\0")
    second = bench("ebi", box="z=0:2")
    plan = second.one_plan()
    before = second.received()
    second.read(plan)
    assert second.received() - before == path.stat().st_size
    assert len(second.verify_source_unchanged(plan)) == 2


# --- parts ------------------------------------------------------------------------------------


def facts(shape: tuple[int, int, int] = (1, 4, 5), dtype: str = "uint8") -> VolumeDescription:
    return VolumeDescription("", {}, shape, dtype)


def sort(
    names: list[str], describe: Callable[[str], VolumeDescription], assemble: str = "auto"
) -> Any:
    return sort_files(dict.fromkeys(names, 1000), lambda name: [describe(name)], assemble)


def test_numbers_in_steps_leave_no_hole() -> None:
    (volume,) = sort(["a_10.dm3", "a_20.dm3", "a_30.dm3"], lambda _: facts()).volumes
    assert (volume.shape_zyx, volume.places) == ((3, 4, 5), (0, 1, 2))
    assert volume.notes[0] == "sections are numbered in steps of 10"


def test_numbered_volumes_are_no_sections() -> None:
    sorting = sort(["v_1.mrc", "v_2.mrc"], lambda _: facts((7, 4, 5)))
    assert [volume.names for volume in sorting.volumes] == [("v_1.mrc",), ("v_2.mrc",)]
    with pytest.raises(FormatError, match="more than one section"):
        sort(["v_1.mrc", "v_2.mrc"], lambda _: facts((7, 4, 5)), "stack")


def test_sections_too_small_for_their_voxels_are_left_out() -> None:
    sizes = {"a_1.dm3": 1000, "a_2.dm3": 1000, "a_3.dm3": 10}
    sorting = sort_files(sizes, lambda _: [facts()], "auto")
    assert [volume.names for volume in sorting.volumes] == [("a_1.dm3", "a_2.dm3")]
    assert sorting.refused == {"a_3.dm3": "the file has 10 bytes, a section of this stack needs 20"}


# Of each section, what is wrong with it: "bad", another "shape", or nothing.
@pytest.mark.parametrize(
    ("wrong", "stack", "places"),
    [
        ({3: "bad"}, (1, 2), (0, 1)),
        ({1: "bad"}, (2, 3), (0, 1)),
        ({1: "bad", 2: "bad", 6: "bad"}, (3, 4, 5), (0, 1, 2)),
        ({5: "shape"}, (1, 2, 3, 4), (0, 1, 2, 3)),
        ({1: "shape", 9: "bad"}, tuple(range(2, 9)), tuple(range(7))),
        ({2: "bad", 3: ""}, (1, 3), (0, 2)),
        ({2: "shape", 4: ""}, (1, 3, 4), (0, 2, 3)),
    ],
)
def test_what_is_wrong_with_one_section_keeps_no_other_from_the_stack(
    wrong: dict[int, str], stack: tuple[int, ...], places: tuple[int, ...]
) -> None:
    count = max(max(wrong), max(stack))
    sizes = {f"s_{n}.dm3": 900 + 50 * bool(wrong.get(n)) for n in range(1, count + 1)}

    def describe(name: str) -> list[VolumeDescription]:
        fault = wrong.get(int(name[2:-4]), "")
        if fault == "bad":
            raise FormatError("it is complex")
        return [facts((1, 4, 6)) if fault == "shape" else facts()]

    sorting = sort_files(sizes, describe, "auto")
    (made,) = (volume for volume in sorting.volumes if volume.stacked)
    assert (made.names, made.places) == (tuple(f"s_{n}.dm3" for n in stack), places)
    assert made.shape_zyx == (places[-1] + 1, 4, 5)
    single = [volume.names[0] for volume in sorting.volumes if not volume.stacked]
    assert single == [f"s_{n}.dm3" for n, fault in sorted(wrong.items()) if fault == "shape"]
    bad = [f"s_{n}.dm3" for n, fault in sorted(wrong.items()) if fault == "bad"]
    assert sorting.refused == dict.fromkeys(bad, "it is complex")
    with pytest.raises(FormatError, match="no whole stack"):
        sort_files(sizes, describe, "stack")


def test_sections_of_which_no_two_agree_are_volumes_of_their_own() -> None:
    shapes = {"s_1.dm3": (1, 4, 5), "s_2.dm3": (1, 4, 6)}
    sorting = sort([*shapes], lambda name: facts(shapes[name]))
    assert [volume.names for volume in sorting.volumes] == [("s_1.dm3",), ("s_2.dm3",)]
    assert all("some are (1, 4, 5) uint8" in volume.notes[0] for volume in sorting.volumes)


def test_a_folder_full_of_bad_files_is_not_read_one_by_one() -> None:
    asked = []

    def describe(name: str) -> VolumeDescription:
        asked.append(name)
        if name == "good.mrc":
            return facts((7, 4, 5))
        raise FormatError("no header")

    names = [f"s_{n}.dm3" for n in range(5000)]
    sorting = sort([*names, "good.mrc"], describe)
    assert [volume.names for volume in sorting.volumes] == [("good.mrc",)]
    assert len(sorting.refused) == 5000
    assert len(asked) < 20


def test_a_stack_of_ten_thousand_takes_two_headers() -> None:
    asked = []

    def describe(name: str) -> VolumeDescription:
        asked.append(name)
        return facts()

    (volume,) = sort([f"s_{n}.dm3" for n in range(10_000)], describe).volumes
    assert volume.shape_zyx == (10_000, 4, 5)
    assert asked == ["s_0.dm3", "s_9999.dm3"]


@pytest.mark.parametrize(
    ("categories", "stacked"),
    [
        (["micrographs - single frame"], False),
        (["micrographs - single frame", "tilt series"], False),
        (["tilt series"], False),
        (["picked particles - multiframe - processed"], False),
        (["reconstructed volumes"], True),
        (["micrographs - single frame", "reconstructed volumes"], True),
        ([""], True),
        ([], True),
    ],
)
def test_what_the_archive_calls_micrographs_is_no_stack(
    categories: list[str], stacked: bool
) -> None:
    sets = [{"category": category, "data_format": "MRC"} for category in categories]
    entry = parse_entry({"EMPIAR-1": {"imagesets": sets}}, "EMPIAR-1", "where")
    names = ["data/mic_0001.mrc", "data/mic_0002.mrc", "data/mic_0003.mrc"]
    sizes = dict.fromkeys(names, 1000)

    def sorted_by(assemble: str) -> Any:
        return sort_files(
            sizes,
            lambda _: [facts()],
            assemble,
            why_none=lambda path: why_none(path, entry.imagesets),
        )

    sorting = sorted_by("auto")
    assert [volume.stacked for volume in sorting.volumes] == ([True] if stacked else [])
    assert sorted(sorting.refused) == ([] if stacked else names)
    assert all(categories[0] in reason for reason in sorting.refused.values())
    assert [volume.stacked for volume in sorted_by("stack").volumes] == [True]
    assert [volume.stacked for volume in sorted_by("files").volumes] == [False] * 3


def test_a_folder_of_micrographs_leaves_the_sections_of_another_alone() -> None:
    sets = [
        {"category": "micrographs - single frame", "data_format": "MRC", "directory": "data/a"},
        {"category": "reconstructed volumes", "data_format": "MRC", "directory": "data/b"},
    ]
    entry = parse_entry({"EMPIAR-1": {"imagesets": sets}}, "EMPIAR-1", "where")
    assert why_none("data/a/m_1.mrc", entry.imagesets)
    assert why_none("data/a/deep/m_1.mrc", entry.imagesets)
    assert not why_none("data/b/m_1.mrc", entry.imagesets)


def test_a_stack_of_which_the_last_section_is_complex(bench: Any, data: Path) -> None:
    for path in data.iterdir():
        if path.is_file():
            path.unlink()
    planes = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    for number, plane in enumerate(planes, start=1):
        write_dm(data / f"sec_{number}.dm3", plane, pixel_size_zyx=(0.004, 0.004))
    content = (data / "sec_3.dm3").read_bytes()
    # DataType of the image: 2 is float32, 3 a pair of them
    tag = b"\x15\x00\x08DataType%%%%\x00\x00\x00\x01\x00\x00\x00\x05"
    place = content.rindex(tag) + len(tag)
    (data / "sec_3.dm3").write_bytes(content[:place] + b"\3" + content[place + 1 :])
    one = bench("ebi")
    plan = one.one_plan()
    assert [file.name for file in plan.files] == ["sec_1.dm3", "sec_2.dm3"]
    assert any(note.startswith("data/sec_3.dm3 was left out: ") for note in plan.notes)
    np.testing.assert_array_equal(one.read(plan), planes[:2])


def test_a_box_that_does_not_fit_one_volume_leaves_the_others(bench: Any, data: Path) -> None:
    write_mrc(data / "deep.mrc", np.ones((20, 4, 5), np.int8), voxel_nm_zyx=(1.0, 1.0, 1.0))
    plan = bench("ebi", box="z=16:20").one_plan()
    assert plan.files[0].name == "deep.mrc"
    assert any("slice_#.dm3 was left out: the box z=16:20" in note for note in plan.notes)
    with pytest.raises(OutOfBoundsError):
        bench("ebi", box="z=20:30").plan()


def test_a_damaged_file_is_left_out_by_name_where_others_remain() -> None:
    def describe(name: str) -> VolumeDescription:
        if name == "bad.mrc":
            raise FormatError("the header is damaged")
        return facts((7, 4, 5))

    sorting = sort(["bad.mrc", "good.mrc"], describe)
    assert [volume.names for volume in sorting.volumes] == [("good.mrc",)]
    assert sorting.refused == {"bad.mrc": "the header is damaged"}


@pytest.mark.parametrize("answer", [None, [], {}, {"EMPIAR-1": {}}, {"EMPIAR-11759": []}, "x"])
def test_an_answer_without_the_entry_is_refused(answer: Any) -> None:
    with pytest.raises(BadAnswerError, match="EMPIAR-11759"):
        parse_entry(answer, "EMPIAR-11759", "where")


def test_any_value_of_the_entry_may_be_of_another_type() -> None:
    document = empiar_entry("11759")
    assert document is not None
    entry = document["EMPIAR-11759"]
    values: tuple[Any, ...] = (
        None,
        5,
        "text",
        [],
        {},
        [None],
        [5],
        [{"author": 5}],
        [{"name": {}}],
    )
    for value in values:
        for key in entry:
            parse_entry({"EMPIAR-11759": {**entry, key: value}}, "EMPIAR-11759", "where")


@pytest.mark.parametrize(
    ("text", "organism"),
    [
        ("Developing retina in Zebrafish", "Danio rerio"),
        ("mouse and human cells", None),
        ("Separation of rats", None),
        ("accurate", None),
        ("Drosophila melanogaster brain", "Drosophila melanogaster"),
        ("", None),
    ],
)
def test_an_organism_is_read_and_never_guessed(text: str, organism: str | None) -> None:
    assert organism_in(text) == organism
