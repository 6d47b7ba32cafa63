"""A name is one volume's, in a run and in a store; a record keeps the name that it has."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lib.archives.base import ArchiveBase
from lib.config.loaders import LoaderConfig, OpenOrganelleConfig
from lib.errors import DestinationError, NameTakenError
from lib.ingest import stages
from lib.ingest.context import VolumeRequest
from lib.ingest.life import Steps, make_volume
from lib.ingest.naming import is_of, name_plans, stated_source
from lib.plan import SourceFile, VolumePlan
from lib.records.manager import MetadataManager
from lib.safety import folded, volume_name
from lib.storage.base import Folder, StoreSettings
from lib.storage.local import LocalStore
from tasks.artifacts import volume_artifact_key
from tests.kit.volume_kit import a_plan

ALIKE = ("a b.mrc", "a_b.mrc", "a.b.mrc", "A_B.mrc", "a\u3000b.mrc")


def plan_of(file: str, **more: Any) -> VolumePlan:
    """A plan as EMPIAR's are: the name is made from the file's, the path tells it apart."""
    name = more.pop("name", f"EMPIAR-1_{volume_name(file.replace('.', '_'))}")
    url = f"ftp://host/empiar/world_availability/1/data/{file}"
    plan = a_plan((2, 3, 4), name=name, **more)
    files = (SourceFile(url=url, name=file, size=1),)
    update = {"source": "ebi", "source_id": "EMPIAR-1", "files": files}
    return plan.model_copy(update={**update, "source_path": f"EMPIAR-1/data/{file}"})


def record(store: LocalStore, plan: VolumePlan, *, old: bool = False) -> None:
    """Write the record of a plan; `old` as versions wrote it that did not know source paths."""
    manager = MetadataManager(store)
    more = {} if old else stated_source(plan)
    manager.begin(
        plan.source,
        plan.source_id,
        plan.name,
        provenance={
            "internal_zarr_path": plan.internal_path,
            "source_files": [
                {
                    "name": file.name,
                    "url": file.url.replace(" ", "%20").replace("ftp:", "https:"),
                    "size": 1,
                    "sha256": None,
                    "publisher_checksum": "publisher gives none",
                }
                for file in plan.files
            ],
        },
        additional_metadata=more,
    )


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, durable=False)


def names(plans: list[VolumePlan]) -> list[str]:
    return [plan.name for plan in plans]


# --- in one run


def test_names_that_nobody_shares_stay() -> None:
    plans = [plan_of("a.mrc"), plan_of("b.mrc")]
    assert names(name_plans(plans, None)) == ["EMPIAR-1_a_mrc", "EMPIAR-1_b_mrc"]


def test_volumes_that_would_share_a_name_each_get_their_own() -> None:
    plans = [plan_of(file) for file in ALIKE]
    found = names(name_plans(plans, None))
    assert len({folded(name) for name in found}) == len(ALIKE)
    assert all(name.lower().startswith("empiar-1_a_b_mrc-") for name in found)


def test_files_without_a_letter_of_ascii_each_get_their_own() -> None:
    found = names(
        name_plans([plan_of("数据.mrc"), plan_of("试样.mrc"), plan_of("データ.mrc")], None)
    )
    assert len(set(found)) == 3


def test_names_do_not_depend_on_the_order_of_a_listing() -> None:
    plans = [plan_of(file) for file in ALIKE[:4]]
    expected = {plan.path_in_source: plan.name for plan in name_plans(plans, None)}
    for order in itertools.permutations(plans):
        found = name_plans(list(order), None)
        assert {plan.path_in_source: plan.name for plan in found} == expected


def test_a_long_name_is_cut_and_stays_apart() -> None:
    plans = [plan_of("a.mrc", name="x" * 300 + end) for end in "ab"]
    found = names(name_plans(plans, None))
    assert len(set(found)) == 2
    assert all(len(f"metadata_{name}.json") < 255 for name in found)


def test_the_same_volume_twice_is_refused() -> None:
    with pytest.raises(NameTakenError, match=re.escape("EMPIAR-1/data/a.mrc")) as caught:
        name_plans([plan_of("a.mrc"), plan_of("a.mrc")], None)
    assert caught.value.archive == "ebi"


def test_volumes_of_an_archive_without_source_paths_are_told_by_their_names() -> None:
    plans = [plan_of("x", name=name).model_copy(update={"source_path": None}) for name in ALIKE]
    assert len({folded(name) for name in names(name_plans(plans, None))}) == len(ALIKE)


# --- in a store


def test_a_volume_keeps_the_name_of_its_record(store: LocalStore) -> None:
    record(store, plan_of("a_b.mrc"), old=True)
    found = name_plans([plan_of("a b.mrc"), plan_of("a_b.mrc")], store)
    assert found[1].name == "EMPIAR-1_a_b_mrc"
    assert found[0].name.startswith("EMPIAR-1_a_b_mrc-")


@pytest.mark.parametrize("old", [True, False])
def test_a_name_that_an_earlier_run_gave_to_another_file_is_not_given_again(
    store: LocalStore, old: bool
) -> None:
    """The first run saw only one of two files that would share a name."""
    record(store, plan_of("a.b.mrc"), old=old)
    (plan,) = name_plans([plan_of("a_b.mrc")], store)
    assert plan.name.startswith("EMPIAR-1_a_b_mrc-")
    assert names(name_plans([plan_of("a.b.mrc")], store)) == ["EMPIAR-1_a_b_mrc"]


def test_a_name_is_the_same_whichever_run_saw_the_other_file(store: LocalStore) -> None:
    both = [plan_of("a.b.mrc"), plan_of("a_b.mrc")]
    first = name_plans(both, store)
    record(store, first[1])
    assert names(name_plans(both[1:], store)) == [first[1].name]
    assert names(name_plans(both, store)) == names(first)
    # the other file alone: nobody holds its plain name
    assert names(name_plans(both[:1], store)) == ["EMPIAR-1_a_b_mrc"]


def test_a_name_that_differs_in_case_alone_is_taken(store: LocalStore) -> None:
    record(store, plan_of("A.mrc"))
    (plan,) = name_plans([plan_of("a.mrc")], store)
    assert plan.name.startswith("EMPIAR-1_a_mrc-")


def test_a_record_that_says_nothing_takes_no_name(store: LocalStore) -> None:
    store.put("ebi/metadata_EMPIAR-1_a_mrc.json", b"{")
    assert names(name_plans([plan_of("a.mrc")], store)) == ["EMPIAR-1_a_mrc"]


def test_a_name_of_before_goes_on_although_it_would_be_made_otherwise_today(
    store: LocalStore,
) -> None:
    plan = plan_of("a.tif", name="EPFL-x my (volume)")
    record(store, plan)
    assert names(name_plans([plan], store)) == ["EPFL-x my (volume)"]
    other = plan_of("b.tif", name="EPFL-x my (volume)")
    assert names(name_plans([other], store)) == ["EPFL-x_my_volume"]


def test_whose_record_it_is_is_told_by_accession_inner_path_and_files(store: LocalStore) -> None:
    plan = plan_of("a.mrc", internal_path="em/a/b")
    record(store, plan, old=True)
    (held,) = (found for _, found in MetadataManager(store).find())
    assert is_of(held, plan)
    assert is_of(held, plan.model_copy(update={"files": (*plan_of("z").files, *plan.files)}))
    for change in (
        {"source": "idr"},
        {"source_id": "EMPIAR-2"},
        {"internal_path": "em/a_b"},
        {"files": plan_of("b.mrc").files},
    ):
        assert not is_of(held, plan.model_copy(update=change))


# --- where it is asked


def request_for(plan: VolumePlan, folder: Path) -> VolumeRequest:
    config = OpenOrganelleConfig(dataset_id="jrc_hela-2")
    return VolumeRequest(plan, config, str(folder), StoreSettings(), folder / "scratch", "a test")


def test_a_volume_is_not_begun_under_another_ones_name(store: LocalStore, tmp_path: Path) -> None:
    """Two runs that planned at once: the second finds the first one's record under its lock."""

    def fetched(request: VolumeRequest) -> Any:
        raise AssertionError("something was fetched")

    record(store, plan_of("a.b.mrc"))
    before = store.get("ebi/metadata_EMPIAR-1_a_b_mrc.json")
    result = make_volume(request_for(plan_of("a_b.mrc"), tmp_path), "a test", Steps(fetch=fetched))
    assert result.status == "failed"
    assert "is that of EMPIAR-1/data/a.b.mrc, not of EMPIAR-1/data/a_b.mrc" in str(result.error)
    assert store.get("ebi/metadata_EMPIAR-1_a_b_mrc.json") == before


def test_a_record_says_where_the_archive_keeps_its_volume(
    store: LocalStore, tmp_path: Path
) -> None:
    def fetched(request: VolumeRequest) -> Any:
        raise DestinationError("that is enough")

    plan = plan_of("a\u00a0b.mrc")
    make_volume(request_for(plan, tmp_path), "a test", Steps(fetch=fetched))
    (held,) = (found for _, found in MetadataManager(store).find())
    assert held["additional_metadata"]["source_path"] == "EMPIAR-1/data/a b.mrc"
    assert is_of(held, plan)
    assert not is_of(held, plan_of("a b.mrc", name=plan.name))


class Unreadable:
    uri = "s3://bucket"

    def list_folder(self, prefix: str = "") -> Folder:
        raise DestinationError("the server refuses connections")


def plan_alone(monkeypatch: pytest.MonkeyPatch, config: LoaderConfig, store: Any) -> list[str]:
    class One(ArchiveBase):
        def plan(self, config: Any, session: Any) -> list[VolumePlan]:
            return [plan_of("a.mrc")]

    monkeypatch.setattr(stages, "archive", lambda name: One())
    return [p.name for p in stages.plan_source("openorganelle", config, Path(), store).plans]


def test_a_plan_finds_a_store_that_cannot_be_read_and_a_dry_run_does_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = OpenOrganelleConfig(dataset_id="jrc_hela-2")
    with pytest.raises(DestinationError, match="refuses") as caught:
        plan_alone(monkeypatch, config, Unreadable())
    assert caught.value.archive == "openorganelle"
    dry = config.model_copy(update={"dry_run": True})
    assert plan_alone(monkeypatch, dry, Unreadable()) == ["EMPIAR-1_a_mrc"]


def test_volumes_that_are_left_out_for_their_size_have_a_part_in_the_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Two(ArchiveBase):
        def plan(self, config: Any, session: Any) -> list[VolumePlan]:
            large = plan_of("a.b.mrc").model_copy(update={"shape_zyx": (2000, 1000, 1000)})
            return [large, plan_of("a_b.mrc")]

    monkeypatch.setattr(stages, "archive", lambda name: Two())
    config = OpenOrganelleConfig(dataset_id="jrc_hela-2", large_array_mode="skip")
    skipped = stages.plan_source("openorganelle", config, Path())
    streamed = stages.plan_source(
        "openorganelle", config.model_copy(update={"large_array_mode": "stream"}), Path()
    )
    assert skipped.plans[0].name == streamed.plans[1].name
    assert skipped.skipped[0].name == streamed.plans[0].name


def test_what_is_made_of_a_source_path_decides_no_voxel() -> None:
    plan = plan_of("a.mrc")
    assert plan.identity() == plan.model_copy(update={"source_path": None}).identity()
    assert "source_path" not in json.dumps(plan.identity())


def test_volumes_whose_names_differ_have_artifacts_of_their_own() -> None:
    keys = {volume_artifact_key("record", "ebi", name) for name in ("x.1", "x_1", "X-1")}
    assert len(keys) == 3
    assert all(re.fullmatch(r"record-ebi-x-1-[0-9a-f]{10}", key) for key in keys)


def test_a_volume_keeps_the_name_that_an_earlier_version_gave_it(store: LocalStore) -> None:
    plan = plan_of("mito/0001.h5", name="EMPIAR-1_mito")
    renamed = plan.model_copy(update={"earlier_names": ("EMPIAR-1_sections",)})
    assert renamed.identity() == plan.identity()
    record(store, plan.model_copy(update={"name": "EMPIAR-1_sections"}))
    other = plan_of("raw/0001.tif", name="EMPIAR-1_raw")
    other = other.model_copy(update={"earlier_names": ("EMPIAR-1_sections",)})
    assert names(name_plans([renamed, other], store)) == ["EMPIAR-1_sections", "EMPIAR-1_raw"]
