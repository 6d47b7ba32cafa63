"""Any sequence of calls, failures of the disk and killed runs leaves one valid, legal record."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lib.errors import DestinationFullError, RecordError
from lib.records.lifecycle import FINAL, MOVES, Status
from lib.records.manager import MetadataManager, schema_errors
from lib.storage.local import LocalStore

KEY = "ebi/metadata_x.json"
COMPLETE: dict[str, Any] = {
    "core": {
        "description": None,
        "volume_shape": [1, 2, 3],
        "voxel_size_nm": {"x": 1, "y": 1, "z": 1},
        "data_type": "uint8",
        "modality": "FIB-SEM",
    },
    "technical": {
        "file_size_bytes": 1,
        "sha256": "0" * 64,
        "compression": "none",
        "chunk_size": None,
        "global_mean": 0,
        "dimensions_nm": {"x": 3, "y": 2, "z": 1},
    },
    "provenance": {
        "download_url": None,
        "processing_pipeline": None,
        "internal_zarr_path": None,
        "voxel_size_provenance": {"source": "file", "approximate": False},
        "source_files": [],
    },
    "quality": {"completeness_score": 1, "missing_chunks": []},
    "files": {"volume": "ebi/x.npy"},
}
TEXTS = st.none() | st.text(max_size=20)


class FullNowAndThen(LocalStore):
    """A folder whose disk is full for the next write, if told so."""

    full = False

    def put(self, key: str, data: Any, **how: Any) -> None:
        if self.full:
            self.full = False
            raise DestinationFullError("no space")
        super().put(key, data, **how)


class RecordMoves(RuleBasedStateMachine):
    """A model of one record: what it must hold after each call."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = FullNowAndThen(self.folder.name, durable=False)
        self.seconds = 0.0
        self.status: str | None = None
        self.percentage = 0.0
        self.created: str | None = None
        self.stale: list[dict[str, Any]] = []
        self.new_run()
        self.begin()

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    @rule()
    def new_run(self) -> None:
        """The process was killed; another one begins with empty memory."""
        self.manager = MetadataManager(self.store, now=self.now, clock=self.clock)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.5]))
    def wait(self, seconds: float) -> None:
        self.seconds += seconds

    @rule()
    def fill_the_disk(self) -> None:
        self.store.full = True

    @rule()
    def begin(self) -> None:
        try:
            self.record = self.manager.begin("ebi", "EMPIAR-1", "x", **COMPLETE)
        except DestinationFullError:
            return
        self.status, self.percentage = "pending", 0.0
        self.created = self.created or self.record["created_at"]

    @rule(status=st.sampled_from(Status), text=TEXTS)
    def move(self, status: str, text: str | None) -> None:
        before = self.record
        legal = status in MOVES[before["status"]] and before["status"] == self.status
        error = ValueError(text or "x") if status == "failed" else None
        try:
            moved = self.manager.move(
                before, status, error=error, additional_metadata={"text": text}
            )
        except RecordError:
            assert not legal
            return
        except DestinationFullError:
            return
        assert legal
        self.stale.append(before)
        self.record, self.status = moved, status
        self.percentage = {"complete": 100.0, "pending": 0.0}.get(
            status, moved["progress"]["percentage"]
        )

    @rule(status=st.sampled_from(Status), number=st.integers(0, 99))
    def move_from_an_old_copy(self, status: str, number: int) -> None:
        """Only the status that is stored may be moved from."""
        if not self.stale:
            return
        old = self.stale[number % len(self.stale)]
        if old["status"] == self.status:
            return
        try:
            self.manager.move(old, status, error=ValueError("x"))
        except RecordError:
            return
        raise AssertionError("a stale record was moved")

    @rule(percentage=st.floats(-10, 110), text=TEXTS, old=st.booleans())
    def progress(self, percentage: float, text: str | None, old: bool) -> None:
        record = self.stale[-1] if old and self.stale else self.record
        before = self.stored()
        try:
            told = self.manager.progress(record, percentage, text)
        except DestinationFullError:
            return
        after = self.stored()
        assert after["status"] == before["status"]
        if after != before:
            assert record["status"] == self.status
            assert self.status not in FINAL
            assert after["progress"] == told["progress"]
            self.percentage = told["progress"]["percentage"]
        if record is self.record:
            self.record = told

    def stored(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.store.get(KEY))
        return loaded

    @invariant()
    def one_valid_record_of_the_status_last_written(self) -> None:
        if self.status is None:
            return
        stored = self.stored()
        assert schema_errors(stored) == []
        assert stored["status"] == self.status
        assert stored["created_at"] == self.created
        assert stored["updated_at"] >= stored["created_at"]
        assert (stored["error"] is not None) == (self.status == "failed")
        assert stored["progress"]["percentage"] == self.percentage
        assert [found.key for found in self.store.list()] == [KEY]

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


RecordMoves.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestRecordMoves = RecordMoves.TestCase
