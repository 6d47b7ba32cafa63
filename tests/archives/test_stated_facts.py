"""What archives and files say of a volume, and what the record makes of it: all with its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile

from emulators.dm import write_dm
from emulators.documents import dvid_info
from emulators.mrc import write_mrc
from lib.archives.flyem.info import parse_info
from lib.errors import FormatError, UnsupportedFormatError
from lib.plan import About


def an_mrc(folder: Path) -> Path:
    voxels = np.arange(2 * 30 * 40, dtype=np.int16).reshape(2, 30, 40)
    write_mrc(folder / "a.mrc", voxels, voxel_nm_zyx=(4.0, 2.0, 2.0))
    return folder / "a.mrc"


def an_ome_tiff(folder: Path, date: str) -> Path:
    """Two planes of 16 x 20 with an AcquisitionDate and 50, 10, 10 nm."""
    voxels = np.arange(2 * 16 * 20, dtype=np.uint16).reshape(2, 16, 20)
    path = folder / "image.ome.tif"
    sizes = {"PhysicalSizeX": 0.01, "PhysicalSizeY": 0.01, "PhysicalSizeZ": 0.05}
    metadata = {"axes": "ZYX", **sizes, "AcquisitionDate": date}
    tifffile.imwrite(path, voxels, metadata=metadata, ome=True)
    return path


@pytest.mark.parametrize(
    ("said", "word"),
    [("EMDB", "other"), ("SXT", "X-ray"), ("FIB-SEM", "FIB-SEM"), (" \x00 ", None)],
)
def test_any_experiment_type_gives_a_complete_record(
    bench: Any, empiar_entry: Any, tmp_path: Path, said: str, word: str | None
) -> None:
    entry = empiar_entry({"a.mrc": an_mrc(tmp_path)}, entry={"experiment_type": said})
    one = bench("ebi", entry_id=entry)
    record = one.complete_record(one.one_plan())
    assert record["metadata"]["core"]["modality"] == word
    stated = record["metadata"]["provenance"]["stated"]
    if word == said:
        assert stated["modality"] == {"source": "api", "where": "experiment_type"}
    elif word:
        assert stated["modality"]["said"] == said
    doubts = [n for n in record["metadata"]["quality"]["notes"] if n.startswith("modality")]
    assert bool(doubts) == (word == "other")


def test_dates_of_an_entry_are_read_or_quoted(
    bench: Any, empiar_entry: Any, tmp_path: Path
) -> None:
    dates = {"release_date": "15.01.2024", "entry_doi": "https://doi.org/10.6019/EMPIAR-99500"}
    entry = empiar_entry({"a.mrc": an_mrc(tmp_path)}, entry=dates)
    one = bench("ebi", entry_id=entry)
    core = one.complete_record(one.one_plan())["metadata"]["core"]
    assert core["release_date"] == "2024-01-15"
    assert core["doi"] == "10.6019/EMPIAR-99500"


def test_an_image_of_fluorescence_is_converted(bench: Any, idr_image: Any, tmp_path: Path) -> None:
    path = an_ome_tiff(tmp_path, "2019-06-27T18:33:40Z")
    words = {"Imaging Method": "fluorescence microscopy", "License": "to be decided"}
    image = idr_image(path, (2, 16, 20), dtype="uint16", annotations=words)
    one = bench("idr", image_ids=[image])
    record = one.complete_record(one.one_plan())
    core, stated = record["metadata"]["core"], record["metadata"]["provenance"]["stated"]
    assert (core["modality"], core["licence"]) == ("light microscopy", None)
    assert stated["licence"]["said"] == "to be decided"
    assert stated["modality"]["said"] == "fluorescence microscopy"


@pytest.mark.parametrize(
    ("date", "read"),
    [
        ("2019-06-27T18:33:40", "2019-06-27T18:33:40"),
        ("2019-06-27T18:33:40.5+02:00", "2019-06-27T18:33:40.5+02:00"),
        ("2019-06-27", "2019-06-27"),
        ("27/06/2019 6:33 PM", None),
    ],
)
def test_a_date_of_the_file_is_kept_as_stated(
    bench: Any, idr_image: Any, tmp_path: Path, date: str, read: str | None
) -> None:
    image = idr_image(an_ome_tiff(tmp_path, date), (2, 16, 20), dtype="uint16")
    one = bench("idr", image_ids=[image])
    record = one.complete_record(one.one_plan())
    core, metadata = record["metadata"]["core"], record["metadata"]
    assert core["imaging_start_date"] == read
    assert core["voxel_size_nm"] == {"z": 50.0, "y": 10.0, "x": 10.0}
    stated = metadata["provenance"]["stated"]["imaging_start_date"]
    assert stated["source"] == "file"
    if read is None:
        assert stated["said"] == date
        assert any(repr(date) in note for note in metadata["quality"]["notes"])


# --- licence, organism, DOI ---------------------------------------------------------------------


def test_what_is_known_of_the_hemibrain_is_not_said_of_another_repository() -> None:
    assert parse_info(dvid_info(), "x").about.organism == "Drosophila melanogaster"
    other = dvid_info()
    other["Base"]["RepoUUID"] = "0" * 32
    assert parse_info(other, "x").about == About()


def test_a_server_without_units_has_an_assumed_voxel_size(bench: Any, monkeypatch: Any) -> None:
    plan = bench("flyem").one_plan()
    assert (plan.voxel_size_provenance, plan.voxel_size_approximate) == ("api", False)
    assert plan.stated["voxel_size_nm.z"].source == plan.stated["translation.x"].source == "api"
    silent = dvid_info()
    del silent["Extended"]["VoxelUnits"]
    monkeypatch.setattr("lib.archives.flyem.archive.ask_info", lambda session, node: silent)
    plan = bench("flyem").one_plan()
    assert (plan.voxel_size_provenance, plan.voxel_size_approximate) == ("assumed", True)
    assert any("no unit" in note for note in plan.notes)


def test_another_file_is_not_called_the_hippocampus(bench: Any, samples: Any) -> None:
    known = bench("epfl").one_plan().about
    assert known.modality == "FIB-SEM"
    assert known.origin.source == "archive"
    elsewhere = samples.root / "epfl" / "elsewhere.tif"
    (path,) = (p for p in samples.root.rglob("volumedata.tif"))
    elsewhere.write_bytes(path.read_bytes())
    try:
        plan = bench("epfl", download_url=f"{samples.url('epfl')}/elsewhere.tif").one_plan()
    finally:
        elsewhere.unlink()
    about = plan.about
    assert plan.assumed_axes == "zyx"  # the page does not speak of it
    assert about.modality is about.specimen is about.citation is about.title is None
    assert about.authors == ()


def test_versions_are_of_what_was_used(bench: Any) -> None:
    one = bench("epfl")
    software = one.complete_record(one.one_plan())["metadata"]["provenance"]["software"]
    assert {"macroscope", "numpy", "numcodecs"} <= set(software)
    assert "tifffile" not in software


# --- geometry -----------------------------------------------------------------------------------


def an_mrc_of_bytes(folder: Path, **words: Any) -> tuple[Path, Any]:
    """A volume of unsigned bytes above 127 in mode 0; ``words`` are changes of its header."""
    voxels = np.arange(4 * 6 * 8, dtype=np.uint8).reshape(4, 6, 8) + np.uint8(40)
    path = folder / "bytes.mrc"
    write_mrc(path, voxels.view(np.int8), voxel_nm_zyx=(1.0, 1.0, 1.0))
    with mrcfile.open(path, "r+") as file:
        file.header.nversion, file.header.dmin, file.header.dmax = 0, 0, -1
        for word, value in words.items():
            file.header[word] = value
    return path, voxels


def test_bytes_are_unsigned_where_the_entry_says_so(
    bench: Any, empiar_entry: Any, tmp_path: Path
) -> None:
    path, voxels = an_mrc_of_bytes(tmp_path)
    entry = empiar_entry({"bytes.mrc": path}, voxel_type="UNSIGNED BYTE")
    one = bench("ebi", entry_id=entry)
    plan = one.one_plan()
    np.testing.assert_array_equal(one.read(plan), voxels)
    record = one.complete_record(plan)
    assert record["metadata"]["core"]["data_type"] == "uint8"
    stated = record["metadata"]["provenance"]["stated"]["data_type"]
    assert stated == {"source": "api", "where": "voxel type"}


@pytest.mark.parametrize("chosen", ["int8", "uint8"])
def test_a_setting_decides_where_nobody_else_does(
    bench: Any, empiar_entry: Any, tmp_path: Path, chosen: str
) -> None:
    path, voxels = an_mrc_of_bytes(tmp_path)
    entry = empiar_entry({"bytes.mrc": path})
    plan = bench("ebi", entry_id=entry).one_plan()
    assert (plan.dtype, plan.stated["data_type"].source) == ("int8", "assumed")
    assert any("mrc_mode0" in note for note in plan.notes)
    one = bench("ebi", entry_id=entry, mrc_mode0=chosen)
    plan = one.one_plan()
    assert plan.stated["data_type"].source == "configuration"
    np.testing.assert_array_equal(one.read(plan), voxels.view(chosen))


def test_a_place_that_a_header_gives_is_the_translation(
    bench: Any, empiar_entry: Any, tmp_path: Path
) -> None:
    path, _ = an_mrc_of_bytes(tmp_path, nxstart=100, nystart=-20, nzstart=7)
    one = bench("ebi", entry_id=empiar_entry({"bytes.mrc": path}))
    record = one.complete_record(one.one_plan())
    assert record["metadata"]["technical"]["translation"] == {"z": 7.0, "y": -20.0, "x": 100.0}
    stated = record["metadata"]["provenance"]["stated"]
    assert stated["translation.x"]["source"] == stated["voxel_size_nm.x"]["source"] == "file"
    part = bench("ebi", entry_id=one.config.entry_id, box="z=1:3,x=2:4").one_plan()
    assert part.origin_nm_zyx == (8.0, -20.0, 102.0)


def test_a_stack_of_images_has_no_step_along_z(
    bench: Any, empiar_entry: Any, tmp_path: Path
) -> None:
    path, _ = an_mrc_of_bytes(tmp_path, ispg=0, mz=1)
    plan = bench("ebi", entry_id=empiar_entry({"bytes.st": path})).one_plan()
    assert plan.voxel_size_approximate
    assert plan.voxel_size_provenance == "file, z unknown"
    assert plan.stated["voxel_size_nm.z"].source == "assumed"
    assert any("stack of images" in note for note in plan.notes)


def test_the_category_of_an_image_set_is_heard(
    bench: Any, empiar_entry: Any, tmp_path: Path
) -> None:
    path, _ = an_mrc_of_bytes(tmp_path)
    entry = empiar_entry({"a.st": path}, category="tilt series")
    with pytest.raises(UnsupportedFormatError, match="'tilt series', which are no volume"):
        bench("ebi", entry_id=entry).plan()
    plan = bench("ebi", entry_id=entry, assemble="files").one_plan()
    assert plan.about.extra["imageset_category"] == "tilt series"
    assert plan.voxel_size_provenance == "file, z unknown"
    assert any("'tilt series'" in note for note in plan.notes)


def test_a_header_with_fewer_sections_than_its_file_is_a_question(
    bench: Any, empiar_entry: Any, tmp_path: Path
) -> None:
    path, voxels = an_mrc_of_bytes(tmp_path, nz=3, mz=3)
    entry = empiar_entry({"bytes.mrc": path})
    with pytest.raises(FormatError, match="says 3 sections, and the file holds 4"):
        bench("ebi", entry_id=entry).plan()
    for who, depth in (("header", 3), ("file", 4)):
        one = bench("ebi", entry_id=entry, mrc_sections=who, mrc_mode0="uint8")
        record = one.complete_record(one.one_plan())
        assert record["metadata"]["core"]["volume_shape"] == [depth, 6, 8]
        notes = record["metadata"]["quality"]["notes"]
        assert any("says 3 sections, and the file holds 4" in note for note in notes)
        np.testing.assert_array_equal(one.read(one.one_plan()), voxels[:depth])


def test_a_section_of_another_pixel_size_is_named(
    bench: Any, empiar_entry: Any, tmp_path: Path
) -> None:
    files = {}
    for number, pixel in enumerate((0.008, 0.0125, 0.008)):
        path = tmp_path / f"sec_{number}.dm3"
        plane = np.full((12, 14), number + 1, np.uint8)
        write_dm(path, plane, pixel_size_zyx=(pixel, pixel))
        files[path.name] = path
    one = bench("ebi", entry_id=empiar_entry(files))
    record = one.complete_record(one.one_plan())
    assert record["metadata"]["core"]["volume_shape"] == [3, 12, 14]
    named = [n for n in record["metadata"]["quality"]["notes"] if n.startswith("sec_1.dm3: ")]
    assert any("12.5 nm along y, the first file of the volume 8 nm" in note for note in named)
    assert not any(n.startswith(("sec_0", "sec_2")) for n in named)


def test_a_pixel_that_a_file_calls_zero_places_the_volume(
    bench: Any, empiar_entry: Any, tmp_path: Path
) -> None:
    path = tmp_path / "a.dm3"
    plane = np.arange(20, dtype=np.uint8).reshape(4, 5)
    write_dm(path, plane, pixel_size_zyx=(2.0, 2.0), unit="nm", origin_zyx=(-20, -10))
    one = bench("ebi", entry_id=empiar_entry({"a.dm3": path}))
    record = one.complete_record(one.one_plan())
    assert record["metadata"]["technical"]["translation"] == {"z": 0.0, "y": 40.0, "x": 20.0}
    stated = record["metadata"]["provenance"]["stated"]
    assert [axis for axis in "zyx" if f"translation.{axis}" in stated] == ["y", "x"]


@pytest.mark.parametrize(
    ("shape", "given", "what"),
    [
        ((3, 4, 5), {"format_name": "Spectrum image", "unit": "nm"}, "'Spectrum image'"),
        ((4, 5), {"unit": "1/nm"}, "a diffraction pattern"),
    ],
)
def test_what_is_no_volume_is_refused_before_it_is_fetched(
    bench: Any, empiar_entry: Any, tmp_path: Path, shape: Any, given: Any, what: str
) -> None:
    path = tmp_path / "a.dm3"
    write_dm(path, np.ones(shape, np.uint8), pixel_size_zyx=(1.0,) * len(shape), **given)
    with pytest.raises(UnsupportedFormatError, match=what):
        bench("ebi", entry_id=empiar_entry({"a.dm3": path})).plan()


def test_sections_that_begin_elsewhere_are_named(
    bench: Any, empiar_entry: Any, tmp_path: Path
) -> None:
    files = {}
    for number, zero in enumerate((-20, -20, -23)):
        path = tmp_path / f"sec_{number}.dm3"
        plane = np.full((12, 14), number + 1, np.uint8)
        write_dm(path, plane, pixel_size_zyx=(2.0, 2.0), unit="nm", origin_zyx=(zero, 0))
        files[path.name] = path
    one = bench("ebi", entry_id=empiar_entry(files), box="y=2:10")
    record = one.complete_record(one.one_plan())
    assert record["metadata"]["technical"]["translation"]["y"] == 44.0
    notes = record["metadata"]["quality"]["notes"]
    assert [n for n in notes if "begins at" in n] == [
        "sec_2.dm3: begins at y 46 nm, the first file of the stack at 40 nm; the sections are not "
        "shifted"
    ]


# --- TIFF ---------------------------------------------------------------------------------------


def plain_pages(path: Path, pages: Any, **options: Any) -> Path:
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            colours = "rgb" if page.ndim == 3 else "minisblack"
            given = {"photometric": colours} | options
            file.write(page, metadata=None, contiguous=False, **given)
    return path


PLANES = np.arange(3 * 20 * 30, dtype=np.uint16).reshape(3, 20, 30)


@pytest.mark.parametrize("sizes", [{"SizeT": 3}, {"SizeC": 3, "Channels": []}, {"SizeZ": 3}])
@pytest.mark.parametrize("keep", [True, False])
def test_plain_pages_are_z_whatever_omero_calls_them(
    bench: Any, idr_image: Any, tmp_path: Path, sizes: dict[str, Any], keep: bool
) -> None:
    path = plain_pages(tmp_path / "a.tif", PLANES)
    image = idr_image(path, (1, 20, 30), dtype="uint16", **sizes)
    one = bench("idr", image_ids=[image], keep_raw=keep)
    plan = one.one_plan()
    assert plan.shape_zyx == (3, 20, 30)
    assert any("they are z" in note for note in plan.notes) == ("SizeZ" not in sizes)
    np.testing.assert_array_equal(one.read(plan), PLANES)
    assert one.complete_record(plan)["metadata"]["core"]["volume_shape"] == [3, 20, 30]


def test_plain_pages_of_several_axes_are_refused(
    bench: Any, idr_image: Any, tmp_path: Path
) -> None:
    path = plain_pages(tmp_path / "a.tif", np.concatenate([PLANES, PLANES]))
    image = idr_image(path, (1, 20, 30), dtype="uint16", SizeT=3, SizeC=2)
    with pytest.raises(UnsupportedFormatError, match="SizeC 2, SizeT 3: nothing says"):
        bench("idr", image_ids=[image]).plan()


@pytest.mark.parametrize("series", [0, 1])
def test_a_volume_behind_a_picture_is_converted(
    bench: Any, idr_image: Any, tmp_path: Path, series: int
) -> None:
    picture = np.zeros((10, 12, 3), np.uint8)
    path = plain_pages(tmp_path / "a.tif", [picture, *PLANES])
    image = idr_image(path, (3, 20, 30), dtype="uint16", series=series)
    one = bench("idr", image_ids=[image], keep_raw=False)
    plan = one.one_plan()
    assert plan.reader["series"] == 1
    np.testing.assert_array_equal(one.read(plan), PLANES)


def test_rows_that_run_upwards_make_another_volume(
    bench: Any, idr_image: Any, tmp_path: Path
) -> None:
    plans = []
    for number, orientation in enumerate((1, 4)):
        tag = (274, 3, 1, orientation, True)
        path = plain_pages(tmp_path / f"{number}.tif", PLANES, extratags=[tag])
        image = idr_image(path, (3, 20, 30), dtype="uint16")
        one = bench("idr", image_ids=[image], box="y=2:9")
        plans.append(one.one_plan())
        expected = PLANES[:, ::-1] if orientation == 4 else PLANES
        np.testing.assert_array_equal(one.read(plans[-1]), expected[:, 2:9])
    assert "orientation" not in plans[0].reader
    assert plans[1].reader["orientation"] == 4


def test_a_unit_of_the_catalogue_that_is_no_length_is_quoted(
    bench: Any, idr_image: Any, tmp_path: Path
) -> None:
    path = plain_pages(tmp_path / "a.tif", PLANES)
    size = {"Value": 1.0, "Unit": "PIXEL", "Symbol": "pixel"}
    image = idr_image(path, (3, 20, 30), dtype="uint16", PhysicalSizeX=size)
    plan = bench("idr", image_ids=[image]).one_plan()
    assert any("PhysicalSizeX as '1.0 PIXEL'" in note for note in plan.notes)
    assert plan.voxel_size_provenance == "unknown"


def test_a_microscopes_tag_gives_the_pixel_size_and_its_data_bar(
    bench: Any, idr_image: Any, tmp_path: Path
) -> None:
    text = b"[Scan]\nPixelWidth=6.5e-009\nPixelHeight=6.5e-009\n[Image]\nResolutionY=17\n"
    path = plain_pages(tmp_path / "a.tif", PLANES, extratags=[(34682, 7, len(text), text, True)])
    one = bench("idr", image_ids=[idr_image(path, (3, 20, 30), dtype="uint16")])
    record = one.complete_record(one.one_plan())
    assert record["metadata"]["core"]["voxel_size_nm"] == {"z": 1.0, "y": 6.5, "x": 6.5}
    stated = record["metadata"]["provenance"]["stated"]
    assert stated["voxel_size_nm.y"] == {"source": "file", "where": "FEI Helios (tag 34682)"}
    assert stated["voxel_size_nm.z"] == {"source": "assumed"}
    assert record["additional_metadata"]["microscope"]["data_bar_rows"] == 3


def test_the_settings_voxel_size_is_told_from_the_default(bench: Any) -> None:
    default, given = bench("epfl"), bench("epfl", voxel_size_nm=(5.0, 5.0, 5.0))
    assert default.one_plan().stated["voxel_size_nm.z"].source == "archive"  # as its page says
    assert default.one_plan().assumed_axes == ""
    assert given.one_plan().stated["voxel_size_nm.z"].source == "configuration"
    assert default.one_plan().identity() == given.one_plan().identity()
