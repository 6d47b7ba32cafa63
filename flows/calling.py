"""Flows that a script may call: with a server of their own, and with our errors.

Called plainly, a Prefect flow waits 20 s for a server that it starts by itself, which is too short
on a busy machine; and where its last state is a failure that carries a result, Prefect raises a
``TypeError`` about the result's type in place of what failed.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import ParameterTypeError
from prefect.runtime import flow_run

from flows.commands.server import start_own_server
from lib.concurrency import cancel as stopping
from lib.config.manager import ConfigManager
from lib.errors import ConfigError, IngestError, MacroscopeError, StoppedError
from lib.ingest.result import ProcessingResult
from lib.safety import redact
from tasks.outage import named_where_away

P = ParamSpec("P")
R = TypeVar("R")

_starting = threading.Lock()


class CallableFlow(Flow[P, R]):
    """A flow that can be called from Python as it stands, and as a part of other flows."""

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
        plain: Any = super().__call__
        call = partial(plain, *args, return_state=True, wait_for=wait_for, **kwargs)
        if FlowRunContext.get() is not None or TaskRunContext.get() is not None:
            # what the server does not answer keeps Prefect's name: the run above waits for it
            return call() if return_state else came_to(call())

        def whole() -> Any:
            with _starting:  # threads that begin at once share one server
                start_own_server()()
            if return_state:
                return call()
            with named_where_away():
                return came_to(call())

        return _without_a_loop(whole)


def flow(**options: Any) -> Callable[[Callable[P, Any]], CallableFlow[P, Any]]:
    """Prefect's decorator, for flows that a script may call; takes what `prefect.Flow` takes."""

    def decorated(function: Callable[P, Any]) -> CallableFlow[P, Any]:
        return CallableFlow(function, **options)

    return decorated


def _without_a_loop(call: Callable[[], R]) -> R:
    """What a call returns, made in another thread where an event loop runs in this one.

    In a notebook's thread one does, and half of Prefect's functions then return coroutines.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    with ThreadPoolExecutor(1, thread_name_prefix="flow") as pool:
        try:
            return pool.submit(copy_context().run, call).result()
        except KeyboardInterrupt:
            stopping.request_stop()
            raise


def came_to(state: State[Any]) -> Any:
    """What a run returned.

    Raises
    ------
    MacroscopeError
        See `CallableFlow`.
    """
    if state.is_cancelled():
        raise StoppedError(state.message or "the run was cancelled")
    # without data Prefect makes an error of its own of the state's message
    result = None if state.data is None else state.result(raise_on_failure=False)
    if isinstance(result, ParameterTypeError):
        raise ConfigError(str(result), location="parameters") from result
    if isinstance(result, BaseException):
        raise result
    if state.is_completed():
        return result
    error = IngestError(state.message or f"the run ended as {state.name}")
    error.results = tuple(_results(result))
    raise error


def _results(result: Any) -> list[ProcessingResult]:
    found = result if isinstance(result, list) else [result]
    return [one for one in found if isinstance(one, ProcessingResult)]


_TOLD = (
    "name",
    "accession",
    "source_id",
    "dataset_id",
    "image_ids",
    "uuid",
    "instance",
    "crop_size",
)
_LEVEL = ("scale_level", "box")


def source_run_name() -> str:
    """Source, accession and level, for example ``openorganelle jrc_hela-2 s1``."""
    source = str(flow_run.get_flow_name())
    try:
        config = ConfigManager().load().loader(source, flow_run.get_parameters().get("config"))
    except MacroscopeError:
        return source  # the flow itself will say what is wrong
    words = [
        _short(getattr(config, key)) for key in (*_TOLD, *_LEVEL) if getattr(config, key, None)
    ]
    addresses = getattr(config, "addresses", None) or []
    return " ".join([source, *_ends(addresses, 60), *words])


def parent_run_name() -> str:
    """Mode and sources, for example ``macroscope staged ebi+idr``."""
    parameters: dict[str, Any] = flow_run.get_parameters()
    mode = parameters.get("mode") or ConfigManager().load().settings.execution_mode
    addresses = parameters.get("addresses") or []
    datasets = parameters.get("datasets") or []
    shown = _ends(addresses, 40)
    many = [f"{len(datasets)} datasets"] if datasets else []
    named = [*(parameters.get("sources") or ()), *shown, *many]
    return f"macroscope {mode} {_short(named or 'all')}"


def _ends(addresses: list[str], letters: int) -> list[str]:
    """The ends of the first addresses, which tell more than their beginnings."""
    shown = [redact(one)[-letters:] for one in addresses[:2]]
    return [*shown, *(["..."] if len(addresses) > 2 else [])]


def _short(value: Any) -> str:
    """A setting in a few letters: sizes as ``96x80x72``, lists joined, versions cut."""
    if isinstance(value, tuple) and all(isinstance(n, int) for n in value):
        return "x".join(map(str, value))
    text = "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text[:8] if re.fullmatch(r"[0-9a-f]{32,}", text) else text
