"""A destination that cannot work is named before a byte is fetched for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulators.control import Control
from tests.end_to_end.bucket import Bucket
from tests.end_to_end.conftest import Command

CHOSEN = ("run", "--source", "idr", "--source", "flyem", "--mode", "parallel")


def fetched(faults: Control) -> list[object]:
    return [line for service in ("dvid", "ftp", "mirror") for line in faults.counters.log(service)]


@pytest.mark.long
def test_a_folder_that_cannot_be_written(
    macroscope: Command, faults: Control, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    for name, value in (
        ("EM_DATA_DIR", "file/data"),
        ("EM_METADATA_DIR", "file/metadata"),
        ("IDR_OUTPUT_DIR", "file/idr"),
    ):
        done = macroscope(*CHOSEN, **{name: value})
        assert done.returncode == 1
        assert str(tmp_path / value) in done.stderr and "Traceback" not in done.stderr
    assert fetched(faults) == []


@pytest.mark.long
def test_a_bucket_that_may_only_be_read(
    macroscope: Command, bucket: Bucket, faults: Control
) -> None:
    bucket.gate.refuse("PUT", "", 403, "AccessDenied")
    done = macroscope(*CHOSEN, **bucket.environment())
    assert done.returncode == 1
    assert "refuses access" in done.stderr
    assert fetched(faults) == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting takes root")
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.long  # the fault matrix fills disks, too
def test_a_disk_that_is_too_small_for_what_will_be_kept(
    macroscope: Command, faults: Control, small: Path
) -> None:
    done = macroscope("run", "--source", "flyem", "--format", "npy", EM_DATA_DIR=str(small))
    assert done.returncode == 1
    said = " ".join((done.stdout + done.stderr).split())
    assert re.search(r"553 kB are needed at least, [0-9.]+ kB are free", said), said
    assert not any("/raw/" in str(line) for line in faults.counters.log("dvid"))
