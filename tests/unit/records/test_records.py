"""What a record promises: valid, plain, without secrets, and moved only as the rules allow."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from pydantic import SecretStr

from lib.errors import DestinationFullError, NotFoundError, RecordError, TransportError
from lib.records.lifecycle import MOVES, Key, Status, error_record, plain, record_id
from lib.records.manager import MetadataManager, schema, schema_errors
from lib.storage.local import LocalStore
from lib.vocabulary import modality

OLD_RECORDS = sorted((Path(__file__).parents[2] / "fixtures" / "records_v2").glob("*.json"))
SHA256 = "0123456789abcdef" * 4

COMPLETE: dict[str, Any] = {
    "core": {
        "title": "A title",
        "description": "Zebrafish retina",
        "volume_shape": (16, 32, 64),
        "voxel_size_nm": {"x": 8.0, "y": 8.0, "z": 50.0},
        "data_type": "uint8",
        "modality": "SBF-SEM",
        "authors": ["A. Author"],
        "licence": "CC0-1.0",
        "citation": None,
        "doi": "10.6019/EMPIAR-11759",
        "organism": "Danio rerio",
        "specimen": None,
        "imaging_start_date": "2018-06-11",
    },
    "technical": {
        "format": "zarr",
        "file_size_bytes": 32768,
        "sha256": SHA256,
        "compression": "zstd",
        "chunk_size": [16, 32, 32],
        "shard": [16, 32, 64],
        "global_mean": 121.5,
        "global_min": 0,
        "global_max": 255,
        "std": 3.5,
        "histogram": {"counts": [1, 2, 3], "first": 0, "bin_width": 1},
        "dimensions_nm": {"x": 512.0, "y": 256.0, "z": 800.0},
        "axes": ["z", "y", "x"],
        "levels": [{"path": "0", "shape": [16, 32, 64]}],
        "translation": {"x": 0.0, "y": 0.0, "z": -10.5},
    },
    "provenance": {
        "download_url": "ftp://ftp.ebi.ac.uk/empiar/world_availability/11759/data/",
        "processing_pipeline": "macroscope 0.1.0",
        "internal_zarr_path": None,
        "voxel_size_provenance": {"source": "file", "approximate": False},
        "source_files": [
            {
                "name": "a 1.dm3",
                "url": "ftp://ftp.ebi.ac.uk/empiar/a 1.dm3",
                "size": 10,
                "sha256": SHA256,
                "etag": None,
                "publisher_checksum": "publisher gives none",
            }
        ],
        "software": {"zarr": "3.1.6"},
        "requests": {"RETR": 16},
        "bytes": 1024,
    },
    "quality": {"completeness_score": 1.0, "missing_chunks": [], "notes": []},
    "files": {"volume": "ebi/x.ome.zarr", "raw": ["ebi/downloads/a 1.dm3"], "sums": None},
}


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=self.seconds)


class Puts(LocalStore):
    """Counts what reaches the disk."""

    puts = 0

    def put(self, key: str, data: Any, **how: Any) -> None:
        self.puts += 1
        super().put(key, data, **how)


@pytest.fixture
def store(tmp_path: Path) -> Puts:
    return Puts(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manager(store: Puts, clock: Clock) -> MetadataManager:
    return MetadataManager(store, secrets=["hunter2"], now=clock.now, clock=clock)


def stored(store: LocalStore, key: str = "ebi/metadata_x.json") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(store.get(key))
    return loaded


def saving(manager: MetadataManager) -> dict[str, Any]:
    record = manager.begin("ebi", "EMPIAR-11759", "x")
    return manager.move(manager.move(record, "processing"), "saving-data")


# --- moves -----------------------------------------------------------------------------------


def test_a_run_writes_every_status_at_once(
    manager: MetadataManager, store: Puts, clock: Clock
) -> None:
    record = manager.begin("ebi", "EMPIAR-11759", "x", core={"title": "A title"})
    assert stored(store) == record
    for status in ("processing", "saving-data", "complete"):
        clock.seconds += 1
        record = manager.move(record, status, **(COMPLETE if status == "complete" else {}))
        assert stored(store) == record
        assert record["status"] == status
        assert schema_errors(stored(store)) == []
    assert record["progress"]["percentage"] == 100
    assert record["metadata"]["core"]["volume_shape"] == [16, 32, 64]
    assert record["created_at"] == "2026-11-21T00:16:40.000Z"
    assert record["updated_at"] == "2026-11-21T00:16:43.000Z"
    assert manager.load("ebi/metadata_x.json") == record
    assert store.puts == 4


@pytest.mark.parametrize("after", [*Status])
@pytest.mark.parametrize("before", [*Status])
def test_every_move_that_is_not_in_the_table_is_refused(
    manager: MetadataManager, store: Puts, before: str, after: str
) -> None:
    route = {
        "pending": (),
        "processing": ("processing",),
        "saving-data": ("processing", "saving-data"),
        "complete": ("processing", "saving-data", "complete"),
        "failed": ("failed",),
        "cancelled": ("cancelled",),
    }
    record = manager.begin("ebi", "EMPIAR-11759", "x", **COMPLETE)
    for status in route[before]:
        record = manager.move(record, status, error=ValueError("x") if status == "failed" else None)
    puts = store.puts
    if after in MOVES[before]:
        moved = manager.move(record, after, error=ValueError("x") if after == "failed" else None)
        assert moved["status"] == stored(store)["status"] == after
    else:
        with pytest.raises(RecordError, match=f"cannot move from {before} to {after}"):
            manager.move(record, after)
        assert store.puts == puts
        assert stored(store)["status"] == before


def test_a_status_that_does_not_exist_is_refused(manager: MetadataManager) -> None:
    record = manager.begin("ebi", "EMPIAR-11759", "x")
    with pytest.raises(RecordError, match="cannot move"):
        manager.move(record, "done")


def test_a_record_that_another_run_moved_is_not_overwritten(
    manager: MetadataManager, store: Puts
) -> None:
    record = manager.move(manager.begin("ebi", "EMPIAR-11759", "x"), "processing")
    MetadataManager(store).move(record, "cancelled")
    with pytest.raises(RecordError, match="is cancelled now; another run"):
        manager.move(record, "saving-data")
    store.delete("ebi/metadata_x.json")
    with pytest.raises(RecordError, match="is gone"):
        manager.move(record, "failed", error=ValueError("x"))


def test_complete_is_refused_while_something_is_missing(
    manager: MetadataManager, store: Puts
) -> None:
    record = saving(manager)
    changes = {**COMPLETE, "technical": {**COMPLETE["technical"], "sha256": "g" * 64}, "files": {}}
    with pytest.raises(RecordError) as caught:
        manager.move(record, "complete", **changes)
    assert "metadata.technical.sha256" in str(caught.value)
    assert "files: 'volume' is a required property" in str(caught.value)
    assert stored(store)["status"] == "saving-data"


def test_a_failure_holds_the_error_without_secrets(manager: MetadataManager, store: Puts) -> None:
    record = manager.begin("ebi", "EMPIAR-11759", "x")
    try:
        raise DestinationFullError(
            "no space for hunter2",
            location="https://user:pw@host/x?X-Amz-Signature=abc",
            unit="shard 0/1/2",
        ) from ValueError("Authorization: Bearer abc.def, aws_secret_access_key=xyz")
    except DestinationFullError as error:
        record = manager.move(record, "failed", error=error)
    text = store.get("ebi/metadata_x.json").decode()
    for secret in ("hunter2", "user:pw", "X-Amz", "abc.def", "xyz"):
        assert secret not in text
    assert record["error"]["type"] == "DestinationFullError"
    assert record["error"]["unit"] == "shard 0/1/2"
    assert record["error"]["location"] == "https://host/x"
    assert record["error"]["retryable"] is False
    assert "Free space" in record["error"]["advice"]
    assert "test_records.py" in record["error"]["traceback"]
    again = manager.move(record, "pending")
    assert again["error"] is None


def test_failed_needs_its_error(manager: MetadataManager) -> None:
    with pytest.raises(RecordError, match="error"):
        manager.move(manager.begin("ebi", "EMPIAR-11759", "x"), "failed")


@pytest.mark.parametrize("error", [TransportError("cut"), KeyError(), KeyboardInterrupt()])
def test_every_kind_of_error_makes_a_valid_record(
    manager: MetadataManager, error: BaseException
) -> None:
    manager.move(manager.begin("ebi", "EMPIAR-11759", "x"), "failed", error=error)
    assert error_record(error)["message"]


def test_a_new_run_keeps_identity_and_birthday_whatever_was_left(
    manager: MetadataManager, store: Puts, clock: Clock
) -> None:
    first = saving(manager)  # and then the process was killed
    clock.seconds += 100
    second = manager.begin("ebi", "EMPIAR-11759", "x")
    assert (second["id"], second["created_at"]) == (first["id"], first["created_at"])
    assert (second["status"], second["progress"]["percentage"]) == ("pending", 0)
    for junk in (b"{ cut", b"[]", b'{"id": "x"}'):
        store.put("ebi/metadata_x.json", junk)
        assert manager.begin("ebi", "EMPIAR-11759", "x")["id"] == first["id"]


def test_ids_are_stable_and_differ_between_volumes() -> None:
    assert record_id("ebi", "EMPIAR-11759", "x") == "ee89dac6-0507-5fa5-81c0-e910c306610f"
    assert (
        len({record_id(*parts) for parts in (("a", "b", "c"), ("a", "bc", ""), ("ab", "", "c"))})
        == 3
    )


# --- progress --------------------------------------------------------------------------------


def test_progress_is_written_at_most_once_a_second(
    manager: MetadataManager, store: Puts, clock: Clock
) -> None:
    record = manager.move(manager.begin("ebi", "EMPIAR-11759", "x"), "processing")
    puts = store.puts
    for number in range(100):
        clock.seconds += 0.1
        record = manager.progress(record, number, f"shard {number}")
    assert 8 <= store.puts - puts <= 10
    assert record["progress"] == {"percentage": 99.0, "current_step": "shard 99"}
    assert manager.move(record, "saving-data")["progress"]["percentage"] == 99.0
    assert stored(store)["progress"]["percentage"] == 99.0


@pytest.mark.parametrize(("given", "kept"), [(-1, 0.0), (250, 100.0), (np.float32(12.5), 12.5)])
def test_progress_stays_between_0_and_100(
    manager: MetadataManager, store: Puts, clock: Clock, given: Any, kept: float
) -> None:
    record = manager.move(manager.begin("ebi", "EMPIAR-11759", "x"), "processing")
    clock.seconds += 2
    manager.progress(record, given, None)
    assert stored(store)["progress"]["percentage"] == kept


def test_late_progress_does_not_bring_a_status_back(
    manager: MetadataManager, store: Puts, clock: Clock
) -> None:
    record = manager.move(manager.begin("ebi", "EMPIAR-11759", "x"), "processing")
    manager.move(record, "cancelled")
    clock.seconds += 10
    manager.progress(record, 50, "late")
    assert stored(store)["status"] == "cancelled"


# --- plain JSON ------------------------------------------------------------------------------


def test_values_become_plain_json() -> None:
    value = {
        "mean": np.float32(1.5),
        "shape": (np.int64(3), 4),
        "counts": np.array([[1, 2]], np.uint64),
        "nan": float("nan"),
        "inf": [np.float64("inf"), -np.inf],
        "true": np.bool_(True),
        "path": Path("/a/b"),
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "secret": SecretStr("x"),
        "set": {"b", "a"},
        1: "\ud800 ü\nline",
        "url": "see https://u:p@h/x?sig=1#f, hunter2.",
    }
    result = plain(value, ["hunter2", ""])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result == {
        "mean": 1.5,
        "shape": [3, 4],
        "counts": [[1, 2]],
        "nan": None,
        "inf": [None, None],
        "true": True,
        "path": "/a/b",
        "when": "2026-01-02T00:00:00+00:00",
        "secret": "**********",
        "set": ["a", "b"],
        "1": "? ü\nline",
        "url": result["url"],
    }
    assert type(result["mean"]) is float
    assert type(result["true"]) is bool
    for secret in ("u:p", "sig=1", "hunter2"):
        assert secret not in result["url"]


def test_what_has_no_json_form_is_refused(manager: MetadataManager, store: Puts) -> None:
    record = manager.begin("ebi", "EMPIAR-11759", "x")
    with pytest.raises(RecordError, match="cannot hold a object"):
        manager.move(record, "processing", additional_metadata={"x": object()})
    with pytest.raises(RecordError, match="no part 'techncial'"):
        manager.move(record, "processing", techncial={})
    assert stored(store)["status"] == "pending"


# --- schema ----------------------------------------------------------------------------------


def test_the_schema_itself_is_valid_and_is_found_as_package_data() -> None:
    Draft202012Validator.check_schema(schema())
    assert schema()["$schema"].endswith("2020-12/schema")


@pytest.mark.parametrize("path", OLD_RECORDS, ids=lambda path: path.stem)
def test_older_records_still_validate(path: Path) -> None:
    assert schema_errors(json.loads(path.read_text())) == []


def test_there_are_older_records_to_try() -> None:
    texts = [path.read_text() for path in OLD_RECORDS]
    assert any("Mon Mar 09 2015" in text for text in texts)
    assert any('"voxel_size_nm": [' in text for text in texts)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("core", "volume_shape", [0, 1, 2]),
        ("core", "volume_shape", [1, 2]),
        ("core", "voxel_size_nm", [8.0, 8.0, 8.0]),
        ("core", "voxel_size_nm", {"x": 8.0, "y": 8.0}),
        ("core", "voxel_size_nm", {"x": 8.0, "y": 8.0, "z": 0}),
        ("core", "data_type", "float128"),
        ("core", "modality", "fibsem"),
        ("core", "imaging_start_date", "Mon Mar 09 2015"),
        ("core", "doi", "https://doi.org/10.1/x"),
        ("core", "tilte", "x"),
        ("technical", "sha256", SHA256.upper()),
        ("technical", "sha256", SHA256[:-1]),
        ("technical", "compression", "zip"),
        ("technical", "file_size_bytes", -1),
        ("technical", "histogram", {"counts": [1.5]}),
        ("technical", "axes", ["z", "y", "y"]),
        ("provenance", "download_url", "https://user:password@host/x"),
        ("provenance", "voxel_size_provenance", {"source": "file"}),
        ("provenance", "source_files", [{"name": "x"}]),
        ("quality", "completeness_score", 1.01),
    ],
)
def test_a_wrong_value_is_found_by_name(
    manager: MetadataManager, section: str, field: str, value: Any
) -> None:
    record = manager.move(saving(manager), "complete", **COMPLETE)
    assert schema_errors(record) == []
    record["metadata"][section][field] = value
    errors = schema_errors(record)
    assert len(errors) >= 1
    assert all(f"metadata.{section}" in error and field in error for error in errors)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "not-a-uuid"),
        ("created_at", "yesterday"),
        ("updated_at", "2026-11-21T10:00:00+01:00"),
        ("status", "done"),
        ("progress", {"percentage": 101, "current_step": None}),
        ("schema_version", "4.0"),
        ("surprise", 1),
    ],
)
def test_a_wrong_top_level_field_is_found(manager: MetadataManager, field: str, value: Any) -> None:
    record = manager.begin("ebi", "EMPIAR-11759", "x")
    errors = schema_errors({**record, field: value})
    assert any(field in error for error in errors)


def test_all_errors_are_told_not_only_the_first(manager: MetadataManager) -> None:
    record = manager.begin("ebi", "EMPIAR-11759", "x")
    record["metadata"]["core"] = {"volume_shape": [0, -1, 2], "data_type": "text"}
    record["created_at"] = "never"
    fields = [error.split(":")[0] for error in schema_errors(record)]
    assert set(fields) == {
        "created_at",
        "metadata.core.data_type",
        "metadata.core.volume_shape.0",
        "metadata.core.volume_shape.1",
    }


@pytest.mark.parametrize(
    "text", ["uint64", "int64", "uint8", "int16", "float32"], ids=lambda text: text
)
def test_the_data_types_of_the_archives_are_known(text: str) -> None:
    assert text in schema()["$defs"]["DataType"]["enum"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("FIB-SEM", "FIB-SEM"),
        ("fib sem", "FIB-SEM"),
        ("SBF-SEM", "SBF-SEM"),
        ("ssTEM", "ssTEM"),
        ("Focused ion beam scanning electron microscopy", "FIB-SEM"),
        ("holography", "other"),
        ("", None),
        ("EMDB", "other"),
        ("SXT", "X-ray"),
        ("Soft X-ray tomography (SXT)", "X-ray"),
        ("fluorescence microscopy", "light microscopy"),
        ("serial block-face SEM", "SBF-SEM"),
        ("correlative light and electron microscopy", "other"),
    ],
)
def test_modalities_become_words_of_the_schema(text: str, word: str | None) -> None:
    assert modality(text) == word
    assert word in [None, *schema()["$defs"]["Modality"]["enum"]]


# --- finding ---------------------------------------------------------------------------------


def test_records_are_found_by_source_and_status(manager: MetadataManager, store: Puts) -> None:
    manager.begin("ebi", "EMPIAR-11759", "x")
    manager.move(manager.begin("ebi", "EMPIAR-11759", "y"), "cancelled")
    manager.begin("idr", "9846137", "z")
    store.put("ebi/metadata_bad.json", b"{")
    store.put("ebi/x.ome.zarr/metadata_inside.json", b"{}")
    store.put("ebi/.partial/x/metadata_half.json", b"{}")
    store.put("metadata/metadata_catalog_20260101T000000Z.json", b"{}")

    def keys(**wanted: str) -> list[str]:
        return [key for key, _ in manager.find(**wanted)]

    assert keys() == ["ebi/metadata_x.json", "ebi/metadata_y.json", "idr/metadata_z.json"]
    assert keys(source="ebi") == ["ebi/metadata_x.json", "ebi/metadata_y.json"]
    assert keys(status="pending") == ["ebi/metadata_x.json", "idr/metadata_z.json"]
    assert keys(source="idr", status="cancelled") == []


def test_loading_says_what_is_wrong(manager: MetadataManager, store: Puts) -> None:
    with pytest.raises(NotFoundError):
        manager.load("ebi/metadata_x.json")
    for junk, word in ((b"{", "not JSON"), (b'{"a": NaN}', "NaN"), (b"[1]", "not a JSON object")):
        store.put("ebi/metadata_x.json", junk)
        with pytest.raises(RecordError, match=word):
            manager.load("ebi/metadata_x.json")
    store.put("ebi/metadata_x.json", b'{"schema_version": "3.0"}')
    with pytest.raises(RecordError, match="'source' is a required property"):
        manager.load("ebi/metadata_x.json")


def test_a_record_nested_beyond_reason_is_an_error_not_a_crash(
    manager: MetadataManager, store: Puts
) -> None:
    store.put("ebi/metadata_x.json", b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}")
    with pytest.raises(RecordError, match="not JSON"):
        manager.load("ebi/metadata_x.json")


@pytest.mark.parametrize("secret", ["a", "image", "kind", "test"])
def test_keys_of_a_few_letters_leave_a_record_that_can_be_read(secret: str) -> None:
    """Of a test server with the access key "a", every record was invalid."""
    said = f"refused for {secret}: {secret}, x:{secret}@h"
    cleaned = plain({"kind": "images", "latest_data": "attested", "note": said}, [secret])
    assert cleaned == {
        "kind": "images",
        "latest_data": "attested",
        "note": "refused for ***: ***, x:***@h",
    }
    assert plain({"image": "my imageXY"}, ["imageXY1", "imageXY"]) == {"image": "my ***"}
    assert plain({"a12345678b": "a12345678b"}, ["12345678"]) == {"a***b": "a***b"}


def test_a_key_is_an_identity_that_no_cleaning_changes() -> None:
    key = "ebi/downloads/x/my secret \U0001fae8.tif"
    cleaned = plain({"raw": [Key(key)], "note": f"about {key}"}, ["secret"])
    assert cleaned["raw"] == [key]
    assert type(cleaned["raw"][0]) is str
    assert "secret" not in cleaned["note"]
