"""When Prefect tries a task again: only where another try can help.

Single requests are tried again below, by the transport. This is for what remains: a worker that
died, a source that changed under the run, a server that was away for minutes.
"""

from __future__ import annotations

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from lib import stopping
from lib.errors import MacroscopeError


def can_help(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether the error says that another try can help; unknown errors get no second try."""
    if stopping.stop_requested():
        return False
    try:
        state.result(raise_on_failure=True)
    except MacroscopeError as error:
        return error.retryable
    except BaseException:
        return False
    return False


RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": exponential_backoff(backoff_factor=5),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": can_help,
}
