"""Flows that a script may call: with a server of their own, and with our errors.

Called plainly, a Prefect flow waits 20 s for a server that it starts by itself, which is too short
on a busy machine; and where its last state is a failure that carries a result, Prefect raises a
``TypeError`` about the result's type in place of what failed.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Annotated, Any, ParamSpec, TypeVar

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingResult, ParameterTypeError
from prefect.runtime import flow_run
from pydantic import Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from flows.commands.server import start_own_server
from lib.concurrency import cancel as stopping
from lib.config.loader_base import OPERATOR_ONLY_KEY, LoaderConfig
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


def returned(state: State[Any]) -> Any:
    """What a flow that was called here returned, or the exception that ended it.

    Raises
    ------
    LostAnswerError
    """
    try:
        return state.result(raise_on_failure=False)
    except MissingResult:
        raise LostAnswerError(f"the run ended as {state.name}") from None


class LostAnswerError(MacroscopeError):
    """A run has ended, and what it returned is lost.

    Where the server's answer to a last state does not arrive, Prefect sends the state again, and
    goes on with what the server keeps of it, which is the state without the data.
    """

    retryable = True
    advice = (
        "The Prefect server answered too late. Run again: finished work is recognised, and told"
    )


def came_to(state: State[Any]) -> Any:
    """What a run returned. Raises `MacroscopeError`: see `CallableFlow`."""
    if state.is_cancelled():
        raise StoppedError(state.message or "the run was cancelled")
    # of a failure without data Prefect makes an error of its own of the state's message
    bare = state.data is None and not state.is_completed()
    result = None if bare else returned(state)
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
    "name", "accession", "source_id", "dataset_id", "image_ids", "uuid", "instance",
    "crop_size",
)  # fmt: skip
_LEVEL = ("scale_level", "box")
_DATASET = "dataset:"


def dataset_tags(label: str | None) -> list[str]:
    """What marks the run of one dataset of a list among those of its source."""
    return [] if label is None else [f"{_DATASET}{label}"]


def is_dataset_tag(tag: str) -> bool:
    """Whether a tag is one of `dataset_tags`."""
    return tag.startswith(_DATASET)


def dataset_run_name(source: str, label: str) -> str:
    """The run of one dataset: its source and what people call it, as ``ebi worm-3``."""
    return f"{source} {label}"


def source_run_name() -> str:
    """Source, accession and level, for example ``openorganelle jrc_hela-2 s1``.

    One of a list of datasets is named by what people call it.
    """
    source = str(flow_run.get_flow_name())
    for tag in flow_run.get_tags():
        if is_dataset_tag(tag):
            return dataset_run_name(source, tag.removeprefix(_DATASET))
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


class Form:
    """Annotation of a parameter that may be left out: its schema as a form is drawn from it.

    The Prefect UI asks to choose between a type and "None" before it shows the field of an optional
    value, and it sends every default that the schema states as if it had been chosen, which would
    win over the settings of the installation. So neither is stated: what is not filled in is not
    sent. The settings of an archive come first, those that all have after them; those that no run
    may change not at all, nor secrets, which the server would keep and show with the run.
    """

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = _filled_in(handler(core_schema))
        for part in (schema, schema.get("items", {})):
            if "$ref" in part:
                _fields_of(handler.resolve_ref_schema(part))
        return schema


def _fields_of(model: JsonSchemaValue) -> None:
    """Change the schema of a model in place; a second time changes nothing more."""
    of_loader = OPERATOR_ONLY_KEY in model
    hidden, required = model.pop(OPERATOR_ONLY_KEY, ()), model.get("required", ())
    found = {name: _filled_in(part) for name, part in model.get("properties", {}).items()}

    def place(name: str) -> tuple[bool, bool]:
        return name not in required, of_loader and name in LoaderConfig.model_fields

    model["properties"] = {
        name: found[name]
        for name in sorted(found, key=place)
        if name not in hidden and not found[name].get("writeOnly")
    }


def _filled_in(part: JsonSchemaValue) -> JsonSchemaValue:
    """The schema of what a person fills in: no null beside one kind, the default in words only."""
    part = dict(part)
    if told := _for_example(part.get("examples", ())):
        part["description"] = f"{part.get('description', '')} {told}".removesuffix(told) + told
    if (default := part.pop("default", None)) not in (None, [], {}):
        shown = str(default).lower() if isinstance(default, bool) else default
        said = part.get("description", "").rstrip(".")
        part["description"] = f"{said}. Empty: as this installation sets it, else {shown}."
    kinds = [one for one in part.get("anyOf", ()) if one.get("type") != "null"]
    if len(kinds) == 1:
        del part["anyOf"]
        part = {**kinds[0], **part}
    if part.get("type") == "boolean":  # drawn as a switch, which always sends one of them
        del part["type"]
        part["enum"] = [True, False]
    return part


def _for_example(examples: Iterable[Any]) -> str:
    """The first example, in the words of a description: the UI shows none of a schema's."""
    for one in examples:
        return f"For example {one if isinstance(one, str) else json.dumps(one)}."
    return ""


def shown(title: str, description: str, *examples: Any, **more: Any) -> Any:
    """What a form shows of a parameter; Prefect replaces a field's own title and description."""
    told = " ".join(text for text in (description, _for_example(examples)) if text)
    said = {"title": title, "description": told, **more}
    return Field(json_schema_extra={**said, **({"examples": [*examples]} if examples else {})})


T = TypeVar("T")
SettingsOf = Annotated[
    T | None,
    Form(),
    shown("Settings", "Of this run; what is left out is as the installation sets it.", default={}),
]
"""The settings of a source as a parameter of its flow: ``config: SettingsOf[EBIConfig] = None``."""
