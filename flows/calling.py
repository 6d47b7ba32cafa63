"""Flows that a script may call: with a server of their own, and with our errors.

Called plainly, a Prefect flow waits 20 s for a server that it starts by itself, which is too short
on a busy machine; and where its last state is a failure that carries a result, Prefect raises a
``TypeError`` about the result's type in place of what failed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import ParameterTypeError

from flows.commands.server import start_own_server
from lib.errors import ConfigError, IngestError, MacroscopeError, StoppedError
from lib.ingest.result import ProcessingResult
from tasks.outage import named_where_away

P = ParamSpec("P")
R = TypeVar("R")

_starting = threading.Lock()


class CallableFlow(Flow[P, R]):
    """A flow that can be called from Python as it stands; inside another run it is Prefect's."""

    def __call__(  # type: ignore[override]
        self,
        *args: Any,
        return_state: bool = False,
        wait_for: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the flow.

        Returns
        -------
        What the flow returns, or its last state where ``return_state`` is true.

        Raises
        ------
        IngestError
            A source failed; the error carries the results.
        ConfigError
            A parameter is wrong.
        StoppedError
            The run was cancelled.
        ServerAwayError
            The Prefect server that is named does not answer.
        """
        call: Callable[..., Any] = super().__call__
        if FlowRunContext.get() is not None or TaskRunContext.get() is not None:
            return call(*args, return_state=return_state, wait_for=wait_for, **kwargs)
        with _starting:  # threads that begin at once share one server
            start_own_server()()
        if return_state:
            return call(*args, return_state=True, wait_for=wait_for, **kwargs)
        with named_where_away():
            state: State[Any] = call(*args, return_state=True, wait_for=wait_for, **kwargs)
            return came_to(state)


def flow(**options: Any) -> Callable[[Callable[P, Any]], CallableFlow[P, Any]]:
    """Prefect's decorator, for flows that a script may call; takes what `prefect.Flow` takes."""

    def decorated(function: Callable[P, Any]) -> CallableFlow[P, Any]:
        return CallableFlow(function, **options)

    return decorated


def came_to(state: State[Any]) -> Any:
    """What a run returned.

    Raises
    ------
    MacroscopeError
        See `CallableFlow`.
    """
    result = state.result(raise_on_failure=False)
    if isinstance(result, ParameterTypeError):
        raise ConfigError(str(result), location="parameters") from result
    if isinstance(result, MacroscopeError):
        raise result
    if state.is_cancelled():
        raise StoppedError(state.message or "the run was cancelled")
    if state.is_completed():
        return result
    error = IngestError(state.message or f"the run ended as {state.name}")
    if isinstance(result, BaseException):
        raise error from result
    error.results = tuple(_results(result))
    raise error


def _results(result: Any) -> list[ProcessingResult]:
    found = result if isinstance(result, list) else [result]
    return [one for one in found if isinstance(one, ProcessingResult)]
