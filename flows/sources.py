"""Starting one source: its flow in this process, or its deployment as a run of its own.

Neither failure nor cancellation crosses the border of a deployment by itself: the parent reads the
child's final state, and a cancelled parent cancels its children. Only Prefect's state is believed;
a Kubernetes Job says Complete also where its flow failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import Any
from uuid import UUID

from prefect import tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State
from prefect.context import TagsContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run as current_run
from prefect.states import Cancelling

from flows.calling import (
    CallableFlow,
    LostAnswerError,
    SettingsOf,
    dataset_run_name,
    dataset_tags,
    is_dataset_tag,
    returned,
    source_run_name,
)
from flows.ingest import as_state, ingest
from lib.archives.registry import REGISTRY, archive
from lib.concurrency import cancel as stopping
from lib.config.errors import build
from lib.config.loaders import LoaderConfig
from lib.errors import ConfigError, MacroscopeError, StoppedError
from lib.ingest.result import ProcessingResult, VolumeResult
from tasks.artifacts import RESULT_KEY, artifact_key
from tasks.outage import retry_through_outage

POLL_S = 2.0


class ChildRunError(MacroscopeError):
    """A source's own run ended badly (out of memory, evicted, cancelled)."""

    retryable = True
    advice = (
        "See that flow run's logs: a pod that was killed for its memory is named there. Run again: "
        "finished work is kept"
    )


def run_deployed(
    source: str, config: LoaderConfig | None, dataset: str | None = None
) -> ProcessingResult:
    """Start ``<source>/ingest``, or find the run that an earlier try of this parent started."""
    own = [source, *dataset_tags(dataset)]
    name = source if dataset is None else dataset_run_name(source, dataset)
    with get_client(sync_client=True) as client:
        child = _running_child(client, own) or _start(source, config, own, name)
        state = _wait(client, child.id)
        volumes = retry_through_outage(lambda: _volumes(client, source, child.id))
    if state.is_cancelled() or state.is_cancelling():
        raise StoppedError(f"the run of {source} was cancelled", archive=source)
    if state.is_crashed() and not volumes:
        raise ChildRunError(f"{state.name}: {state.message}", archive=source)
    return _result(source, volumes, state)


def cancel_children(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Hook of the parent's cancellation: its children are cancelled too."""
    cancel_children_of(flow_run.id)


def cancel_children_of(parent: UUID) -> None:
    """Cancel the runs that a run has started and that have not ended."""
    with get_client(sync_client=True) as client:
        for child in _unfinished_children(client, parent):
            client.set_flow_run_state(child.id, Cancelling(), force=False)


def _start(source: str, config: LoaderConfig | None, own: list[str], name: str) -> FlowRun:
    parameters: dict[str, Any] = {}
    if config is not None:
        parameters["config"] = config.model_dump(mode="json", exclude_unset=True)
    given = TagsContext.get().current_tags  # what the parent says of it, such as its group
    try:
        run = run_deployment(
            f"{source}/ingest",
            parameters=parameters,
            flow_run_name=name,  # waiting for its turn, too, it says what it is
            timeout=0,
            as_subflow=True,
            tags=[*own, *sorted(given)],
        )
    except ObjectNotFound:
        raise ConfigError(
            f"the Prefect server has no deployment {source}/ingest",
            archive=source,
            advice="Register it: macroscope deploy",
        ) from None
    assert isinstance(run, FlowRun)  # a coroutine only inside an event loop
    return run


def _unfinished_children(
    client: SyncPrefectClient, parent: UUID, tags: Iterable[str] = ()
) -> list[FlowRun]:
    """The children that have not ended, with all these tags.

    The server sifts them: it answers with 200 runs at most, and a list of datasets has more.
    """
    ended = sorted(TERMINAL_STATES)
    wanted = FlowRunFilter(
        parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(not_any_=ended)),
        tags=FlowRunFilterTags(all_=[*tags]) if tags else None,
    )
    found: list[FlowRun] = []
    while page := client.read_flow_runs(flow_run_filter=wanted, offset=len(found)):
        found += page
    return found


def _running_child(client: SyncPrefectClient, own: list[str]) -> FlowRun | None:
    """A parent that was rescheduled finds the children of its earlier try still at work."""
    parent = current_run.get_id()
    if parent is None:
        return None
    for child in _unfinished_children(client, UUID(parent), own):
        tags = [tag for tag in child.tags or [] if tag in own or is_dataset_tag(tag)]
        if set(tags) == set(own):
            return child
    return None


def _wait(client: SyncPrefectClient, run_id: UUID) -> State[Any]:
    while True:
        run = retry_through_outage(lambda: client.read_flow_run(run_id))
        if run.state is not None and run.state.is_final():
            return run.state
        stopping.sleep(POLL_S)
        stopping.check()


def _volumes(client: SyncPrefectClient, source: str, run_id: UUID) -> list[VolumeResult]:
    """What the child wrote down of its volumes: results do not cross without shared storage."""
    found = client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    )
    key = artifact_key(RESULT_KEY, source)
    documents = [artifact.data for artifact in found if artifact.key == key]
    if not documents:
        return []
    data = documents[-1]
    rows = json.loads(data) if isinstance(data, str) else data or []
    return [VolumeResult.model_validate(row) for row in rows]


def _result(source: str, volumes: list[VolumeResult], state: State[Any]) -> ProcessingResult:
    done = [volume for volume in volumes if volume.status == "complete"]
    errors = [f"{volume.name}: {volume.error}" for volume in volumes if volume.error]
    if not state.is_completed() and not errors:
        errors = [state.message or f"the run ended as {state.name}"]
    return ProcessingResult(
        success=state.is_completed() and not errors,
        source=source,
        source_id=", ".join(sorted({volume.source_id for volume in volumes})),
        files_processed=len(done),
        metadata_paths=[volume.metadata_path for volume in done if volume.metadata_path],
        errors=errors,
        total_size_bytes=sum(volume.stored_bytes for volume in done),
        volumes=volumes,
    )


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
    of: Any = SettingsOf  # mypy takes the index for a type
    run.__annotations__["config"] = of[archive(source).config_model]
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
    return retry_through_outage(lambda: _run_inline(source, config, dataset))


def _run_inline(source: str, config: Any, dataset: str | None) -> ProcessingResult:
    """Run the source's flow in this process; what is complete already is not made again."""
    flow = source_flow(source)
    if dataset is not None:
        name = dataset_run_name(source, dataset)
        flow = flow.with_options(flow_run_name=lambda: name)  # as a text it could have {} in it
    with tags("macroscope", "source", source):  # as its deployment has
        state = flow(config=config, return_state=True)
    try:
        result = returned(state)
    except LostAnswerError:  # what its page shows is still there
        run_id = state.state_details.flow_run_id
        with get_client(sync_client=True) as client:
            return _result(source, _volumes(client, source, run_id), state)
    if isinstance(result, ProcessingResult):
        return result
    if isinstance(result, BaseException):
        raise result
    raise MacroscopeError(f"the flow {source} ended as {state.name}: {state.message}")
