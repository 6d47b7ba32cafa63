"""Starting one source: its flow in this process, or its deployment as a run of its own."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from flows.deployed import run_deployed
from lib.archives.registry import archive
from lib.config_errors import build
from lib.errors import MacroscopeError
from lib.ingest.result import ProcessingResult


def source_flow(source: str) -> Any:
    """The flow of a source: ``flows.<source>.<source>``."""
    return getattr(import_module(f"flows.{source}"), source)


def run_source(source: str, given: Mapping[str, Any], *, where: str) -> ProcessingResult:
    """Run one source and return what it came to, whether it succeeded or not.

    Parameters
    ----------
    given
        The source's own settings; what is absent comes from the layers below.
    where
        ``inline`` or ``deployments``.
    """
    config = build(archive(source).config_model, dict(given), archive=source) if given else None
    if where == "deployments":
        return run_deployed(source, config)
    state = source_flow(source)(config, return_state=True)
    result = state.result(raise_on_failure=False)
    if isinstance(result, ProcessingResult):
        return result
    if isinstance(result, BaseException):
        raise result
    raise MacroscopeError(f"the flow {source} ended as {state.name}: {state.message}")
