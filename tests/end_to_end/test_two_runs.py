"""Two runs on one destination at once: one works, the other says who holds it."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lib.storage.base import Store
from lib.storage.local import LocalStore
from tests.end_to_end.bucket import Bucket
from tests.end_to_end.conftest import Command

VOLUME = "epfl/EPFL-CA1-HIPPOCAMPUS_volumedata"
pytestmark = pytest.mark.timeout(600)


def refused(run: subprocess.CompletedProcess[str]) -> str:
    """The whole of what the second run says, on one line: tables and terminals wrap."""
    assert run.returncode == 1, run.stdout + run.stderr
    return " ".join((run.stdout + run.stderr).split())


def second_run(macroscope: Command, store: Store, **more: Any) -> None:
    """Run while another holds the volume."""
    with store.lock(VOLUME, "flow run proud-heron"):
        said = refused(macroscope("run", "--source", "epfl", **more))
        assert f"{VOLUME} is being worked on by flow run proud-heron" in said
        assert f"host {socket.gethostname()}" in said
        assert "Wait for the other run, or stop it" in said
        assert not [item.key for item in store.list("epfl") if "metadata_" in item.key]


@pytest.mark.long
def test_in_a_folder_the_second_run_is_told_who_works_there(
    macroscope: Command, tmp_path: Path
) -> None:
    second_run(macroscope, LocalStore(tmp_path / "data"))


@pytest.mark.slow  # every day without a scheduler, in test_object_store_faults.py
def test_in_a_bucket_the_second_run_is_told_who_works_there(
    macroscope: Command, bucket: Bucket
) -> None:
    store = bucket.store(lease_seconds=6)
    second_run(macroscope, store, **bucket.environment())
