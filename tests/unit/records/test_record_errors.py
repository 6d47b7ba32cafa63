"""What a record says of a failure, and what is said of a bad record: enough, and never too much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lib.errors import RecordError, TransportError
from lib.records.lifecycle import error_record, read_json
from lib.records.manager import MetadataManager, schema_errors
from lib.storage.local import LocalStore


def even(depth: int, error: Exception) -> None:
    """Two functions in turn: a traceback folds what repeats."""
    odd(depth - 1, error)


def odd(depth: int, error: Exception) -> None:
    if depth <= 0:
        raise error
    even(depth - 1, error)


def raised(error: Exception, depth: int = 1) -> Exception:
    with pytest.raises(type(error)) as caught:
        even(depth, error)
    return caught.value


def test_an_error_without_a_name_of_ours_is_to_be_reported() -> None:
    said = error_record(raised(ValueError("no such colour")))
    assert said.pop("traceback").startswith("Traceback")
    assert said == {
        "type": "ValueError",
        "message": "no such colour",
        "retryable": False,
        "advice": "Report this with the traceback",
    }
    assert error_record(KeyError())["message"] == "KeyError", "never without words"


def test_an_error_of_ours_says_itself_whether_another_try_helps() -> None:
    said = error_record(raised(TransportError("the network is gone", location="ftp://x")))
    assert (said["type"], said["retryable"]) == ("TransportError", True)


@pytest.mark.parametrize("depth", [31, 40])
def test_a_deep_traceback_keeps_its_innermost_dozen(depth: int) -> None:
    said = error_record(raised(ValueError("deep"), depth))["traceback"]
    frames = [line for line in said.splitlines() if line.startswith("  File")]
    assert len(frames) == 12
    assert "raise error" in said, "where it was raised"
    assert "pytest.raises" not in said and "in raised" not in said, "who called is left out"


def test_a_long_traceback_keeps_its_end() -> None:
    said = error_record(raised(ValueError("x" * 9000 + "end")))["traceback"]
    assert len(said) == 8000
    assert said.rstrip().endswith("xend")


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    made: dict[str, Any] = MetadataManager(LocalStore(tmp_path, durable=False)).begin(
        "ebi", "EMPIAR-1", "x"
    )
    return made


def test_what_is_wrong_with_a_record_is_told_without_repeating_all_of_it(
    record: dict[str, Any],
) -> None:
    (said,) = schema_errors(record | {"status": "s" * 2000})
    assert len(said) == len("status: ") + 500
    record["metadata"]["technical"]["chunk_size"] = "v" * 2000
    (said,) = schema_errors(record)
    reasons = said.removeprefix("metadata.technical.chunk_size: ").split(" and ")
    assert [len(reason) for reason in reasons] == [200, 200], "neither an array nor null"


def test_what_is_far_too_large_for_a_record_is_not_even_read(tmp_path: Path) -> None:
    """By the size that a listing gave: a volume under a record's name must not fill the memory."""
    store = LocalStore(tmp_path, durable=False)
    store.put("ebi/metadata_x.json", b"{}")
    largest = 64 * 2**20
    assert read_json(store, "ebi/metadata_x.json", largest) == {}
    with pytest.raises(RecordError, match=f"{largest + 1} bytes, more than any record") as caught:
        read_json(store, "ebi/metadata_x.json", largest + 1)
    assert caught.value.location == "ebi/metadata_x.json"
