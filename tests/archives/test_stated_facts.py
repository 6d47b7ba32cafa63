"""What archives and files say of a volume, and what the record makes of it: all with its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from emulators.documents import dvid_info
from emulators.mrc import write_mrc
from lib.archives.flyem import parse_info
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


def test_another_file_is_not_called_the_hippocampus(bench: Any, samples: Any) -> None:
    known = bench("epfl").one_plan().about
    assert known.modality == "FIB-SEM"
    assert known.origin.source == "archive"
    elsewhere = samples.root / "epfl" / "elsewhere.tif"
    (path,) = (p for p in samples.root.rglob("volumedata.tif"))
    elsewhere.write_bytes(path.read_bytes())
    try:
        about = bench("epfl", download_url=f"{samples.url('epfl')}/elsewhere.tif").one_plan().about
    finally:
        elsewhere.unlink()
    assert about.modality is about.specimen is about.citation is about.title is None
    assert about.authors == ()


def test_versions_are_of_what_was_used(bench: Any) -> None:
    one = bench("epfl")
    software = one.complete_record(one.one_plan())["metadata"]["provenance"]["software"]
    assert {"macroscope", "numpy", "numcodecs"} <= set(software)
    assert "tifffile" not in software
