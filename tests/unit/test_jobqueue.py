"""Dask workers as jobs: what is asked of a batch scheduler, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from prefect.task_runners import ThreadPoolTaskRunner

import flows.runners
from flows.ingest import Run
from flows.runners import task_runner
from lib import jobqueue
from lib.config.loaders import LoaderConfig
from lib.config.settings import Settings
from lib.errors import ConfigError
from lib.jobqueue import BatchQueueError, read_options, start_queue
from lib.storage.base import StoreSettings


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm whose every answer is that the partition does not exist."""
    log = tmp_path / "calls"
    for name in ("sbatch", "scancel"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho "{name}" >> {log}\ncat "$1" >> {log}\n'
            'echo "error: invalid partition specified: nosuch" >&2\nexit 1\n'
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return log


@pytest.mark.long
def test_a_refused_job_is_an_error_with_the_scheduler_s_own_words(
    sbatch: Path, tmp_path: Path
) -> None:
    """dask-jobqueue logs it, asks again at once, and waits for ever."""
    options = {"queue": "nosuch", "walltime": "00:10:00", "cores": 3, "interface": "lo"}
    with pytest.raises(BatchQueueError, match=r"slurm took no job: .*invalid partition") as found:
        start_queue("slurm", 1, str(tmp_path / "logs"), options)
    assert "EM_DASK_OPTIONS" in str(found.value)
    script = sbatch.read_text()
    assert script.count("sbatch\n") == 1, "it is not asked again and again"
    assert "#SBATCH -p nosuch" in script
    assert "#SBATCH -t 00:10:00" in script
    assert "--nthreads 3" in script
    assert "--memory-limit 2.00GiB" in script


@pytest.mark.long
def test_a_machine_without_the_scheduler_is_an_error_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BatchQueueError, match=r"lsf took no job: .*bsub"):
        start_queue("lsf", 1, str(tmp_path / "logs"), {"interface": "lo"})


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[1]", "not a JSON object")],
)
def test_options_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_options(text)
    assert read_options(None) == {}


def test_an_option_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"SLURMCluster does not take them.*partition"):
        start_queue("slurm", 1, str(tmp_path), {"partition": "x"})


def test_what_dask_itself_is_configured_with_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask
    import dask_jobqueue  # noqa: F401  brings its own configuration, which says nothing of these

    assert jobqueue._defaults("slurm") == dict(jobqueue.DEFAULTS)
    with dask.config.set({"jobqueue.slurm.cores": 8, "jobqueue.slurm.memory": "32GB"}):
        assert jobqueue._defaults("slurm") == {"processes": 1}


@pytest.mark.parametrize("kind", get_args(jobqueue.Queue))
def test_a_heavy_volume_asks_for_jobs_that_are_followed_by_others(kind: str) -> None:
    settings = Settings(dask=kind, dask_workers=5, dask_options='{"queue": "q"}')  # type: ignore[arg-type]
    runner: Any = task_runner("epfl", heavy=True, setting=kind, workers=2, settings=settings)
    assert runner.cluster_class is start_queue
    assert runner.cluster_kwargs["kind"] == kind
    assert runner.cluster_kwargs["options"] == {"queue": "q"}
    assert runner.adapt_kwargs == {"minimum": 5, "maximum": 5}
    light = task_runner("epfl", heavy=False, setting=kind, workers=2, settings=settings)
    assert isinstance(light, ThreadPoolTaskRunner)
    run = Run("epfl", LoaderConfig(), settings, StoreSettings(), "a run", Path("/nowhere"))
    assert (run.at_once(runner), run.at_once(light)) == (5, 2)


def test_a_cluster_that_runs_already_is_named_by_its_address() -> None:
    settings = Settings(dask="address", dask_address="tcp://h:8786")
    runner: Any = task_runner("epfl", heavy=True, setting="address", workers=2, settings=settings)
    assert runner.address == "tcp://h:8786"
    with pytest.raises(ValueError, match="dask_address: not set"):
        Settings(dask="address")


def test_a_gateway_is_asked_with_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(dask="gateway", dask_options=json.dumps({"address": "http://g"}))
    monkeypatch.setattr(flows.runners, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="gateway needs dask-gateway"):
        task_runner("epfl", heavy=True, setting="gateway", workers=2, settings=settings)
    monkeypatch.setattr(flows.runners, "find_spec", lambda name: name)
    assert flows.runners._elsewhere("gateway", settings)["cluster_kwargs"] == {
        "address": "http://g"
    }


def test_ctrl_c_stays_this_program_s_and_sources_run_in_threads() -> None:
    """dask-jobqueue sets a handler as it is imported, which a thread may not."""
    script = (
        "import signal, threading\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # not so in a background\n"
        "from lib.jobqueue import _dask_jobqueue\n"
        "found = []\n"
        "one = threading.Thread(target=lambda: found.append(_dask_jobqueue().SLURMCluster))\n"
        "one.start(); one.join()\n"
        "assert found\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert signal.signal.__module__ == 'signal'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
