"""Steps of a record: only from what is stored, with a progress that says how far a run came."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lib.errors import RecordError
from lib.records.manager import MetadataManager
from lib.storage.local import LocalStore

KEY = "ebi/metadata_x.json"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, durable=False)


def test_a_new_process_reports_progress_at_once(store: LocalStore) -> None:
    first = MetadataManager(store, clock=lambda: 0.5)
    record = first.move(first.begin("ebi", "EMPIAR-1", "x"), "processing")
    another = MetadataManager(store, clock=lambda: 0.5)
    another.progress(record, 40, "half")
    assert another.load(KEY)["progress"] == {"percentage": 40.0, "current_step": "half"}
    another.progress(record, 41, "more")
    assert another.load(KEY)["progress"]["percentage"] == 40.0, "within the same second"


@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_a_run_that_did_not_end_well_shows_how_far_it_came(store: LocalStore, status: str) -> None:
    manager = MetadataManager(store, clock=iter(range(0, 900, 9)).__next__)
    record = manager.move(manager.begin("ebi", "EMPIAR-1", "x"), "processing")
    record = manager.progress(record, 40, "half")
    error = ValueError("x") if status == "failed" else None
    ended = manager.move(record, status, error=error)
    assert ended["progress"] == {"percentage": 40.0, "current_step": "half"}
    again = manager.move(ended, "pending")
    assert again["progress"] == {"percentage": 0, "current_step": None}


WAY = ("pending", "processing", "saving-data", "cancelled")


@pytest.mark.parametrize("old", range(3))
def test_a_step_from_what_is_no_longer_stored_is_refused(store: LocalStore, old: int) -> None:
    manager = MetadataManager(store)
    copies = [manager.begin("ebi", "EMPIAR-1", "x")]
    for status in WAY[1:]:
        copies.append(manager.move(copies[-1], status))
        for stale in copies[old:-1]:
            before = store.get(KEY)
            with pytest.raises(RecordError, match=f"is {status} now; another run has changed it"):
                manager.move(stale, "failed", error=ValueError("x"))
            assert store.get(KEY) == before


def test_another_volume_under_the_name_of_an_earlier_one_is_a_new_record(store: LocalStore) -> None:
    """Only its own earlier record tells when a volume was first brought in."""
    days = (datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 20))
    manager = MetadataManager(store, now=lambda: next(days))
    created = [manager.begin("ebi", f"EMPIAR-{n}", "x")["created_at"] for n in range(6)]
    assert len(set(created)) == 6
    assert manager.begin("ebi", "EMPIAR-5", "x")["created_at"] == created[-1]


def test_what_is_no_valid_record_is_not_found(store: LocalStore) -> None:
    manager = MetadataManager(store)
    manager.begin("ebi", "EMPIAR-1", "x")
    store.put("ebi/metadata_y.json", store.get(KEY).replace(b'"pending"', b'"done"'))
    # of another archive each, in the wrong folder
    store.put("idr/metadata_z.json", store.get(KEY))
    store.put("ebi/metadata_w.json", store.get(KEY).replace(b'"source": "ebi"', b'"source": "idr"'))
    assert [key for key, _ in manager.find(source="ebi")] == [KEY]
    assert [key for key, _ in manager.find(source="idr")] == []
    everything = ["ebi/metadata_w.json", KEY, "idr/metadata_z.json"]
    assert [key for key, _ in manager.find()] == everything


def test_a_record_is_text_that_people_can_read(store: LocalStore) -> None:
    manager = MetadataManager(store)
    manager.begin("ebi", "EMPIAR-1", "x", core={"title": "Zürich, 3 µm"})
    text = store.get(KEY)
    assert "Zürich, 3 µm".encode() in text
    assert text.startswith(b'{\n  "id"') and text.endswith(b"}\n")
