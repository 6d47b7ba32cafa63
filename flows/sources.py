"""Starting one source: its flow in this process, or its deployment as a run of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from prefect import tags
from prefect.client.schemas.objects import State

from flows.calling import CallableFlow
from flows.deployed import run_deployed
from flows.ingest import as_state, ingest
from flows.naming import source_run_name
from lib.archives.registry import REGISTRY, archive
from lib.config.errors import build
from lib.errors import MacroscopeError
from lib.ingest.result import ProcessingResult
from tasks.outage import retry_through_outage


def source_flow(source: str) -> Any:
    """The flow of a source: ``flows.<source>.<source>``, or one made from the registry."""
    try:
        module = import_module(f"flows.{source}")
    except ModuleNotFoundError as error:
        if error.name != f"flows.{source}":
            raise
        return _flow_from_registry(source)
    return getattr(module, source)


@cache
def _flow_from_registry(source: str) -> Any:
    """The flow of an archive that has no module among the flows."""

    def run(config: Any = None) -> ProcessingResult | State[ProcessingResult]:
        return as_state(ingest(source, config))

    # Its own settings, so that the server's form shows them and a parent may pass them typed.
    run.__annotations__["config"] = archive(source).config_model | None
    return CallableFlow(
        run,
        name=source,
        flow_run_name=source_run_name,
        description=archive(source).title,
    )


def __getattr__(name: str) -> Any:
    """``flows.sources.<source>`` as an entrypoint of deployments."""
    if name in REGISTRY:
        return source_flow(name)
    raise AttributeError(name)


def run_source(
    source: str, given: Mapping[str, Any], *, where: str, dataset: str | None = None
) -> ProcessingResult:
    """Run one source and return what it came to, whether it succeeded or not.

    Parameters
    ----------
    given
        The source's own settings; what is absent comes from the layers below.
    where
        ``inline`` or ``deployments``.
    dataset
        What people call it, where a run has several of one source.
    """
    config = build(archive(source).config_model, dict(given), archive=source) if given else None
    if where == "deployments":
        return run_deployed(source, config, dataset)
    return retry_through_outage(lambda: _run_inline(source, config))


def _run_inline(source: str, config: Any) -> ProcessingResult:
    """Run the source's flow in this process; what is complete already is not made again."""
    with tags("macroscope", "source", source):  # as its deployment has
        state = source_flow(source)(config=config, return_state=True)
    result = state.result(raise_on_failure=False)
    if isinstance(result, ProcessingResult):
        return result
    if isinstance(result, BaseException):
        raise result
    raise MacroscopeError(f"the flow {source} ended as {state.name}: {state.message}")
