"""Progress is a report of its own: where a run ended stays, and a new process reports at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.metadata_manager import MetadataManager
from lib.storage.local import LocalStore

KEY = "ebi/metadata_x.json"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, fsync="none")


def test_a_new_process_reports_progress_at_once(store: LocalStore) -> None:
    first = MetadataManager(store, clock=lambda: 5.0)
    record = first.move(first.begin("ebi", "EMPIAR-1", "x"), "processing")
    another = MetadataManager(store, clock=lambda: 5.0)
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


def test_a_record_is_text_that_people_can_read(store: LocalStore) -> None:
    manager = MetadataManager(store)
    manager.begin("ebi", "EMPIAR-1", "x", core={"title": "Zürich, 3 µm"})
    text = store.get(KEY)
    assert "Zürich, 3 µm".encode() in text
    assert text.startswith(b'{\n  "id"') and text.endswith(b"}\n")
