"""Each mode's order and overlap, proven from the start and end times that Prefect recorded."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from emulators.serving import Samples
from lib.execution import MODES
from lib.ingest.stages import Sources
from tasks import steps

Span = tuple[datetime, datetime]


@pytest.fixture(scope="module")
def home(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One data folder for all modes of this module."""
    folder = tmp_path_factory.mktemp("modes")
    before = dict(os.environ)
    os.environ.update(
        EM_ARCHIVES="samples",
        EM_SERVICES=json.dumps(samples.endpoints),
        EM_DATA_DIR=str(folder / "data"),
        EM_METADATA_DIR=str(folder / "metadata"),
        FLYEM_CROP_SIZE="40,40,40",
    )
    yield folder
    os.environ.clear()
    os.environ.update(before)


def recorded_spans(mode: str) -> dict[str, Span]:
    """Run a mode; source -> when its flow run started and ended, as the server has it."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

    from flows.macroscope import macroscope

    state = macroscope(mode=mode, return_state=True)
    assert state.is_completed(), state.message
    with get_client(sync_client=True) as client:
        parent = state.state_details.flow_run_id
        children = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent])
            )
        )
        names = {child.id: client.read_flow(child.flow_id).name for child in children}
    return {
        names[c.id]: (c.start_time, c.end_time)
        for c in children
        if c.start_time is not None and c.end_time is not None
    }


TOGETHER = {
    "staged": {"ebi", "flyem", "idr"},
    "background": {"epfl", "idr"},
    "parallel": {"ebi", "flyem", "epfl"},
}
"""What a mode must let run at the same time."""


def let_meet(sources: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let these sources wait for each other in their plans, however late a busy machine starts one.

    Where they may not run together, the first waits in vain and fails.
    """
    meeting, met, plan = threading.Barrier(len(sources) or 1), set[str](), steps.plan_source

    def meet(source: str, *rest: Any) -> Sources:
        if source in sources - met:
            met.add(source)
            meeting.wait(200)
        return plan(source, *rest)

    monkeypatch.setattr(steps, "plan_source", meet)


def after(spans: dict[str, Span], later: str, earlier: str) -> bool:
    return spans[later][0] >= spans[earlier][1]


def together(spans: dict[str, Span], one: str, other: str) -> bool:
    return spans[one][0] < spans[other][1] and spans[other][0] < spans[one][1]


@pytest.mark.long  # every day: the order in test_execution.py, a run in test_main_job.py
@pytest.mark.parametrize("mode", MODES)
def test_sources_run_in_the_order_of_the_mode_and_overlap_where_it_says_so(
    home: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    let_meet(TOGETHER.get(mode, set()), monkeypatch)
    spans = recorded_spans(mode)
    for one, other in itertools.combinations(TOGETHER.get(mode, ()), 2):
        assert together(spans, one, other)
    assert set(spans) == {"ebi", "epfl", "flyem", "idr", "openorganelle", "consolidate"}
    if mode == "staged":
        for light in ("ebi", "flyem", "idr"):
            assert after(spans, "openorganelle", light)
        assert after(spans, "epfl", "openorganelle")
    elif mode == "background":
        assert after(spans, "flyem", "idr")
        assert after(spans, "ebi", "flyem")
        assert after(spans, "openorganelle", "ebi")
    elif mode == "sequential":
        order = ["ebi", "epfl", "flyem", "idr", "openorganelle"]
        for earlier, later in itertools.pairwise(order):
            assert after(spans, later, earlier)
    for source in MODES[mode].sources:
        assert after(spans, "consolidate", source)
