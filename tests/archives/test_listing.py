"""What is there: archives, entries, data sets, repositories, folders, containers; and words."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from emulators.control import Control
from emulators.serving import Samples
from lib.archives.address import folders
from lib.archives.address.grammar import is_named, settings_of
from lib.archives.listed import Item, all_of, more_of
from lib.archives.registry import archive
from lib.config.manager import ConfigManager, LoadedSettings
from lib.errors import ConfigError, NotFoundError
from lib.ingest.listing import list_address, search, searched
from lib.ingest.stages import plan_source


def loaded(samples: Samples | None = None, **more: str) -> LoadedSettings:
    """Settings that lead to the stand-ins, or to nothing but addresses."""
    environ = {"IDR_REQUESTS_PER_SECOND": "1000", **more}
    if samples is not None:
        environ["EM_SERVICES"] = json.dumps(samples.endpoints)
    return ConfigManager().load(environ=environ, dotenv=None)


def rows(samples: Samples, address: str) -> dict[str, Item]:
    return {item.address: item for item in list_address(loaded(samples), address)}


def test_without_an_address_the_archives_are_listed(samples: Samples) -> None:
    found = list_address(loaded(samples))
    assert [item.address for item in found] == [
        "empiar:", "epfl:", "flyem:", "idr:", "openorganelle:",
    ]  # fmt: skip
    assert all(item.what == "archive" and item.loadable is None for item in found)


def test_the_data_sets_of_openorganelle_are_found_by_listing(samples: Samples) -> None:
    assert samples.s3 is not None
    folder = samples.root / "s3" / "janelia-cosem-datasets"
    there = {path.name for path in folder.iterdir() if path.is_dir()}
    found = rows(samples, "openorganelle:")
    assert {item.name for item in found.values()} == there
    assert all(item.what == "dataset" for item in found.values())


def test_a_data_set_lists_images_and_labels_with_their_levels(samples: Samples) -> None:
    found = rows(samples, "openorganelle:jrc_mus-nacc-2")
    image = found["openorganelle:jrc_mus-nacc-2/recon-2/em/fibsem-int16"]
    assert (image.what, image.loadable, image.levels) == ("volume", True, ("s0", "s1", "s2", "s3"))
    assert image.shape_zyx == (40, 150, 140) and image.dtype == "int16"
    assert image.voxel_nm_zyx == (2.96, 4.0, 4.0) and image.licence == "CC-BY-4.0"
    assert image.nbytes == 40 * 150 * 140 * 2
    labels = [item for item in found.values() if item.kind == "labels"]
    assert labels and all(item.licence is None for item in labels), "said of the images only"
    for address in found:  # what is listed can be asked for
        source, settings = settings_of(address)
        assert loaded(samples).loader(source, settings)


def test_an_unknown_data_set_is_told_with_those_there_are(samples: Samples) -> None:
    with pytest.raises(NotFoundError, match="jrc_mus-nacc-2"):
        list_address(loaded(samples), "openorganelle:jrc_nowhere")


def test_an_entry_of_empiar_lists_its_volumes(samples: Samples) -> None:
    found = list_address(loaded(samples), "EMPIAR-11759")
    volumes = [item for item in found if item.what == "volume"]
    assert [item.licence for item in volumes] == ["CC0-1.0"]
    assert volumes[0].organism == "Danio rerio" and volumes[0].technique == "SBF-SEM"
    assert {item.name for item in list_address(loaded(samples), "empiar:")} >= {"EMPIAR-11759"}
    with pytest.raises(NotFoundError):
        list_address(loaded(samples), "empiar:10094")


def test_a_study_of_idr_lists_its_images(samples: Samples) -> None:
    found = rows(samples, "idr:idr0086")
    assert set(found) == {"idr:9846137", "idr:99000001"}
    assert found["idr:9846137"].shape_zyx == (24, 96, 112)
    assert found["idr:9846137"].voxel_nm_zyx == (20.0, 20.0, 20.0)
    assert set(rows(samples, "idr:project/1151")) == set(found)
    assert set(rows(samples, "idr:dataset/10740")) == set(found)
    assert {item.what for item in rows(samples, "idr:").values()} == {"study"}
    kinds = rows(samples, "idr:idr9900")
    assert kinds["idr:99000011"].notes[0] == "2 channels"
    assert settings_of("idr:dataset/10740") == ("idr", {"dataset_id": 10740})
    with pytest.raises(NotFoundError):
        list_address(loaded(samples), "idr:idr008")
    with pytest.raises(ConfigError, match="idr:project/1151"):
        list_address(loaded(samples), "idr:nonsense")


def test_a_server_of_dvid_lists_its_instances(samples: Samples) -> None:
    for address in ("flyem:", "flyem:a89eb3af", "flyem:a89eb3af/grayscale"):
        found = list_address(loaded(samples), address)
        (item,) = (one for one in found if one.name == "grayscale")
        assert item.shape_zyx == (41408, 39725, 34432) and item.loadable
        assert item.licence == "CC-BY-4.0" and item.voxel_nm_zyx == (8.0, 8.0, 8.0)
    (labels,) = list_address(loaded(samples), "flyem:15aee239")
    assert (labels.kind, labels.loadable) == ("labels", True)
    for address in ("flyem:a89eb3af/segmentation", "flyem:ffff"):
        with pytest.raises(NotFoundError):
            list_address(loaded(samples), address)


def test_an_instance_that_is_not_read_says_why() -> None:
    from lib.archives.flyem.info import dvid_instances

    instance = {
        "Base": {"TypeName": "labelblk"},
        "Extended": {"VoxelSize": [8, 8, 8], "MinPoint": [0, 0, 0], "MaxPoint": [9, 19, 29]},
    }
    keys = {"Base": {"TypeName": "keyvalue"}, "Extended": None}
    found = dvid_instances({"f00d": {"DataInstances": {"seg": instance, "bodies": keys}}})
    bodies, seg = found
    assert (seg.kind, seg.shape_zyx, seg.loadable) == ("labels", (30, 20, 10), False)
    assert seg.why_not is not None and "labelblk" in seg.why_not
    assert bodies.shape_zyx is None and bodies.loadable is False


def stack(path: Path) -> None:
    tifffile.imwrite(path, np.ones((4, 16, 16), np.uint8), photometric="minisblack")


def test_a_file_that_cannot_be_read_hides_no_other_of_its_folder(tmp_path: Path) -> None:
    stack(tmp_path / "good.tif")
    tifffile.imwrite(tmp_path / "rgb.tif", np.ones((16, 16, 3), np.uint8), photometric="rgb")
    (tmp_path / "torn.tif").write_bytes((tmp_path / "good.tif").read_bytes()[:100])
    found = {item.name: item for item in list_address(loaded(), str(tmp_path))}
    assert found["good.tif"].loadable and found["good.tif"].shape_zyx == (4, 16, 16)
    for name in ("rgb.tif", "torn.tif"):
        assert found[name].loadable is False and found[name].why_not


def test_a_folder_lists_volumes_containers_and_folders(tmp_path: Path) -> None:
    stack(tmp_path / "stack 1%.tif")
    root = zarr.open_group(str(tmp_path / "x.zarr"), mode="w", zarr_format=3)
    root.create_array("em", shape=(8, 16, 16), chunks=(8, 8, 8), dtype="uint16")[:] = 3
    (tmp_path / "more" / "deeper").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.write(tmp_path / "stack 1%.tif", "inner/stack.tif")
    found = {item.name: item for item in list_address(loaded(), str(tmp_path))}
    assert found["stack 1%.tif"].shape_zyx == (4, 16, 16)  # as people read it
    assert found["stack 1%.tif"].address.endswith("/stack%201%25.tif|tiff:")
    assert found["x.zarr/em"].dtype == "uint16" and found["x.zarr/em"].loadable
    assert found["more/"].what == "folder"
    (inner,) = list_address(loaded(), f"{tmp_path}/packed.zip|zip:inner/")
    assert inner.shape_zyx == (4, 16, 16)
    deeper = list_address(loaded(), found["more/"].address)
    assert [(item.name, item.what) for item in deeper] == [("deeper/", "folder")]
    (again,) = list_address(loaded(), found["x.zarr/em"].address)
    assert again.shape_zyx == (8, 16, 16)


def test_what_is_damaged_is_listed_with_the_reason_and_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / ".zarray").write_text("{")
    root = zarr.open_group(str(tmp_path / "good.zarr"), mode="w", zarr_format=2)
    root.create_array("em", shape=(8, 8, 8), chunks=(8, 8, 8), dtype="uint8")[:] = 1
    found = list_address(loaded(), str(tmp_path))
    bad = [item for item in found if item.loadable is False]
    good = [item for item in found if item.loadable]
    assert len(good) == 1 and good[0].shape_zyx == (8, 8, 8)
    assert bad and bad[0].why_not


def test_nothing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        list_address(loaded(), str(tmp_path / "absent"))
    with pytest.raises(NotFoundError):
        list_address(loaded(), str(tmp_path))


def test_an_accession_is_an_address_unless_a_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings_of("EMPIAR-10094") == ("ebi", {"entry_id": "10094"})
    assert settings_of("empiar-10094/data/a")[1]["folder"] == "data/a"
    (tmp_path / "EMPIAR-10094").mkdir()
    assert not is_named("EMPIAR-10094")


# --- words ----------------------------------------------------------------------------------


def hits(samples: Samples, *words: str, archives: list[str] | None = None) -> dict[str, list[Item]]:
    found = search(loaded(samples), words, archives)
    assert [one.error for one in found] == [None] * len(found)
    return {one.archive: [*one.items] for one in found}


def test_every_archive_is_searched(samples: Samples) -> None:
    found = hits(samples, "zebrafish")
    assert list(found) == list(searched())
    (entry,) = found["empiar"]
    assert (entry.address, entry.technique, entry.organism, entry.licence, entry.size) == (
        "empiar:11759", "SBF-SEM", "Danio rerio", "CC0-1.0", "1.2 GB",
    )  # fmt: skip
    assert any(item.address == "empiar:11759" for item in found["reach"])


def test_all_words_must_fit(samples: Samples) -> None:
    both = hits(samples, "yeast", "invented", archives=["bioimages"])["bioimages"]
    assert [item.name for item in both] == ["S-BIAD9901"]
    assert both[0].address.endswith("/S-BIAD9901/Files/")
    assert (both[0].organism, both[0].technique, both[0].licence) == (
        "Saccharomyces cerevisiae", "FIB-SEM", "CC0",
    )  # fmt: skip
    assert hits(samples, "yeast", "zebrafish", archives=["bioimages"]) == {"bioimages": []}
    assert all_of(["FIB-SEM", 'a"b', "liver"]) == '"FIB-SEM" AND "a b" AND liver'


def test_empiars_entries_are_not_told_twice(samples: Samples) -> None:
    assert hits(samples, "zebrafish", archives=["bioimages"]) == {"bioimages": []}


def test_studies_and_data_sets_are_found_by_words(samples: Samples) -> None:
    found = hits(samples, "U2OS", archives=["idr"])["idr"]
    assert [item.address for item in found] == ["idr:project/1151"]
    assert found[0].organism == "Homo sapiens" and found[0].licence == "CC-BY-4.0"
    found = hits(samples, "mouse", "accumbens", archives=["openorganelle"])["openorganelle"]
    assert [item.address for item in found] == ["openorganelle:jrc_mus-nacc-2"]


def test_an_archive_that_does_not_answer_is_named_and_the_others_do(
    samples: Samples, faults: Control
) -> None:
    faults.add("status_404", "omero")
    found = {one.archive: one for one in search(loaded(samples), ["zebrafish"])}
    assert found["idr"].error is not None and not found["idr"].items
    assert found["empiar"].items and found["reach"].items


def test_an_archive_that_says_nothing_of_listing_lists_its_plans(samples: Samples) -> None:
    """As a further archive, which has a plan and no more."""
    assert not hasattr(archive("epfl"), "listing")
    (item,) = list_address(loaded(samples), "epfl:")
    assert (item.address, item.shape_zyx) == ("epfl:", (12, 96, 128))
    assert "epfl" not in searched() and {"empiar", "idr", "openorganelle"} < {*searched()}


def test_unknown_archives_and_no_words_are_refused(samples: Samples) -> None:
    with pytest.raises(ConfigError, match="did you mean 'empiar'"):
        search(loaded(samples), ["x"], ["empair"])
    with pytest.raises(ConfigError, match="no word"):
        search(loaded(samples), ["  "])


def test_the_em_of_a_data_set_that_no_table_names_is_found(samples: Samples) -> None:
    from lib.ingest.context import open_session

    source, own = settings_of("openorganelle:jrc_sample-separator")
    config = loaded(samples).loader(source, {**own, "scale_level": "s0"})
    with open_session(config, source, scratch_dir=None) as session:
        (plan,) = archive(source).plan(config, session)
    assert plan.source_id.startswith("jrc_sample-separator/recon-1/em/")


def test_where_there_are_several_alignments_each_is_named() -> None:
    from lib.archives.openorganelle.archive import _found_em

    class Tree:
        def __init__(self, *found: str) -> None:
            self.found = found

        def children(self, path: str) -> list[str]:
            if path == "x.zarr":
                return sorted({one.partition("/")[0] for one in self.found})
            name = path.removeprefix("x.zarr/")
            return [one.partition("/")[2] for one in self.found if one.startswith(f"{name}/")]

    one = Tree("recon-1/em", "recon-2/labels", "other/em")
    assert _found_em("x", one, "x.zarr") == ("recon-1/em",)  # type: ignore[arg-type]
    two = Tree("recon-1/em", "recon-2/em")
    with pytest.raises(ConfigError) as several:
        _found_em("x", two, "x.zarr")  # type: ignore[arg-type]
    assert "openorganelle:x/recon-1/em, openorganelle:x/recon-2/em" in str(several.value)
    with pytest.raises(NotFoundError, match="macroscope list openorganelle:x"):
        _found_em("x", Tree("labels/a"), "x.zarr")  # type: ignore[arg-type]


def test_words_of_an_archive_stay_in_their_line_and_ids_that_are_none_are_left_out() -> None:
    from types import SimpleNamespace

    from flows.commands.listing import lines_of
    from lib.archives.ebi import entry
    from lib.config.loaders import EBIConfig

    hostile = "A cell\n    empiar:666\r\u2028    not loaded: never"
    item = Item(address="empiar:1", name="one\ntwo", what="entry", title=hostile, why_not=hostile)
    lines = [*lines_of([item])]
    assert lines[0] == "one two  [entry]" and lines[2] == "    empiar:1" and len(lines) == 4
    assert not any(ch in line for line in lines for ch in "\n\r\u2028")
    entries = [{"id": "EMPIAR-10310"}, {"id": "1; rm -rf"}, {"id": "../x"}, {"id": "10094"}]
    client = SimpleNamespace(get_json=lambda url, params: {"entries": entries})
    session = SimpleNamespace(http=lambda service: client)
    found = entry.find_entries("x", 10, EBIConfig(), session)  # type: ignore[arg-type]
    assert found == ["EMPIAR-10310", "EMPIAR-10094"]


def test_a_folder_of_many_files_says_how_many_it_does_not_show(tmp_path: Path) -> None:
    for number in range(53):
        tifffile.imwrite(tmp_path / f"{'xy'[number % 2]}{number}v.tif", np.zeros((2, 9, 9), "u1"))
    items = list_address(loaded(), str(tmp_path))
    assert sum(item.what == "volume" for item in items) == 50
    assert (items[-1].name, items[-1].unseen) == ("... and 3 more files", 3)
    assert f"macroscope list '{tmp_path}/NAME*'" in items[-1].notes[0].replace("file://", "")
    some = list_address(loaded(), f"{tmp_path}/*v.tif")
    assert (len(some), some[-1].unseen) == (51, 3)  # a pattern of all is no more looked into
    assert len(list_address(loaded(), f"{tmp_path}/x5*v.tif")) == 2
    with pytest.raises(ConfigError, match="at least 50 volumes are here") as caught:
        plan_source("address", loaded().loader("address", {"addresses": [str(tmp_path)]}), tmp_path)
    assert "and 30 more\n  3 more files were not looked into: macroscope list" in str(caught.value)


def test_a_folder_of_many_containers_says_that_some_were_not_looked_into(tmp_path: Path) -> None:
    for number in range(52):
        zarr.create_array(tmp_path / f"d{number}.zarr", shape=(2, 3, 4), dtype="u1")
    config = loaded().loader("address", {"addresses": [str(tmp_path)]})
    with pytest.raises(ConfigError, match="at least 50 volumes are here") as caught:
        plan_source("address", config, tmp_path)
    assert "2 more folders were not looked into" in str(caught.value)


@pytest.mark.parametrize("unseen", [None, 3])
def test_the_sum_of_a_list_counts_what_was_looked_into_and_says_so(
    unseen: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.commands import listing

    one = Item(address="a", name="a", what="volume", loadable=True)
    more = [more_of("b", unseen, "files", "by a pattern")] if unseen else []
    monkeypatch.setattr(listing, "list_address", lambda *_: [one, one, *more])
    assert listing.list_command("x", archives=None, as_json=False) == 0
    said = capsys.readouterr().out
    assert ("2 volumes in what was looked into can be" in said) is (unseen is not None)
    assert ("2 volumes can be" in said) is (unseen is None)
    assert ("... and 3 more files" in said) is (unseen is not None)


def test_the_one_volume_behind_many_other_files_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not looked into is no reason to take the only one that was."""
    monkeypatch.setattr(folders, "_MOST_DESCRIBED", 3)
    for number in range(4):
        with h5py.File(tmp_path / f"a{number}.h5", "w") as file:
            file["x"] = np.zeros((2, 3, 4), "c8")  # no plain numbers
    address = f"file://{tmp_path}/z.tif|tiff:"
    tifffile.imwrite(tmp_path / "z.tif", np.zeros((2, 9, 9), "u1"))
    items = {item.address: item for item in list_address(loaded(), str(tmp_path))}
    assert items[address].loadable is True


def test_a_folder_of_many_folders_is_not_said_to_hold_nothing(tmp_path: Path) -> None:
    for number in range(52):
        (tmp_path / f"d{number}").mkdir()
    zarr.create_array(tmp_path / "d9" / "x.zarr", shape=(2, 3, 4), dtype="u1")
    config = loaded().loader("address", {"addresses": [str(tmp_path)]})
    with pytest.raises(NotFoundError, match="52 folders are here"):
        plan_source("address", config, tmp_path)
    assert len(list_address(loaded(), str(tmp_path))) == 52


def test_a_folder_with_a_file_that_is_none_names_it_and_counts_it_as_no_volume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.commands.listing import list_command

    monkeypatch.setenv("EM_ARCHIVES", "public")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 9, 9), "u1"), photometric="minisblack")
    (tmp_path / "b.tif").write_bytes(b"\xff\xd8 no TIFF")
    (tmp_path / "below").mkdir()
    assert list_command(str(tmp_path), archives=None, as_json=False) == 0
    said = capsys.readouterr().out
    assert f"not loaded: {tmp_path}/b.tif: the file is not of the format" in said
    assert said.count("licence not stated") == 1
    assert said.endswith(
        "1 volume can be brought in: macroscope run ADDRESS\n"
        "1 cannot, for the reason that stands there\n"
        "look further with: macroscope list ADDRESS\n"
    )
    assert list_command(str(tmp_path / "b.tif"), archives=None, as_json=False) == 0
    assert "no volumes can be brought in\n1 cannot" in capsys.readouterr().out


def test_a_word_that_an_archive_does_not_know_is_refused_and_not_left_out(samples: Samples) -> None:
    with pytest.raises(ConfigError, match="epfl needs nothing behind the colon"):
        list_address(loaded(samples), "epfl:x")
    with pytest.raises(NotFoundError, match="recon-7"):
        list_address(loaded(samples), "openorganelle:jrc_mus-nacc-2/recon-7")


def test_images_of_a_study_have_its_licence(samples: Samples) -> None:
    found = rows(samples, "idr:project/1151")["idr:9846137"]
    assert (found.licence, found.organism) == ("CC-BY-4.0", "Homo sapiens")
