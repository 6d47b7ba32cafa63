"""A whole run of the flows in a process of its own, for kills of what works around it.

``python -m tests.chaos.flow_run``, with its task in the environment: its Dask workers read it too.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows import prepare
from lib.errors import MacroscopeError
from lib.ingest import stages
from tests.chaos.worker import Notes, Task, settings_of, watch_units, work

TASK = "CHAOS_TASK"
_BATCH_BYTES = 2**16  # several batches for each volume, so that several workers are at work
_WITHOUT_A_NAME = re.compile(r"(^|: )[\w.]*(Error|Exception|Killed\w*): ")


def as_environment(task: Task) -> dict[str, str]:
    """What tells the run, and every process that it starts, what to do."""
    store = {f"EM_DEST_{name.upper()}": value for name, value in task.store.items()}
    return {
        TASK: json.dumps(asdict(task)),
        "EM_DATA_DIR": task.data_uri,
        "EM_METADATA_DIR": f"{task.scratch}/metadata",
        "EM_LOGS_DIR": f"{task.scratch}/logs",
        "EM_DASK": "local" if task.on_dask else "off",
        **{f"{name.upper()}_HEAVY": str(name in task.on_dask).lower() for name in task.sources},
        **store,
    }


def task_of_environment() -> Task:
    return Task(**json.loads(os.environ[TASK]))


def main() -> int:
    """Make the volumes of the task; errors are noted in its log.

    With ``plain`` as argument: without Prefect, as the undisturbed run.
    """
    task = task_of_environment()
    if sys.argv[1:] == ["plain"]:
        work(task)
        return 0
    note = Notes(Path(task.log))
    watch_units(note)
    stages.BATCH_BYTES = _BATCH_BYTES
    prepare()
    from tasks.outage import named_where_away

    try:
        with named_where_away():
            errors = _flow_errors(task)
    except MacroscopeError as error:
        errors = [str(error)]
    for error in errors:
        note("error" if _WITHOUT_A_NAME.search(error) else "named error", error)
    return 1 if errors else 0


def _flow_errors(task: Task) -> list[str]:
    """Run the parent flow; what it could not do."""
    from flows.macroscope import macroscope

    state: Any = macroscope(
        mode="parallel",
        sources=list(task.sources),
        parameters={source: settings_of(source, task) for source in task.sources},
        return_state=True,
    )
    results = state.result(raise_on_failure=False)
    if not isinstance(results, list):
        return [f"{type(results).__name__}: {state.message}"]
    errors = [f"{result.source}: {error}" for result in results for error in result.errors]
    return errors or ([] if state.is_completed() else [f"{state.name}: {state.message}"])


if __name__ == "__main__":
    sys.exit(main())
