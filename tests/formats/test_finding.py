"""What an address finds: one volume, or an error that names the addresses to choose from."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from lib.config.loader_base import AddressConfig
from lib.errors import (
    ConfigError,
    FormatError,
    MacroscopeError,
    NotFoundError,
    UnsupportedFormatError,
)
from lib.ingest import life, stages
from lib.ingest.context import VolumeRequest
from lib.ingest.life import Steps, make_volume
from lib.ingest.stages import plan_source
from lib.plan import VolumePlan
from lib.storage.base import StoreSettings
from tests.formats import cases_hdf5, cases_tiff, cases_zarr2, cases_zarr3
from tests.formats.servers import BUCKET, Servers
from tests.kit.volume_kit import random_voxels


def plan_of(address: str | Path, tmp_path: Path, **more: Any) -> VolumePlan:
    (plan,) = plan_source(
        "address", AddressConfig(addresses=[str(address)], **more), tmp_path / "scratch"
    ).plans
    return plan


def offered(error: MacroscopeError) -> list[str]:
    return re.findall(r"^  (\S.*)$", error.advice, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    return place


def planes(folder: Path, pattern: str, count: int, seed: int, **more: Any) -> None:
    for z, plane in enumerate(random_voxels((count, 20, 30), "uint8", seed)):
        tifffile.imwrite(folder / pattern.format(z), plane, **more)


def test_a_pattern_makes_a_stack_of_what_names_alone_would_part(
    folder: Path, tmp_path: Path
) -> None:
    """Three mice are three pictures, unless who gives the address says that they are sections."""
    planes(folder, "mouse_{}.tif", 3, 1)
    with pytest.raises(ConfigError, match="3 volumes are here"):
        plan_of(folder, tmp_path)
    assert plan_of(f"{folder}/mouse_*.tif", tmp_path).shape_zyx[0] == 3


def test_packed_sections_are_refused_by_what_they_are(folder: Path, tmp_path: Path) -> None:
    planes(folder, "s_{}.tif", 2, 1)
    for path in [*folder.iterdir()]:
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    with pytest.raises(NotFoundError, match=r"2 files are packed as a whole \(\.gz\)\. Unpack"):
        plan_of(folder, tmp_path)
    with pytest.raises(UnsupportedFormatError, match=r"packed as a whole \(gzip\)"):
        plan_of(folder / "s_0.tif.gz", tmp_path)


def test_two_stacks_in_a_folder_are_offered_by_their_patterns(folder: Path, tmp_path: Path) -> None:
    planes(folder, "raw_{:03d}.tif", 5, 1)
    planes(folder, "labels_{:03d}.tif", 6, 2)
    with pytest.raises(ConfigError, match="2 volumes are here") as caught:
        plan_of(folder, tmp_path)
    addresses = offered(caught.value)
    assert [address.rpartition("|")[2] for address in addresses] == [
        "tiff:labels_*.tif",
        "tiff:raw_*.tif",
    ]
    depths = [plan_of(address, tmp_path).shape_zyx[0] for address in addresses]
    assert depths == [6, 5]
    assert plan_of(f"{folder}/raw_*", tmp_path).shape_zyx[0] == 5


def test_losses_of_the_source_are_told_and_those_of_none_are_not(
    folder: Path, tmp_path: Path
) -> None:
    planes(folder, "whole_{:03d}.tif", 2, 1)
    for z, plane in enumerate(random_voxels((2, 20, 30), "uint8", 1)):
        Image.fromarray(plane).save(folder / f"s_{z}.jpg")
    told = [
        [note for note in plan_of(f"{folder}|{what}", tmp_path).notes if "with loss" in note]
        for what in ("tiff:", "jpeg:")
    ]
    assert told == [[], ["the source holds its voxels compressed with loss (jpeg)"]]


def test_volumes_beside_each_other_are_offered_by_their_names(folder: Path, tmp_path: Path) -> None:
    for name in ("one 1.tif", "two.tif"):
        tifffile.imwrite(folder / name, random_voxels((9, 20, 30), "uint8"))
    cases_zarr2.multiscale(folder)
    with pytest.raises(ConfigError) as caught:
        plan_of(folder, tmp_path)
    assert {address.rpartition("/")[2] for address in offered(caught.value)} == {
        "one%201.tif|tiff:",
        "two.tif|tiff:",
    }
    for address in offered(caught.value):
        assert plan_of(address, tmp_path).shape_zyx == (9, 20, 30)


def test_a_container_in_a_folder_is_found(folder: Path, tmp_path: Path) -> None:
    cases_zarr2.multiscale(folder)
    assert plan_of(folder, tmp_path).source_id.endswith("/x.zarr|zarr2:em/s0")


def test_the_volumes_of_one_file_are_offered_by_their_paths(folder: Path, tmp_path: Path) -> None:
    cases_tiff.two_series(folder)
    with pytest.raises(ConfigError) as caught:
        plan_of(folder / "two.tif", tmp_path)
    assert [address.rpartition("|")[2] for address in offered(caught.value)] == ["tiff:0", "tiff:1"]
    with pytest.raises(NotFoundError, match="There are: 0, 1"):
        plan_of(f"{folder}/two.tif|tiff:7", tmp_path)


def test_sections_that_differ_are_no_stack(folder: Path, tmp_path: Path) -> None:
    planes(folder, "a_{:03d}.tif", 5, 1)
    tifffile.imwrite(folder / "a_005.tif", random_voxels((1, 22, 30), "uint8")[0])
    with pytest.raises(FormatError, match="no section of one stack"):
        plan_of(folder, tmp_path)


def test_numbers_that_follow_the_sections_do_not_part_them(folder: Path, tmp_path: Path) -> None:
    voxels = random_voxels((12, 20, 30), "uint8", 4)
    for z, plane in enumerate(voxels):
        tifffile.imwrite(folder / f"slice_{z + 288:05d}_z={1.4263 + z * 0.00499:.4f}um.tif", plane)
    plan = plan_of(folder, tmp_path)
    assert plan.shape_zyx == (12, 20, 30)
    assert any("the first section is number 288" in note for note in plan.notes)
    assert run(plan, tmp_path).status == "complete"


def test_a_section_inside_that_differs_is_named(folder: Path, tmp_path: Path) -> None:
    planes(folder, "a_{:03d}.tif", 40, 1)
    tifffile.imwrite(folder / "a_007.tif", random_voxels((1, 22, 30), "uint8")[0])
    with pytest.raises(FormatError, match=r"a_007.tif"):
        plan_of(folder, tmp_path)  # by its size
    tifffile.imwrite(folder / "a_007.tif", random_voxels((1, 30, 20), "uint8")[0])
    made = run(plan_of(folder, tmp_path), tmp_path)  # of the same size: when it is read
    assert made.status == "failed"
    assert "a_007.tif" in str(made.error)


def test_a_name_does_not_make_a_format(folder: Path, tmp_path: Path) -> None:
    (folder / "a.tif").write_bytes(b"no TIFF at all, but long enough to be looked at")
    with pytest.raises(UnsupportedFormatError, match="of no format"):
        plan_of(folder / "a.tif", tmp_path)
    tifffile.imwrite(folder / "b.xyz", random_voxels((9, 20, 30), "uint8"))
    assert plan_of(folder / "b.xyz", tmp_path).reader["format"] == "tiff"
    with pytest.raises(FormatError, match="it is TIFF"):
        plan_of(f"{folder}/b.xyz|mrc:", tmp_path)


def test_a_zip_is_looked_into(folder: Path, tmp_path: Path) -> None:
    cases_zarr2.multiscale(folder)
    path = folder / "x.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in (folder / "x.zarr").rglob("*"):
            archive.write(file, file.relative_to(folder / "x.zarr").as_posix())
    for address in (f"{path}", f"{path}|zarr:em/s0", f"{path}|zip:|zarr2:em/s0"):
        plan = plan_of(address, tmp_path)
        assert plan.source_id == f"file://{path}|zip:|zarr2:em/s0"
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("x.txt", "nothing")
    with pytest.raises(NotFoundError, match="nothing that is converted"):
        plan_of(folder / "a.zip", tmp_path)


def test_what_is_not_there_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file or folder"):
        plan_of(folder / "absent", tmp_path)
    with pytest.raises(NotFoundError, match="nothing that is converted"):
        plan_of(folder, tmp_path)


def test_a_web_server_without_the_file_says_so(servers: Servers, tmp_path: Path) -> None:
    base, _ = servers.publish("nothing-here", "http")
    with pytest.raises(NotFoundError):
        plan_of(f"{base}a.tif", tmp_path, requests_per_second=1000.0)


def run(plan: VolumePlan, tmp_path: Path, steps: Steps | None = None, **more: Any) -> Any:
    config = AddressConfig(addresses=[plan.source_id], **more)
    data = str(tmp_path / "data")
    request = VolumeRequest(plan, config, data, StoreSettings(), tmp_path / "scratch", "a test")
    return make_volume(request, "a test", steps)


def test_the_same_address_again_is_not_made_again(folder: Path, tmp_path: Path) -> None:
    planes(folder, "a_{:03d}.tif", 5, 1)
    assert run(plan_of(folder, tmp_path), tmp_path).made
    assert not run(plan_of(f"{folder}/|tiff:a_*.tif", tmp_path), tmp_path).made
    os.utime(folder / "a_002.tif", ns=(1, 1))
    assert run(plan_of(folder, tmp_path), tmp_path).made


@pytest.mark.parametrize("what", ["a_003.tif", "x.zarr/em/s0/0/0/1"])
def test_a_source_that_changes_under_the_run_fails_it(
    folder: Path, tmp_path: Path, what: str
) -> None:
    if what.startswith("a_"):
        planes(folder, "a_{:03d}.tif", 5, 1)
    else:
        cases_zarr2.multiscale(folder)
    plan = plan_of(folder, tmp_path)

    def changed(request: VolumeRequest, job: Any) -> stages.IngestedVolume:
        path = folder / what
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(1, 1))
        return stages.finish_volume(request, job)

    made = run(plan, tmp_path, Steps(finish=changed))
    assert made.status == "failed"
    assert "changed" in str(made.error)
    assert not list((tmp_path / "data/address").glob("*.ome.zarr"))
    again = run(plan_of(folder, tmp_path), tmp_path)
    assert again.status == "complete"
    assert life  # the same path as every archive's volumes


def test_bytes_that_changed_on_their_way_fail_the_volume_by_the_stores_checksum(
    servers: Servers, tmp_path: Path
) -> None:
    name = "wrong-bytes"
    (servers.folder / name).mkdir()
    tifffile.imwrite(servers.folder / name / "a.tif", random_voxels((20, 200, 300), "uint8"))
    base, settings = servers.publish(name, "gs")
    for keep_raw in (True, False):
        more: dict[str, Any] = {**settings, "keep_raw": keep_raw}
        plan = plan_of(f"{base}a.tif", tmp_path, **more)
        servers.gcs.damage[f"{BUCKET}/{name}/a.tif"] = 700_000
        made = run(plan, tmp_path, **more)
        servers.gcs.damage.clear()
        assert made.status == "failed"
        assert "the publisher says crc32c" in str(made.error)
        assert not list((tmp_path / "data").rglob("a.tif"))
        assert run(plan, tmp_path, **more).status == "complete"
        shutil.rmtree(tmp_path / "data")


def test_files_that_only_their_query_tells_apart_are_volumes_of_their_own(
    servers: Servers, tmp_path: Path
) -> None:
    """As downloads by number are addressed; the second of two was dropped without a word."""
    name = "by-query"
    (servers.folder / name).mkdir()
    tifffile.imwrite(servers.folder / name / "get", random_voxels((9, 20, 30), "uint8"))
    base, _ = servers.publish(name, "http")
    queries = ("id=1", "id=2", "id=1&X-Amz-Signature=secret")
    config = AddressConfig(addresses=[f"{base}get?{query}" for query in queries])
    plans = plan_source("address", config, tmp_path / "scratch").plans
    assert [plan.download_bytes > 0 for plan in plans] == [True, True]
    for told in ("source_id", "source_path", "name"):
        assert len({getattr(plan, told) for plan in plans}) == 2, told
    assert len({plan.files[0].name for plan in plans}) == 2
    assert "secret" not in repr(plans)


def test_folders_of_folders_are_named_by_the_command_that_lists_them(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "a/b").mkdir(parents=True)
    (folder / "c/d").mkdir(parents=True)
    with pytest.raises(NotFoundError, match=f"macroscope list file://{folder}/"):
        plan_of(folder, tmp_path)


def test_a_stored_member_of_a_zip_is_held_against_its_crc(folder: Path, tmp_path: Path) -> None:
    tifffile.imwrite(folder / "a.tif", random_voxels((9, 200, 300), "uint8"))
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.write(folder / "a.tif", "a.tif")
    plan = plan_of(f"{folder}/a.zip|zip:a.tif", tmp_path)
    data = bytearray((folder / "a.zip").read_bytes())
    data[300_000] ^= 1
    (folder / "a.zip").write_bytes(data)
    made = run(plan, tmp_path)
    assert made.status == "failed"
    assert "the publisher says crc32" in str(made.error)


def test_names_that_end_alike_do_not_meet(tmp_path: Path) -> None:
    voxels = random_voxels((9, 20, 30), "uint8")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "raw.tif", voxels)
    addresses = [str(tmp_path / name / "raw.tif") for name in ("a", "b")]
    plans = plan_source("address", AddressConfig(addresses=addresses), tmp_path / "s").plans
    assert [plan.source_id for plan in plans] == [f"file://{one}|tiff:" for one in addresses]


def test_what_the_user_says_is_taken_and_told(folder: Path, tmp_path: Path) -> None:
    cases_tiff.imagej(folder)
    plan = plan_of(
        folder / "stack.tif",
        tmp_path,
        kind="labels",
        voxel_size_nm=(30.0, 4.0, 4.0),
        licence="CC0-1.0",
        citation="Somebody 2026",
        authors=["A. Author"],
    )
    assert plan.kind == "labels"
    assert plan.voxel_nm_zyx == (30.0, 4.0, 4.0)
    assert any("the data say 40 nm, the user 30 nm" in note for note in plan.notes)
    about = plan.about
    assert (about.licence, about.citation, about.authors) == (
        "CC0-1.0",
        "Somebody 2026",
        ("A. Author",),
    )
    assert {about.stated[key].source for key in ("licence", "citation", "authors")} == {
        "configuration"
    }
    assert plan_of(folder / "stack.tif", tmp_path).about.licence is None
    assert np.dtype(plan.dtype) == np.uint16


def test_names_are_letters_of_what_the_place_is_called(tmp_path: Path) -> None:
    place = tmp_path / "Präparat (1)"
    place.mkdir()
    planes(place, "slice {:03d}.tif", 4, 3)
    assert plan_of(place, tmp_path).name == "Praparat_1_slice"
    alone = place / "Überblick.tiff"
    tifffile.imwrite(alone, random_voxels((5, 20, 30), "uint8", 5), photometric="minisblack")
    assert plan_of(alone, tmp_path).name == "Uberblick"


def test_a_zip_of_one_folder_is_what_the_folder_holds(folder: Path, tmp_path: Path) -> None:
    cases_tiff.sections(folder)
    shutil.make_archive(str(tmp_path / "a"), "zip", folder, "sections")
    plan = plan_of(tmp_path / "a.zip", tmp_path)
    assert plan.shape_zyx == (12, 37, 53)
    assert plan.source_id.endswith("a.zip|zip:sections/|tiff:my slice *.tif")


def test_what_a_mac_puts_beside_the_folder_of_a_zip_is_no_second_one(
    folder: Path, tmp_path: Path
) -> None:
    planes(folder, "s_{:02d}.tif", 4, 1)
    target = tmp_path / "a.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"stack/{path.name}")
            archive.writestr(f"__MACOSX/stack/._{path.name}", b"\0\5\x16\7")
        archive.writestr("__MACOSX/._stack", b"\0\5\x16\7")
        archive.writestr(".DS_Store", b"Bud1")
        archive.writestr("README.txt", b"of this stack")
    assert plan_of(target, tmp_path).shape_zyx == (4, 20, 30)


def test_planes_of_a_series_that_a_shell_took_apart_are_told(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """``run slice_*.tif`` without quotes: three volumes of one plane, and what was meant."""
    planes = random_voxels((3, 8, 9), "uint8", 1)
    for z, plane in enumerate(planes):
        tifffile.imwrite(folder / f"slice_{z:02d}.tif", plane)
    tifffile.imwrite(folder / "whole_1.tif", planes, photometric="minisblack")
    tifffile.imwrite(folder / "whole_2.tif", planes, photometric="minisblack")
    names = ["slice_00.tif", "slice_01.tif", "slice_02.tif", "whole_1.tif", "whole_2.tif"]
    config = AddressConfig(addresses=[str(folder / name) for name in names])
    plans = plan_source("address", config, tmp_path / "scratch").plans
    pattern = f"{folder}/slice_*.tif', in quotes"
    noted = [any(pattern in note for note in plan.notes) for plan in plans]
    assert noted == [True, True, True, False, False]
    assert "3 planes of one numbered series" in caplog.text
    assert plan_of(folder / "slice_*.tif", tmp_path).shape_zyx == (3, 8, 9)


@pytest.mark.parametrize(
    ("told", "note"),
    [
        ({"unit": "pixel"}, "says voxels of [0.004, 0.004, 0.04] 'pixel': no length"),
        ({"lengths": "1 2"}, "says voxels of None µm"),
        ({"size": "1 2 3"}, "says that setup 0 has [1.0, 2.0, 3.0] voxels (x, y, z): not believed"),
    ],
    ids=["no-unit", "two-numbers", "another-size"],
)
def test_what_the_xml_of_bigdataviewer_cannot_say_is_quoted(
    folder: Path, tmp_path: Path, told: dict[str, str], note: str
) -> None:
    cases_hdf5.bdv(folder)
    (folder / "x.xml").write_text(cases_hdf5.spimdata("hdf5", "x.h5", **told), "utf-8")
    plan = plan_of(folder / "x.xml", tmp_path)
    assert plan.voxel_nm_zyx == (1.0, 1.0, 1.0)
    assert any(note in one for one in plan.notes), plan.notes


@pytest.mark.parametrize("where", ["../x.h5", "/etc/x.h5", "C:\\x.h5", "s3://b/x.h5"])
def test_the_xml_of_bigdataviewer_leads_nowhere_else(
    folder: Path, tmp_path: Path, where: str
) -> None:
    cases_hdf5.bdv(folder)
    (folder / "below").mkdir()
    document = folder / "below/x.xml"
    document.write_text(cases_hdf5.spimdata("hdf5", where), "utf-8")
    with pytest.raises(UnsupportedFormatError, match="neither beside"):
        plan_of(document, tmp_path)
    document.write_text(cases_hdf5.spimdata("hdf5", "y.h5"), "utf-8")
    with pytest.raises(NotFoundError, match=r"'y\.h5' is not there"):
        plan_of(document, tmp_path)


def test_a_file_of_bigdataviewer_without_its_xml_says_what_is_missing(
    folder: Path, tmp_path: Path
) -> None:
    cases_hdf5.bdv(folder)
    plan = plan_of(folder / "x.h5", tmp_path)
    assert "BigDataViewer states lengths in x.xml, which is not beside the file" in plan.notes


@pytest.mark.parametrize("wanted", ["1", "s3", "coarse"])
def test_a_level_that_a_volume_lacks_is_named_and_not_passed_over(
    wanted: str, folder: Path, tmp_path: Path
) -> None:
    tifffile.imwrite(folder / "a.tif", random_voxels((9, 20, 30), "uint8"))
    with pytest.raises(NotFoundError, match=f"there is no level {wanted}"):
        plan_of(folder / "a.tif", tmp_path, scale_level=wanted)
    assert plan_of(folder / "a.tif", tmp_path, scale_level="0").shape_zyx == (9, 20, 30)


def test_an_address_and_a_setting_that_name_different_levels_are_told(
    folder: Path, tmp_path: Path
) -> None:
    cases_zarr3.two_levels(folder)
    place = f"{folder}/x.zarr|zarr3:em"
    with pytest.raises(ConfigError, match="names level s0, and scale_level s1"):
        plan_of(f"{place}/s0", tmp_path, scale_level="s1")
    for level in ("s1", "1"):
        assert plan_of(f"{place}/s1", tmp_path, scale_level=level).scale_level == "s1"
        assert plan_of(place, tmp_path, scale_level=level).scale_level == "s1"


@pytest.mark.parametrize("name", ["a#b?c.zarr", "all*.zarr"])
def test_a_name_that_is_there_is_no_pattern(name: str, folder: Path, tmp_path: Path) -> None:
    cases_zarr3.two_levels(folder)
    (folder / "x.zarr").rename(folder / name)
    assert plan_of(folder / name, tmp_path).scale_level == "s0"


def test_a_query_of_a_file_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no query"):
        plan_of(f"file://{folder}/a?b.zarr", tmp_path)


def test_links_that_lead_back_are_not_followed(folder: Path, tmp_path: Path) -> None:
    cases_zarr3.two_levels(folder)
    (folder / "x.zarr/loop").symlink_to(".")
    (folder / "x.zarr/em/up").symlink_to(folder, target_is_directory=True)
    (folder / "link.zarr").symlink_to("x.zarr/em")
    assert plan_of(folder / "x.zarr", tmp_path).scale_level == "s0"
    assert plan_of(folder / "link.zarr", tmp_path).scale_level == "s0"
