"""IDR: images by id or dataset, files by OMERO's paths, every kind of TIFF, and what cannot be."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulators.omero_documents import OMERO_IMAGES
from lib.archives.idr.archive import omero
from lib.archives.idr.files import locate
from lib.archives.voxels import decide_voxel
from lib.config.loaders import IDRConfig
from lib.errors import (
    BadAnswerError,
    FormatError,
    NotFoundError,
    SourceChangedError,
    TransportError,
    UnsupportedFormatError,
)
from lib.formats.format import VoxelSize
from tests.kit.restored import restored

XY = 9846137
COMPANION = 99000003
TWO_CHANNELS = 99000011
CONVERTED = sorted(set(OMERO_IMAGES) - {COMPANION, TWO_CHANNELS})


# --- the plan ---------------------------------------------------------------------------------


def test_the_public_image_is_planned_from_file_and_catalogue(bench: Any) -> None:
    plan = bench("idr").one_plan()
    assert plan.source_id == "9846137 (idr0086)"
    assert plan.name == "Figure_S3B_FIB-SEM_U2OS_20x20x20nm_xy_9846137"
    assert plan.voxel_nm_zyx == (20.0, 20.0, 20.0)
    assert plan.voxel_size_provenance == "file"
    assert plan.notes == ()
    about = plan.about
    assert (about.organism, about.specimen) == ("Homo sapiens", "U2OS")
    assert (about.licence, about.doi) == ("CC-BY-4.0", "10.17867/10000141d")
    assert (about.modality, about.imaging_date) == ("FIB-SEM", "2019-07-01")


def test_every_kind_of_tiff_is_voxel_exact_from_a_kept_file(bench: Any, truth: Any) -> None:
    one = bench("idr", image_ids=CONVERTED)
    plans = one.plan()
    assert len(plans) == len(CONVERTED)
    for plan in plans:
        np.testing.assert_array_equal(one.read(plan), truth(plan))


def test_every_kind_of_tiff_is_voxel_exact_by_ranges(
    bench: Any, truth: Any, published: Any
) -> None:
    one = bench("idr", image_ids=CONVERTED, keep_raw=False)
    for plan in one.plan():
        assert plan.reader["direct"]
        np.testing.assert_array_equal(one.read(plan), truth(plan))
        (fetched,) = one.verify_source_unchanged(plan)
        content = published(plan.files[0].name).read_bytes()
        assert fetched.sha256 == hashlib.sha256(content).hexdigest()
    assert one.leftovers() == one.downloads() == []


def test_images_of_one_file_bring_it_once(bench: Any, truth: Any, faults: Any) -> None:
    one = bench("idr", image_ids=[99000006, 99000007])
    first, second = one.plan()
    assert (first.reader["series"], second.reader["series"]) == (0, 1)
    assert (first.download_bytes > 0, second.download_bytes) == (True, 0)
    for plan in (first, second):
        np.testing.assert_array_equal(one.read(plan), truth(plan))
        assert len(one.verify_source_unchanged(plan)) == 1
    transfers = [line for line in faults.counters.log("ftp") if line.method == "RETR"]
    assert len(transfers) == 1


def test_each_channel_is_a_volume(bench: Any, truth: Any) -> None:
    one = bench("idr", image_ids=[TWO_CHANNELS])
    first, second = one.plan()
    assert first.name.endswith("_c0")
    assert second.name.endswith("_c1")
    expected = truth(first)  # of the first channel
    np.testing.assert_array_equal(one.read(first), expected)
    assert not np.array_equal(one.read(second), expected)


def test_a_dataset_is_listed_page_by_page(bench: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(omero, "_PAGE", 1)
    plans = bench("idr", dataset_id=10740).plan()
    assert [plan.source_id for plan in plans] == ["9846137 (idr0086)", "99000001 (idr0086)"]


def test_an_image_of_a_dataset_that_cannot_be_converted_is_named(bench: Any) -> None:
    plans = bench("idr", dataset_id=99100).plan()
    assert not [plan for plan in plans if str(COMPANION) in plan.source_id]
    assert all(f"image {COMPANION}" in " ".join(plan.notes) for plan in plans)


def test_images_are_chosen_by_the_paths_of_their_files(bench: Any) -> None:
    both = bench("idr", dataset_id=10740).plan()
    paths = [plan.files[0].url.partition("/IDR/")[2] for plan in both]
    assert len(set(paths)) == 2
    (first,) = bench("idr", dataset_id=10740, include=[paths[0]]).plan()
    assert first.source_id == both[0].source_id
    assert "include and exclude leave out 1 of 2" in first.notes
    (second,) = bench("idr", dataset_id=10740, exclude=[paths[0].rpartition("/")[2]]).plan()
    assert second.source_id == both[1].source_id
    with pytest.raises(NotFoundError, match=f"none of 2 paths, such as {re.escape(paths[0])}"):
        bench("idr", dataset_id=10740, include=["*.nd2"]).plan()


def test_a_path_that_no_server_can_be_asked_for_is_a_named_error() -> None:
    with pytest.raises(UnsupportedFormatError, match="control character"):
        locate(["/uod/idr/filesets/idr0001/a\0b.tif"], IDRConfig(), 7)


def test_an_image_of_a_dataset_whose_file_is_away_is_named(bench: Any, published: Any) -> None:
    plans = bench("idr", dataset_id=10740).plan()
    path = published(plans[0].files[0].name)
    away = path.with_name("away")
    path.rename(away)
    try:
        (plan,) = bench("idr", dataset_id=10740).plan()
    finally:
        away.rename(path)
    assert plan.source_id == plans[1].source_id
    assert any(note.startswith(f"image {XY} was left out: ") for note in plan.notes)


def test_an_image_asked_for_by_id_must_be_convertible(bench: Any) -> None:
    with pytest.raises(FormatError, match="companion") as caught:
        bench("idr", image_ids=[XY, COMPANION]).plan()
    assert caught.value.unit == f"image {COMPANION}"


@pytest.mark.parametrize("settings", [{"image_ids": [424242]}, {"dataset_id": 424242}])
def test_an_absent_image_or_dataset_is_named(bench: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(NotFoundError) as caught:
        bench("idr", **settings).plan()
    assert "424242" in str(caught.value)


def test_optional_keys_may_be_absent(bench: Any, truth: Any, faults: Any) -> None:
    keys = ["AcquisitionDate", "PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ", "Type"]
    keys += ["omero:series", "SizeC", "SizeT", "SizeZ", "annotations"]
    faults.add("missing_json_keys", "omero", keys=keys)
    one = bench("idr")
    plan = one.one_plan()
    assert plan.voxel_nm_zyx == (20.0, 20.0, 20.0)
    assert plan.about.licence is None
    np.testing.assert_array_equal(one.read(plan), truth(plan))


def test_a_voxel_size_that_nobody_gives_is_marked(bench: Any) -> None:
    plan = bench("idr", image_ids=[99000010]).one_plan()
    assert (plan.voxel_size_provenance, plan.voxel_size_approximate) == ("unknown", True)


# --- the ways ---------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_raw", [True, False])
def test_without_the_mirror_ftp_alone_will_do(
    bench: Any, truth: Any, faults: Any, keep_raw: bool
) -> None:
    faults.add("status_403", "mirror")
    one = bench("idr", keep_raw=keep_raw)
    plan = one.one_plan()
    np.testing.assert_array_equal(one.read(plan), truth(plan))
    assert len(one.verify_source_unchanged(plan)) == 1
    one.raw(plan).finish(True)
    assert one.leftovers() == []


def test_without_ftp_the_mirror_takes_over(bench: Any, truth: Any, faults: Any) -> None:
    faults.add("reply_550", "ftp")
    one = bench("idr")
    plan = one.one_plan()
    assert plan.files[0].url.startswith("http")
    np.testing.assert_array_equal(one.read(plan), truth(plan))
    assert len(one.verify_source_unchanged(plan)) == 1


def test_an_absent_file_is_named_by_both_ways(bench: Any, faults: Any) -> None:
    faults.add("reply_550", "ftp")
    faults.add("status_404", "mirror")
    with pytest.raises(NotFoundError) as caught:
        bench("idr").plan()
    assert "Figure_S3B" in str(caught.value)


def test_a_box_is_read_by_ranges_though_files_are_kept(bench: Any, truth: Any) -> None:
    one = bench("idr", box="z=2:4")
    plan = one.one_plan()
    before = one.received()
    np.testing.assert_array_equal(one.read(plan), truth(plan))
    assert one.received() - before <= plan.download_bytes
    assert one.verify_source_unchanged(plan) == one.downloads() == []


def test_a_file_that_changes_while_it_is_streamed_is_not_mixed(bench: Any, faults: Any) -> None:
    one = bench("idr", keep_raw=False)
    plan = one.one_plan()
    faults.add("changed_file", "mirror")
    with pytest.raises(SourceChangedError):
        one.read(plan)


def test_a_file_that_changed_by_the_end_is_not_settled(bench: Any, published: Any) -> None:
    one = bench("idr")
    plan = one.one_plan()
    one.read(plan)
    path: Path = published(plan.files[0].name)
    with restored(path) as content:
        path.write_bytes(content + b"\0")
        with pytest.raises(SourceChangedError):
            one.verify_source_unchanged(plan)


# --- parts ------------------------------------------------------------------------------------


def test_paths_are_mapped_by_the_longest_prefix() -> None:
    config = IDRConfig(path_mappings={"/uod/idr/filesets": "", "/uod/idr/filesets/x": "else"})
    found = locate(["/uod/idr/filesets/x/idr0001-a/b.tif"], config, 1)
    assert found == ("/pub/databases/IDR/else/idr0001-a/b.tif", "else", "else_idr0001-a")


def test_a_path_without_mapping_says_which_there_are() -> None:
    with pytest.raises(NotFoundError, match="path_mappings"):
        locate(["/other/b.tif"], IDRConfig(), 1)


@pytest.mark.parametrize("path", ["/uod/idr/filesets/../../etc/b.tif", "/uod//b.tif"])
def test_a_path_that_leaves_its_folder_is_refused(path: str) -> None:
    with pytest.raises(UnsupportedFormatError, match="leaves its folder"):
        locate([path], IDRConfig(), 1)


@pytest.mark.parametrize("paths", [["/uod/a.lif"], ["/uod/a.tif", "/uod/b.tif"]])
def test_images_of_no_or_several_tiffs_are_refused_by_name(paths: list[str]) -> None:
    with pytest.raises(UnsupportedFormatError, match="TIFF files"):
        locate(paths, IDRConfig(), 1)


class Client:
    """Answers every request with the same document."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def get_json(self, url: str, params: Any = None) -> Any:
        return self.answer


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"data": None}, {"data": []}, {"data": {"@id": 2}}]
)
def test_an_answer_that_describes_no_image_is_refused(answer: Any) -> None:
    with pytest.raises(BadAnswerError, match="image 1"):
        omero.get_image(Client(answer), "http://x", 1)  # type: ignore[arg-type]


def test_any_value_of_an_image_may_be_of_another_type() -> None:
    pixels = {"SizeX": 4, "PhysicalSizeX": {"Value": 1.0, "Unit": "NANOMETER"}}
    image = {"@id": 1, "Name": "n", "AcquisitionDate": 5, "omero:series": 0, "Pixels": pixels}
    values: tuple[Any, ...] = (
        None,
        -5,
        1e300,
        "text",
        [],
        {},
        [None],
        {"Value": "x"},
        {"value": []},
    )
    for value in values:
        for key in set(image) - {"@id"}:
            omero.get_image(Client({"data": {**image, key: value}}), "http://x", 1)  # type: ignore[arg-type]
        for key in (*pixels, "Type", "SizeC", "PhysicalSizeZ"):
            answer = {"data": {**image, "Pixels": {**pixels, key: value}}}
            omero.get_image(Client(answer), "http://x", 1)  # type: ignore[arg-type]


def test_a_list_of_images_that_never_ends_is_refused() -> None:
    endless = {"data": [{"@id": 1}], "meta": {"totalCount": 5}}
    with pytest.raises(TransportError, match="ends after 1 of 5"):
        omero.list_images(Client(endless), "http://x", 1)  # type: ignore[arg-type]


def test_the_file_wins_over_the_catalogue_and_the_difference_is_noted() -> None:
    voxel = decide_voxel(VoxelSize(None, 8.0, 8.0), (50.0, 8.0, 9.0), "the API")
    assert voxel.nm_zyx == (50.0, 8.0, 8.0)
    assert voxel.provenance == "file and api"
    assert voxel.notes == (
        "voxel size along x: the API says 9 nm, the file 8 nm; the file's was taken",
    )
    assert not voxel.approximate


@pytest.mark.parametrize(
    ("unit", "nm"),
    [("MICROMETER", 20.0), ("NANOMETER", 0.02), ("ANGSTROM", 0.002), ("PIXEL", None)],
)
def test_physical_sizes_carry_units(unit: str, nm: float | None) -> None:
    pixels = {"PhysicalSizeX": {"Value": 0.02, "Unit": unit}}
    image = omero.get_image(Client({"data": {"@id": 1, "Pixels": pixels}}), "http://x", 1)  # type: ignore[arg-type]
    assert image.voxel_nm_zyx == (None, None, nm)
