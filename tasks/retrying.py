"""When Prefect tries a task again: only where another try can help.

Single requests are tried again below, by the transport. This is for what remains: a worker that
died, a source that changed under the run, a server that was away for minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Cancelled
from prefect.tasks import exponential_backoff

from lib.concurrency import cancel as stopping
from lib.errors import MacroscopeError, StoppedError

P = ParamSpec("P")
R = TypeVar("R")


def cancellable(function: Callable[P, R]) -> Callable[P, R]:
    """Make a request to stop end the task as Cancelled: who stops a run wants no tracebacks.

    A task that is called, and not submitted, then returns its state in place of its result.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except StoppedError as error:
            return cast(R, Cancelled(message=str(error)))

    return run


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
