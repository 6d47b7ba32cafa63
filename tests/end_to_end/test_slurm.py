"""A heavy source through a real Slurm: jobs that are killed or out of time, and an exact volume."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from emulators.control import Control
from flows.commands.server import comes_true
from tests.end_to_end.test_main_job import expected
from tests.kit.slurm import Slurm, slurm, why_not
from tests.kubernetes.installation import withhold_chunks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SOURCE = "openorganelle"
WAIT_S = 600


@pytest.fixture(scope="module")
def queue() -> Iterator[Slurm]:
    if why := why_not():
        pytest.skip(why)
    with slurm() as running:
        yield running


@contextmanager
def run(
    environment: dict[str, str], queue: Slurm, folder: Path, options: dict[str, Any]
) -> Iterator[subprocess.Popen[str]]:
    """``macroscope run`` of one source, as on a login node."""
    more = {
        "EM_DASK": "slurm",
        "EM_DASK_OPTIONS": json.dumps({"interface": "lo", "memory": "1GiB", **options}),
        f"{SOURCE.upper()}_HEAVY": "true",
        f"{SOURCE.upper()}_SHARD_MB": "0.6",
    }
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("macroscope")), "run", "--json", "-s", SOURCE],
        cwd=folder,
        env={**environment, **queue.environment, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def assert_exact(folder: Path) -> None:
    [path] = (folder / "data" / SOURCE).glob("metadata_*.json")
    record = json.loads(path.read_text())
    assert record["status"] == "complete"
    voxels = zarr.open_group(folder / "data" / record["files"]["volume"], mode="r")["0"]
    np.testing.assert_array_equal(np.asarray(voxels), expected(SOURCE, record))


def job_logs(folder: Path) -> str:
    return "".join(path.read_text() for path in (folder / "logs" / "dask").glob("*.err"))


def at_work(process: subprocess.Popen[str], folder: Path, words: str) -> bool:
    """Whether a job's log says something while the run is at work."""
    running = lambda: process.poll() is None  # noqa: E731
    return comes_true(lambda: words in job_logs(folder), WAIT_S, meanwhile=running)


def ended(process: subprocess.Popen[str], folder: Path, queue: Slurm) -> None:
    printed, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, printed
    assert_exact(folder)
    assert comes_true(lambda: not queue.jobs() and not queue.jobs("PENDING"), WAIT_S)


def test_a_job_that_is_killed_is_followed_by_another(
    environment: dict[str, str], queue: Slurm, tmp_path: Path, faults: Control
) -> None:
    withhold_chunks(faults)
    with run(environment, queue, tmp_path, {}) as process:
        assert at_work(process, tmp_path, "Registered to")
        first = queue.jobs()
        assert first
        for job in first:
            queue.cancel(job)
        assert comes_true(lambda: set(queue.jobs()) - set(first), WAIT_S)
        faults.clear()
        ended(process, tmp_path, queue)
    assert "CANCELLED AT" in job_logs(tmp_path)


def test_a_job_whose_wall_time_is_over_is_followed_by_another(
    environment: dict[str, str], queue: Slurm, tmp_path: Path, faults: Control
) -> None:
    withhold_chunks(faults)
    environment = environment | {"EM_DASK_WORKERS": "1"}
    with run(environment, queue, tmp_path, {"walltime": "00:01:00"}) as process:
        assert at_work(process, tmp_path, "DUE TO TIME LIMIT")
        faults.clear()
        ended(process, tmp_path, queue)


def test_a_partition_that_does_not_exist_fails_the_volume_by_name(
    environment: dict[str, str], queue: Slurm, tmp_path: Path
) -> None:
    with run(environment, queue, tmp_path, {"queue": "nosuch"}) as process:
        printed, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode != 0
    assert "slurm took no job" in printed
    assert "invalid partition specified: nosuch" in printed
