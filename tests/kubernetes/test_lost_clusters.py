"""Which failures are the cluster's own, and that no two clusters of a process share a name."""

from __future__ import annotations

from pathlib import Path

import dask
import pytest
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from flows.runners import (
    LostClusterError,
    cluster_is_lost,
    start_cluster,
    task_runner,
    workers_died,
)
from lib.errors import BadAnswerError


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (FutureCancelledError("convert-1", "scheduler-connection-lost"), True),
        (CommClosedError("in <TCP>: Stream is closed"), True),
        (LostClusterError("the Dask cluster did not start"), True),
        (BadAnswerError("the source answered nonsense"), False),
        (OSError("no space left on device"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_a_cluster_that_went_away_is_replaced(error: Exception, lost: bool) -> None:
    assert cluster_is_lost(error) is lost


def test_only_a_batch_whose_workers_died_is_given_out_again() -> None:
    assert workers_died(KilledWorker("convert-1", None, 3))  # type: ignore[arg-type]
    assert not workers_died(OSError("no space left on device"))


def test_a_cluster_whose_worker_dies_as_it_starts_is_lost_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    preload = tmp_path / "dies.py"
    preload.write_text("import os\nos._exit(1)\n")
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", str(preload))
    with (
        dask.config.set({"distributed.worker.preload": [str(preload)]}),
        task_runner("epfl", heavy=True, setting="local", workers=1) as runner,
        pytest.raises(LostClusterError, match="did not start"),
    ):
        start_cluster(runner)


def test_each_volume_of_a_run_has_a_cluster_of_another_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = tmp_path / "dask.json"
    settings.write_text('{"image": "macroscope:0.1.0"}')
    monkeypatch.setenv("MACROSCOPE_DASK_SETTINGS", str(settings))
    for name in ("POD_NAME", "POD_UID", "POD_NAMESPACE"):
        monkeypatch.setenv(name, "x")

    def name_of_next() -> str:
        runner = task_runner("epfl", heavy=True, setting="kubernetes", workers=1)
        return str(runner.cluster_kwargs["custom_cluster_spec"]["metadata"]["name"])

    assert len({name_of_next() for _ in range(3)}) == 3
