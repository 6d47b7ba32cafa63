"""What the catalogue promises: every valid record, and every error of every other one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lib.errors import DestinationError, NothingThereError
from lib.records.catalogue import CatalogResult, consolidate
from lib.records.manager import MetadataManager
from lib.storage.keys import require_contents
from lib.storage.local import LocalStore
from lib.storage.s3 import S3Store

NOW = datetime(2026, 11, 21, 10, 52, 54, tzinfo=UTC)
FIXTURES = Path(__file__).parents[2] / "fixtures" / "records_v2"
SHA256 = "0123456789abcdef" * 4


def complete(
    manager: MetadataManager, store: Any, source: str, name: str, *, score: float = 1.0
) -> str:
    """Make a complete record and its volume; returns the record's key."""
    volume = f"{source}/{name}.ome.zarr"
    record = manager.begin(source, f"{source}-{name}", name)
    record = manager.move(manager.move(record, "processing"), "saving-data")
    store.put(f"{volume}/zarr.json", b"{}")
    manager.move(
        record,
        "complete",
        core={
            "description": None,
            "volume_shape": [1, 2, 3],
            "voxel_size_nm": {"x": 1, "y": 1, "z": 1},
            "data_type": "uint8",
            "modality": None,
        },
        technical={
            "file_size_bytes": 1,
            "sha256": SHA256,
            "compression": "zstd",
            "chunk_size": [1, 2, 3],
            "global_mean": 1.0,
            "dimensions_nm": {"x": 3, "y": 2, "z": 1},
        },
        provenance={
            "download_url": None,
            "processing_pipeline": "macroscope",
            "internal_zarr_path": None,
            "voxel_size_provenance": {"source": "file", "approximate": True},
            "source_files": [],
        },
        quality={"completeness_score": score, "missing_chunks": []},
        files={"volume": volume},
    )
    return manager.key(record)


@pytest.fixture
def data(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "data", durable=False)


@pytest.fixture
def reports(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "metadata", durable=False)


@pytest.fixture
def manager(data: LocalStore) -> MetadataManager:
    return MetadataManager(data)


def errors(result: CatalogResult, path: str) -> list[str]:
    (found,) = (item["errors"] for item in result.report["results"] if item["path"] == path)
    return list(found)


def test_every_valid_record_is_catalogued_and_counted(
    data: LocalStore, reports: LocalStore, manager: MetadataManager
) -> None:
    complete(manager, data, "ebi", "a")
    complete(manager, data, "ebi", "b", score=0.5)
    manager.move(manager.begin("ebi", "c", "c"), "cancelled")
    manager.begin("idr", "d", "d")
    result = consolidate(data, reports, NOW)
    catalog = json.loads(reports.get("metadata_catalog_20261121T105254Z.json"))
    assert catalog == result.catalog
    assert (result.valid, result.invalid, catalog["total"]) == (4, 0, 4)
    assert catalog["by_source"] == {"ebi": 3, "idr": 1}
    assert catalog["by_status"] == {"cancelled": 1, "complete": 2, "pending": 1}
    assert catalog["completeness_by_source"] == {
        "ebi": {
            "volumes": 3,
            "complete": 2,
            "fraction_complete": 2 / 3,
            "mean_completeness_score": 0.75,
        },
        "idr": {
            "volumes": 1,
            "complete": 0,
            "fraction_complete": 0.0,
            "mean_completeness_score": None,
        },
    }
    assert [item["path"] for item in catalog["records"]] == [
        "ebi/metadata_a.json",
        "ebi/metadata_b.json",
        "ebi/metadata_c.json",
        "idr/metadata_d.json",
    ]
    assert catalog["records"][0]["record"] == manager.load("ebi/metadata_a.json")


def test_one_bad_record_stops_no_other_and_all_its_errors_are_told(
    data: LocalStore, reports: LocalStore, manager: MetadataManager
) -> None:
    good = complete(manager, data, "ebi", "a")
    bad = {
        "broken": b'{"source": ',
        "nan": b'{"source": "ebi", "source_id": "x", "global_mean": NaN}',
        "list": b"[]",
        "bytes": b"\xff\xfe\x00",
        "empty": b"",
        "wrong": json.dumps(
            {**manager.load(good), "status": "done", "created_at": "never", "surprise": 1}
        ).encode(),
    }
    for name, content in bad.items():
        data.put(f"ebi/metadata_{name}.json", content)
    result = consolidate(data, reports, NOW)
    assert (result.valid, result.invalid) == (1, len(bad))
    assert [item["path"] for item in result.catalog["records"]] == [good]
    for name in ("broken", "nan", "bytes", "empty"):
        assert "not JSON" in errors(result, f"ebi/metadata_{name}.json")[0]
    assert "not a JSON object" in errors(result, "ebi/metadata_list.json")[0]
    wrong = errors(result, "ebi/metadata_wrong.json")
    assert len(wrong) >= 3
    for word in ("status", "created_at", "surprise"):
        assert any(word in error for error in wrong)
    log = reports.get(result.log_key).decode()
    assert "7 records, 1 valid, 6 invalid" in log
    for error in wrong:
        assert " ".join(error.split()) in log
    assert json.loads(reports.get(result.report_key)) == result.report


def test_a_complete_record_without_its_volume_is_reported(
    data: LocalStore, reports: LocalStore, manager: MetadataManager
) -> None:
    kept = complete(manager, data, "ebi", "a")
    lost = complete(manager, data, "ebi", "b")
    data.put("ebi/b.ome.zarr/c/0/0/0", b"a shard, but no root document")
    data.delete("ebi/b.ome.zarr/zarr.json")
    result = consolidate(data, reports, NOW)
    assert errors(result, kept) == []
    (error,) = errors(result, lost)
    assert "complete, but there is no ebi/b.ome.zarr" in error
    assert [item["path"] for item in result.catalog["records"]] == [kept]


def test_a_volume_outside_the_store_is_an_error_not_a_way_out(
    data: LocalStore, reports: LocalStore, manager: MetadataManager
) -> None:
    key = complete(manager, data, "ebi", "a")
    record = manager.load(key)
    record["files"]["volume"] = "../../etc/passwd"
    data.put(key, json.dumps(record).encode())
    (error,) = errors(consolidate(data, reports, NOW), key)
    assert "is refused" in error


def test_two_records_of_one_accession_are_reported_as_duplicates(
    data: LocalStore, reports: LocalStore, manager: MetadataManager
) -> None:
    manager.begin("ebi", "EMPIAR-11759", "a")
    manager.begin("ebi", "EMPIAR-11759", "b")
    manager.begin("idr", "EMPIAR-11759", "c")
    result = consolidate(data, reports, NOW)
    paths = ["ebi/metadata_a.json", "ebi/metadata_b.json"]
    expected = [{"source": "ebi", "source_id": "EMPIAR-11759", "paths": paths}]
    assert result.catalog["duplicates"] == result.report["duplicates"] == expected
    assert result.valid == 3
    warned = [item["path"] for item in result.report["results"] if item["warnings"]]
    assert warned == paths


def test_volumes_of_one_accession_are_no_duplicates(
    data: LocalStore, reports: LocalStore, manager: MetadataManager
) -> None:
    for name in ("a", "b"):
        file = {"name": name, "url": f"ftp://h/1/{name}", "size": 1, "sha256": None}
        file |= {"publisher_checksum": "publisher gives none"}
        manager.begin("ebi", "EMPIAR-1", name, provenance={"source_files": [file]})
    for part in ("z=0:1", "z=1:2"):
        manager.begin("flyem", "x/grayscale", f"crop_{part[2]}", provenance={"box": part})
    for channel in ("c0", "c1"):
        more = {"source_digest": channel}
        manager.begin("idr", "7", channel, additional_metadata=more)
    result = consolidate(data, reports, NOW)
    assert result.catalog["duplicates"] == []
    assert not any(item["warnings"] for item in result.report["results"])


def test_records_that_differ_in_case_alone_are_told(
    data: LocalStore, reports: LocalStore, manager: MetadataManager
) -> None:
    for name in ("A", "a"):
        manager.begin("ebi", f"EMPIAR-{name}", name)
    (warned,) = (
        item for item in consolidate(data, reports, NOW).report["results"] if item["warnings"]
    )
    assert warned["path"] == "ebi/metadata_a.json"
    assert "ebi/metadata_A.json" in warned["warnings"][0]


def test_older_records_are_catalogued_with_the_new_ones(
    data: LocalStore, reports: LocalStore
) -> None:
    for path in FIXTURES.glob("*.json"):
        data.put(f"old/deep/metadata_{path.stem}.json", path.read_bytes())
    result = consolidate(data, reports, NOW)
    (error,) = errors(result, "old/deep/metadata_ebi_bare_lists.json")
    assert "there is no data/ebi/section_17.npy" in error
    data.put("data/ebi/section_17.npy", b"1")
    assert consolidate(data, reports, NOW).valid == 3


def test_an_empty_store_has_an_empty_catalogue(data: LocalStore, reports: LocalStore) -> None:
    result = consolidate(data, reports, NOW)
    assert (result.valid, result.invalid, result.catalog["records"]) == (0, 0, [])
    assert [found.key for found in reports.list()] == sorted(
        [result.catalog_key, result.report_key, result.log_key]
    )


def test_two_catalogues_of_one_second_both_stay(
    data: LocalStore, reports: LocalStore, manager: MetadataManager
) -> None:
    first = consolidate(data, reports, NOW)
    manager.begin("ebi", "a", "a")
    second = consolidate(data, reports, NOW)
    assert first.catalog_key != second.catalog_key
    assert json.loads(reports.get(first.catalog_key))["total"] == 0
    assert json.loads(reports.get(second.catalog_key))["total"] == 1
    assert second.report_key.replace("validation_report", "metadata_catalog") == second.catalog_key


def test_the_catalogue_may_lie_inside_the_data_store(
    data: LocalStore, manager: MetadataManager
) -> None:
    manager.begin("ebi", "a", "a")
    inside = LocalStore(Path(data.root, "metadata"))
    consolidate(data, inside, NOW)
    assert consolidate(data, inside, NOW).report["files"] == 1


def test_a_store_that_cannot_be_written_is_an_error(data: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DestinationError):
        consolidate(data, LocalStore(tmp_path / "file" / "metadata"), NOW)


def test_it_works_the_same_in_a_bucket_and_does_not_list_the_shards(
    destination: Any, tmp_path: Path
) -> None:
    store = S3Store(f"s3://volumes/{tmp_path.name}", destination.settings())
    manager = MetadataManager(store)
    complete(manager, store, "ebi", "a")
    lost = complete(manager, store, "ebi", "b")
    store.delete("ebi/b.ome.zarr/zarr.json")
    before = store.counts()["LIST"]
    metadata = S3Store(f"s3://volumes/{tmp_path.name}/metadata", destination.settings())
    result = consolidate(store, metadata, NOW)
    assert (result.valid, result.invalid) == (1, 1)
    assert "there is no ebi/b.ome.zarr" in errors(result, lost)[0]
    assert store.counts()["LIST"] - before == 2  # the store's root and ebi
    assert json.loads(metadata.get(result.catalog_key)) == result.catalog


def test_a_volume_without_a_record_is_reported_and_not_catalogued(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "data", durable=False)
    key = complete(MetadataManager(store), store, "idr", "a")
    store.put("idr/lost.ome.zarr/zarr.json", b"{}")
    store.put("idr/lost.npy", b"")
    result = consolidate(store, LocalStore(tmp_path / "metadata", durable=False), NOW)
    assert (result.valid, result.invalid) == (1, 2)
    assert [item["path"] for item in result.catalog["records"]] == [key]
    told = {item["path"]: item["errors"] for item in result.report["results"] if item["errors"]}
    assert told.keys() == {"idr/lost.ome.zarr", "idr/lost.npy"}
    assert "has no record (idr/metadata_lost.json)" in told["idr/lost.npy"][0]


def test_a_catalogue_is_not_made_of_a_mistyped_address(tmp_path: Path) -> None:
    with pytest.raises(NothingThereError, match="there is no such folder"):
        require_contents(LocalStore(tmp_path / "data"), "catalogue")
    store = LocalStore(tmp_path / "data", durable=False)
    complete(MetadataManager(store), store, "idr", "a")
    assert len(require_contents(store, "catalogue").records) == 1
