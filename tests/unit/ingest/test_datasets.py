"""Many datasets: the file with its lines, the jobs, their names, groups in catalogue and report."""

from __future__ import annotations

import copy
import json
import os
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulators.tissue import tissue
from emulators.volumes import make_recorded_volume, plan_of
from flows.commands.options import Wanted, set_settings, source_parameters, take
from lib.config.manager import ConfigManager, LoadedSettings
from lib.errors import AccessDeniedError, ConfigError
from lib.ingest.datasets import Dataset, Job, check, jobs_of, read_datasets
from lib.ingest.naming import name_plans
from lib.ingest.planning import by_round
from lib.ingest.result import ProcessingResult
from lib.plan import About
from lib.present.preview import preview_key, render_preview
from lib.present.report import report_html
from lib.records.catalogue import consolidate, forget_old, note_groups, read_groups
from lib.storage.base import StoreSettings
from lib.storage.open import open_store


def written(folder: Path, text: str) -> Path:
    path = folder / "datasets.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(**environ: str) -> LoadedSettings:
    return ConfigManager().load(environ=environ, dotenv=None)


def test_a_plain_list_of_addresses_is_enough(tmp_path: Path) -> None:
    _, jobs = read_datasets(written(tmp_path, "- EMPIAR-10310\n- s3://bucket/x.zarr|zarr:em\n"))
    assert [(job.label, job.source) for job in jobs] == [
        ("empiar:10310", "ebi"),
        ("s3://bucket/x.zarr|zarr:em", "address"),
    ]
    assert jobs[0].settings == {"entry_id": "10310"}
    check(jobs, loaded())


def test_defaults_and_groups_lie_under_a_datasets_own_options(tmp_path: Path) -> None:
    text = """
defaults: {level: s2, format: zarr, set: {max_workers: 4}}
groups:
  liver: {licence: CC0-1.0, level: s1}
datasets:
  - {address: gs://b/one.zarr, group: liver, level: s0, name: one}
  - {address: gs://b/two.zarr, group: liver, set: {max_workers: 1, mrc_mode0: uint8}}
  - {address: gs://b/three.zarr, kind: labels, voxel_size: "z=40,y=4,x=8"}
  - {address: "epfl:", name: hippocampus}
"""
    datasets, jobs = read_datasets(written(tmp_path, text))
    one, two, three, epfl = (job.settings for job in jobs)
    assert (one["scale_level"], one["licence"], one["name"]) == ("s0", "CC0-1.0", "one")
    assert (two["scale_level"], two["max_workers"], two["mrc_mode0"]) == ("s1", "1", "uint8")
    assert (three["scale_level"], three["kind"], three["max_workers"]) == ("s2", "labels", "4")
    assert "scale_level" not in epfl, "a default is left out where a source has no such setting"
    assert [job.group for job in jobs] == ["liver", "liver", None, None]
    assert (jobs[0].label, jobs[3].label) == ("one s0", "hippocampus")
    check(jobs, loaded())
    config = loaded().loader("address", three)
    assert config.voxel_size_nm == (40.0, 4.0, 8.0)  # type: ignore[attr-defined]
    again = [Dataset.model_validate(json.loads(one.model_dump_json())) for one in datasets]
    assert [job.settings for job in jobs_of(again)] == [job.settings for job in jobs]


def test_the_nearest_says_a_setting_whether_as_an_option_or_in_set(tmp_path: Path) -> None:
    """What lay in the defaults' ``set`` was stronger than a dataset's own option."""
    text = """
defaults: {set: {scale_level: s3, kind: image}, voxel_size: "4,4,4"}
groups:
  fine: {level: s1, set: {kind: labels}}
datasets:
  - {address: gs://b/0.zarr, level: s0, kind: auto}
  - {address: gs://b/1.zarr, group: fine, set: {voxel_size_nm: "5,5,5"}}
  - {address: gs://b/2.zarr, group: fine, set: {scale_level: s2}}
  - {address: gs://b/3.zarr}
"""
    _, jobs = read_datasets(written(tmp_path, text))
    told = [(job.settings["scale_level"], job.settings["kind"]) for job in jobs]
    assert told == [("s0", "auto"), ("s1", "labels"), ("s2", "labels"), ("s3", "image")]
    assert [job.settings["voxel_size_nm"] for job in jobs[:2]] == ["4,4,4", "5,5,5"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {address: a.tif, set: {addresses: [b.tif]}}", "line 1: set: the address itself says"),
        ("- {address: empiar:1, set: {entry_id: '2'}}", "the address itself says entry_id"),
        ("\n- {address: a.tif, level: s0, set: {scale_level: s1}}", "line 2: level is said, and"),
        ("defaults: {kind: image, set: {kind: labels}}\ndatasets: [a.tif]", "kind is said, and"),
        ("\n- {address: a.tif, labels: 'b|foo:'}", "line 2: b|foo:"),
        ("groups: {g: {name: x}}\ndatasets: [a.tif]", "a dataset, in its own entry"),
        ("defaults: {address: x}\ndatasets: [a.tif]", "a dataset, in its own entry"),
    ],
)
def test_what_is_said_twice_or_in_the_wrong_place_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_datasets(written(tmp_path, text))
    assert said in str(caught.value)


def test_the_flows_own_list_is_refused_where_it_says_something_twice() -> None:
    with pytest.raises(ConfigError, match="leave one out"):
        jobs_of([Dataset(address="/a.tif", kind="image", set={"kind": "labels"})])


def test_paths_are_counted_from_the_files_folder(tmp_path: Path) -> None:
    _, (job,) = read_datasets(written(tmp_path, "- data/stack.tif\n"))
    assert job.settings == {"addresses": [f"file://{tmp_path}/data/stack.tif"]}


def test_labels_come_with_their_image(tmp_path: Path) -> None:
    text = """
- {address: data/em.tif, labels: data/mito.tif}
- {address: "flyem:a89eb3af/grayscale", labels: "flyem:15aee239/segmentation"}
"""
    _, (one, flyem) = read_datasets(written(tmp_path, text))
    assert one.settings["labels"] == [f"file://{tmp_path}/data/mito.tif"]
    assert flyem.settings["labels"] == "15aee239/segmentation"
    check([one, flyem], loaded())


def test_crops_are_one_job_with_the_em_around_each(tmp_path: Path) -> None:
    text = """
groups: {cellmap: {padding: 64}}
datasets:
  - {address: "openorganelle:jrc_hela-2/recon-1/labels/groundtruth", crops: all, group: cellmap}
  - address: openorganelle:jrc_cos7-1a/recon-1/labels/groundtruth
    crops: [crop234, crop237]
    padding: 3
  - {address: EMPIAR-10310, group: cellmap}
"""
    _, jobs = read_datasets(written(tmp_path, text))
    folder = "recon-1/labels/groundtruth"
    assert [job.settings for job in jobs] == [
        {"dataset_id": "jrc_hela-2", "zarr_path": folder, "with_em": True, "padding": 64},
        {
            "dataset_id": "jrc_cos7-1a",
            "zarr_path": [f"{folder}/crop234", f"{folder}/crop237"],
            "with_em": True,
            "padding": 3,
        },
        {"entry_id": "10310"},
    ]
    check(jobs, loaded())
    wrong = """
- {address: EMPIAR-10310, crops: all}
- {address: "openorganelle:jrc_hela-2/recon-1/em", padding: 3}
"""
    with pytest.raises(ConfigError) as error:
        read_datasets(written(tmp_path, wrong))
    assert "line 2: crops: ebi has no crops" in str(error.value)
    assert "line 3: padding is that of crops" in str(error.value)


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    text = """\
defaults: {box: "z=0:4"}
groups:
  liver: {}
datasets:
  - EMPIAR-10310
  - address: s3://bucket/x.zarr
    levle: s1
  - {address: empiar:10310, kind: lables}
  - {name: no address}
"""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_datasets(path)
    said = str(caught.value)
    assert f"{path}, line 7: levle: there is no such option; did you mean 'level'?" in said
    assert f"{path}, line 8: kind" in said
    assert f"{path}, line 9" in said and "address" in said
    text = """\
groups: {liver: {}}
datasets:
  - EMPIAR-10310
  - empiar:10310
  - {address: idr:1, group: livre}
  - {address: empair:4}
  - {address: 'epfl:', level: s1}
"""
    with pytest.raises(ConfigError) as caught:
        read_datasets(written(tmp_path, text))
    said = str(caught.value)
    assert "line 5: there is no group 'livre'; did you mean 'liver'?" in said
    assert "line 6" in said and "did you mean 'empiar'?" in said
    text = "- EMPIAR-10310\n- empiar:10310\n- {address: 'epfl:', level: s1}\n"
    with pytest.raises(ConfigError) as caught:
        read_datasets(written(tmp_path, text))
    said = str(caught.value)
    assert "line 2: empiar:10310 is there already, at" in said and "line 1" in said
    assert "line 3: scale_level is no setting of epfl" in said


def test_values_that_a_source_refuses_are_told_with_their_lines(tmp_path: Path) -> None:
    text = """\
- EMPIAR-10310
- {address: EMPIAR-10001, set: {assemble: maybe}}
- {address: "idr:2", box: "z=9:3"}
"""
    _, jobs = read_datasets(written(tmp_path, text))
    with pytest.raises(ConfigError) as caught:
        check(jobs, loaded())
    assert "line 2" in str(caught.value) and "assemble" in str(caught.value)
    assert "line 3" in str(caught.value) and "box" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{}", "datasets: []", "- [", "datasets: 4", "- é".encode().decode()]
)
def test_what_is_no_list_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    if text == "- é":
        path.write_bytes("- é".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        read_datasets(path)
    assert str(path) in str(caught.value)


def test_five_hundred_are_read_and_told_apart(tmp_path: Path) -> None:
    text = "".join(f"- {{address: s3://b/{n}/raw.zarr, name: raw}}\n" for n in range(500))
    _, jobs = read_datasets(written(tmp_path, text))
    assert len({job.label for job in jobs}) == 500
    rounds = by_round(None, None, {"address": {"box": "z=0:1"}}, loaded().settings, jobs)
    assert len(rounds) == 500 and all(one["address"]["box"] == "z=0:1" for one in rounds)


def test_no_label_is_that_of_two() -> None:
    names = ["a", "a", "a (2)", "a", "a (2)"]
    listed = [Dataset(address=f"s3://b/{n}", name=name) for n, name in enumerate(names)]
    labels = [job.label for job in jobs_of(listed)]
    assert labels == ["a", "a (3)", "a (2)", "a (4)", "a (2) (2)"]


def test_a_run_of_datasets_alone_takes_no_other_source() -> None:
    job = Job("mine", "epfl", {})
    assert by_round(None, None, {}, loaded().settings, [job]) == [{"epfl": {}}]
    named = by_round(["idr"], None, {}, loaded().settings, [job])
    assert named == [{"idr": {}}, {"epfl": {}}]


def test_two_that_are_planned_at_the_same_time_get_two_names(tmp_path: Path) -> None:
    voxels = np.ones((2, 4, 4), np.uint8)
    store = open_store(str(tmp_path / "data"))
    first, second = (
        plan_of(voxels, "address", "raw", (1.0, 1.0, 1.0)).model_copy(
            update={"source_id": place, "source_path": place}
        )
        for place in ("s3://a/raw", "s3://b/raw")
    )
    (one,), (two,) = name_plans([first], store), name_plans([second], store)
    assert one.name == "raw" and two.name != "raw"
    assert name_plans([first], store)[0].name == "raw"
    assert name_plans([second], store)[0].name == two.name
    elsewhere = open_store(str(tmp_path / "other"))
    assert name_plans([second], elsewhere)[0].name == "raw"


# --- options --------------------------------------------------------------------------------


def test_any_setting_can_be_set_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EM_DASK", "off")
    set_settings(["dask=local", "assemble=stack"])
    assert loaded(EM_DASK=os.environ["EM_DASK"]).settings.dask == "local"
    found = source_parameters(
        ("ebi", "idr"), {}, None, None, ["max_workers=3", "ebi.assemble=stack", "dask=local"]
    )
    assert found == {"ebi": {"max_workers": "3", "assemble": "stack"}, "idr": {"max_workers": "3"}}
    assert source_parameters(("ebi",), {}, None, None, ["mrc_mode0=int8"]) == {
        "ebi": {"mrc_mode0": "int8"}
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_workers", "key=value"),
        ("max_wrokers=2", "did you mean 'max_workers'?"),
        ("ebi.asemble=stack", "did you mean 'ebi.assemble'?"),
        ("dvid_server=x", "no such setting"),
    ],
)
def test_a_wrong_setting_is_told_with_the_nearest(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        source_parameters(("ebi",), {}, None, None, [text])


def test_a_setting_that_an_option_or_the_address_says_is_not_set_besides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of the two would go unheard."""
    monkeypatch.setenv("EM_ARCHIVES", "samples")
    monkeypatch.setenv("EM_DATA_DIR", "data")
    place = "openorganelle:jrc_hela-2/recon-1/em/fibsem-uint16"
    for wanted in (
        Wanted(addresses=[place], level=["s1"], sets=["scale_level=s0"]),
        Wanted(addresses=[place], sets=["dataset_id=jrc_hela-3"]),
        Wanted(addresses=[place], sets=["openorganelle.dataset_id=jrc_hela-3"]),
        Wanted(data_dir="here", sets=["data_dir=there"]),
        Wanted(mode="parallel", sets=["execution_mode=staged"]),
    ):
        key = (wanted.sets or [""])[0].partition("=")[0].removeprefix("openorganelle.")
        with pytest.raises(ConfigError, match=f"--set {key}: .* says it"):
            take(wanted)
    # that of one source is said of it alone, and stronger than an option for all
    found = source_parameters(
        ("openorganelle",), {}, ["s1"], None, ["openorganelle.scale_level=s0"]
    )
    assert found == {"openorganelle": {"scale_level": "s0"}}


def test_triples_are_read_by_name_wherever_a_person_writes_one() -> None:
    by_name = loaded().loader(
        "flyem",
        {
            "crop_size": "z=64,y=100,x=200",
            "crop_origin": {"x": 3, "y": 2, "z": 1},
            "chunk_zyx": "x=8,y=16,z=32",
        },
    )
    assert by_name.crop_size == (200, 100, 64)  # type: ignore[attr-defined]
    assert by_name.crop_origin == (3, 2, 1)  # type: ignore[attr-defined]
    assert by_name.chunk_zyx == (32, 16, 8)
    in_order = loaded().loader("flyem", {"crop_size": "200,100,64", "chunk_zyx": "32,16,8"})
    assert in_order.crop_size == by_name.crop_size  # type: ignore[attr-defined]
    assert loaded().loader("epfl", {"voxel_size_nm": "Z = 40, Y = 4, X = 5"}).voxel_size_nm == (  # type: ignore[attr-defined]
        40.0, 4.0, 5.0,
    )  # fmt: skip
    for wrong in ("z=1,y=2", "z=1,y=2,w=3", "z=1,z=2,x=3"):
        with pytest.raises(ConfigError, match="exactly z, y and x"):
            loaded().loader("flyem", {"crop_size": wrong})


# --- groups, and what stays -----------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, dict[str, Any]]:
    root = tmp_path_factory.mktemp("grouped")
    data = open_store(str(root / "data"))
    voxels = tissue((0, 0, 0), (24, 120, 160), seed=3)
    about = About(title="Organoid", modality="FIB-SEM", organism="Homo sapiens", licence="CC0-1.0")
    record = make_recorded_volume(
        data, voxels, plan_of(voxels, "ebi", "one", (8.0, 8.0, 8.0), about=about)
    )
    data.put(
        preview_key(record["files"]["volume"]), render_preview(data, record["files"]["volume"])
    )
    return data.uri, str(root / "metadata"), record


def test_catalogue_and_report_tell_the_group(store: tuple[str, str, dict[str, Any]]) -> None:
    data_uri, metadata_uri, _ = store
    data, metadata = open_store(data_uri), open_store(metadata_uri)
    result = ProcessingResult(
        success=True, source="ebi", source_id="x", group="liver", dataset="one",
        metadata_paths=[f"{data.uri}/ebi/metadata_one.json", "s3://elsewhere/metadata_x.json"],
    )  # fmt: skip
    note_groups(metadata_uri, data_uri, StoreSettings(), [result])
    assert read_groups(metadata) == {"ebi/metadata_one.json": "liver"}
    kept = result.model_copy(update={"group": None})
    note_groups(metadata_uri, data_uri, StoreSettings(), [kept])
    assert read_groups(metadata) == {"ebi/metadata_one.json": "liver"}
    found = consolidate(data, metadata)
    assert found.catalog["by_group"] == {"liver": 1}
    assert found.catalog["records"][0]["group"] == "liver"
    page = report_html(found.catalog, found.report, pictures={}, now=datetime.now(UTC)).decode()
    assert "Groups: liver (1)." in page and "group liver" in page
    metadata.put("groups.json", b"{")
    assert read_groups(metadata) == {} and consolidate(data, metadata).valid == 1


def test_a_report_of_two_thousand_volumes_stays_small_and_names_each(
    store: tuple[str, str, dict[str, Any]],
) -> None:
    data_uri, _, record = store
    picture = open_store(data_uri).get(preview_key(record["files"]["volume"]))
    records, pictures = [], {}
    for number in range(2000):
        own = copy.deepcopy(record)
        name = f"EMPIAR-11759_a_volume_of_a_long_list_{number:05d}"
        own |= {"id": f"id{number}", "name": name, "status": "complete" if number else "failed"}
        own["files"]["volume"] = key = f"ebi/{name}.ome.zarr"
        own["metadata"]["core"]["citation"] = f"Author {number}, a paper with a title, {number}"
        records.append(
            {"path": f"ebi/metadata_{name}.json", "record": own, "group": f"g{number % 7}"}
        )
        pictures[key] = picture
    results = [
        {"path": one["path"], "valid": True, "errors": [], "warnings": []} for one in records
    ]
    catalog = {"records": records, "by_group": {f"g{n}": 285 for n in range(7)}}
    page = report_html(catalog, {"results": results}, pictures=pictures, now=datetime.now(UTC))
    assert len(page) < 5_000_000
    text = page.decode()
    for number in range(0, 2000, 97):
        assert f"a_volume_of_a_long_list_{number:05d}<" in text
    assert 20 < text.count("<img ") <= text.count("<article ") == 150
    assert 'id="filter"' in text and "2000 volumes" in text


def test_a_report_of_two_thousand_volumes_of_which_each_is_wrong_stays_small(
    store: tuple[str, str, dict[str, Any]],
) -> None:
    _, _, record = store
    records, results = [], []
    for number in range(2000):
        own = copy.deepcopy(record)
        name = f"a_volume_of_a_long_list_{number:05d}"
        error = {"message": f"broken {'and why ' * 30}", "advice": "run again " * 9}
        own |= {"id": f"id{number}", "name": name, "status": "failed", "error": error}
        own["files"]["volume"] = f"ebi/{name}.ome.zarr"
        path = f"ebi/metadata_{name}.json"
        records.append({"path": path, "record": own})
        told = [f"metadata.core: {number} {'is refused ' * 40}"] * 30
        wrong = {"errors": told if number % 2 else [], "warnings": told}
        results.append({"path": path, "valid": not number % 2, **wrong})
    page = report_html(
        {"records": records}, {"results": results}, pictures={}, now=datetime.now(UTC)
    )
    assert len(page) < 5_000_000
    text = page.decode()
    assert "And 1900 more volumes failed" in text
    assert "And 900 more records are not valid" in text and "And 900 more records have" in text
    assert "the first 1000" in text and "And 1000 more: validation_report_*.log" in text
    assert "metadata_a_volume_of_a_long_list_01999.json" in text  # errors come before warnings
    assert "and 20 more</li>" in text and "and 27 more</li>" in text


def test_records_of_one_volume_name_few_of_the_others(
    store: tuple[str, str, dict[str, Any]],
) -> None:
    """Each with all others would be a square: 500 MB for two thousand."""
    data_uri, metadata_uri, record = store
    data = open_store(data_uri)
    for number in range(9):
        own = copy.deepcopy(record) | {"id": str(uuid.UUID(int=number)), "name": f"n{number}"}
        data.put(f"ebi/metadata_n{number}.json", json.dumps(own).encode())
    found = consolidate(data, open_store(metadata_uri))
    assert [len(one["paths"]) for one in found.catalog["duplicates"]] == [10]
    for result in found.report["results"]:
        (said,) = [text for text in result["warnings"] if "also described by" in text]
        assert said.count(".json") == 5 and said.endswith(" and 4 more")
        assert result["path"] not in said


def test_the_newest_reports_stay(tmp_path: Path) -> None:
    metadata = open_store(str(tmp_path))
    kinds = ("report_{}.html", "metadata_catalog_{}.json", "validation_report_{}.json",
             "validation_report_{}.log")  # fmt: skip
    for minute in range(5):
        for kind in kinds:
            metadata.put(kind.format(f"20261121T10{minute:02d}00Z"), b"x")
    metadata.put("report_20261121T100400Z_2.html", b"x")
    for name in ("croissant.json", "groups.json", "report_mine.html"):
        metadata.put(name, b"{}")
    assert forget_old(metadata, 2) == 3 * 4 + 1
    left = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert "report_20261121T100400Z_2.html" in left and "report_20261121T100400Z.html" in left
    assert "metadata_catalog_20261121T100300Z.json" in left and "report_mine.html" in left
    assert "metadata_catalog_20261121T100200Z.json" not in left and "groups.json" in left
    assert forget_old(metadata, 2) == 0


def test_reports_that_cannot_be_deleted_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = open_store(str(tmp_path))
    for minute in range(3):
        metadata.put(f"report_20261121T10{minute:02d}00Z.html", b"x")

    def refuse(key: str) -> None:
        raise AccessDeniedError("nothing may be deleted here", location=key)

    monkeypatch.setattr(metadata, "delete", refuse)
    assert forget_old(metadata, 1) == 0
    assert len([*tmp_path.glob("report_*.html")]) == 3
