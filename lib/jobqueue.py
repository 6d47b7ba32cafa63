"""Dask workers as jobs of a batch scheduler: Slurm, LSF, PBS, SGE, by dask-jobqueue.

The Dask scheduler lives in the flow's process; each worker is a job. A job that ends (cancelled,
out of memory, at its wall-time limit) is followed by another one as long as there is work.
"""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

from lib.errors import ConfigError, MacroscopeError

Queue = Literal["slurm", "lsf", "pbs", "sge"]

_importing = threading.Lock()

SUBMIT_S = 120.0  # of one submission
AGAIN_S = 30.0  # before the next one, where one was refused
DEFAULTS: Mapping[str, Any] = {"cores": 1, "processes": 1, "memory": "2GiB"}
"""Of a job, where neither ``dask_options`` nor Dask's own configuration says."""


class BatchQueueError(MacroscopeError):
    """The batch scheduler does not take the jobs of the Dask workers."""

    retryable = True
    advice = (
        "Set queue, account, walltime, cores or memory as it wants them, in EM_DASK_OPTIONS or in "
        "~/.config/dask/jobqueue.yaml; EM_DASK=off does without"
    )


def read_options(text: str | None) -> dict[str, Any]:
    """Arguments of a cluster class out of ``dask_options``.

    Raises
    ------
    ConfigError
        It is not a JSON object.
    """
    try:
        found = json.loads(text) if text else {}
    except ValueError as error:
        raise ConfigError(f"dask_options: not JSON: {error}", location="EM_DASK_OPTIONS") from None
    if not isinstance(found, dict):
        raise ConfigError(
            'dask_options: not a JSON object such as {"queue": "short"}', location="EM_DASK_OPTIONS"
        )
    return found


def start_queue(kind: Queue, workers: int, log_directory: str, options: Mapping[str, Any]) -> Any:
    """A cluster whose first jobs were taken by the scheduler; they may wait in its queue for long.

    Parameters
    ----------
    workers
        Jobs at once.
    options
        Arguments of the class of dask-jobqueue (``queue``, ``account``, ``walltime``, ``cores``,
        ``memory``, ``interface``, ``job_script_prologue``, ``worker_extra_args``, ...).

    Returns
    -------
    dask_jobqueue.JobQueueCluster
        A context manager.

    Raises
    ------
    ConfigError
        dask-jobqueue is not installed, or knows no such option.
    BatchQueueError
        The scheduler refused a job, or cannot be asked.
    """
    refusals: list[str] = []
    make, job_cls = _classes(kind, refusals)
    given = {**_defaults(kind), "log_directory": log_directory, **options, "job_cls": job_cls}
    try:
        cluster = make(n_workers=0, **given)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"dask_options: {make.__name__} does not take them: {error}", location="EM_DASK_OPTIONS"
        ) from error
    cluster.scale(jobs=workers)
    deadline = time.monotonic() + SUBMIT_S
    while not refusals and not any(getattr(j, "job_id", None) for j in cluster.workers.values()):
        if time.monotonic() > deadline:
            refusals.append(f"no answer within {SUBMIT_S:g} s")
        time.sleep(0.1)
    if refusals:
        with suppress(AssertionError):  # distributed has no state for a job that never was one
            cluster.close()
        raise BatchQueueError(f"{kind} took no job: {refusals[0]}", location=kind)
    return cluster


def _classes(kind: Queue, refusals: list[str]) -> tuple[Any, Any]:
    """The cluster class, and a class of jobs that says why one was refused."""
    try:
        module = _dask_jobqueue()
    except ModuleNotFoundError:
        raise ConfigError(
            f"dask: {kind} needs dask-jobqueue, which is not installed",
            location="EM_DASK",
            advice="Install macroscope[batch], or dask-jobqueue beside it",
        ) from None
    make = getattr(module, f"{kind.upper()}Cluster")
    base: Any = make.job_cls

    class Job(base):  # type: ignore[misc]
        async def start(self) -> None:
            try:
                await asyncio.wait_for(super().start(), SUBMIT_S)
            except (RuntimeError, ValueError, OSError) as error:
                refusals.append(" ".join(str(error).split()) or type(error).__name__)
                await asyncio.sleep(AGAIN_S)  # it is asked again at once, and for ever
                raise

    return make, Job


def _dask_jobqueue() -> ModuleType:
    """The package, without its handler of Ctrl-C.

    It sets one as it is imported: that fails outside of the main thread, where flows run their
    sources, and would take the end of a run out of this program's hands.
    """
    with _importing:
        kept = signal.signal
        signal.signal = lambda *_: None
        try:
            return import_module("dask_jobqueue")
        finally:
            signal.signal = kept


def _defaults(kind: str) -> dict[str, Any]:
    """What is neither an option nor in Dask's own configuration."""
    import dask

    return {
        key: value
        for key, value in DEFAULTS.items()
        if dask.config.get(f"jobqueue.{kind}.{key}", None) is None
    }
