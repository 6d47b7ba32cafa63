"""Each dataset of a list as a run of its own: its name, its child, what stops and what goes on."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prefect import tags
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed, Failed

from flows import calling, macroscope, sources
from flows import macroscope as parent
from lib.errors import ConfigError, TransportError
from lib.execution import Step
from lib.ingest.datasets import Dataset, jobs_of
from lib.ingest.result import ProcessingResult, VolumeResult


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macroscope, "STAGGER_S", 0.0)


def test_five_hundred_are_begun_a_few_at_a_time_and_one_that_fails_stops_none() -> None:
    lock, now, peak = threading.Lock(), 0, 0

    def start(label: str) -> str:
        nonlocal now, peak
        with lock:
            now += 1
            peak = max(peak, now)
        try:
            if label == "7":
                raise TransportError("the archive is away")
            return label
        finally:
            with lock:
                now -= 1

    steps = [Step(str(n), frozenset()) for n in range(500)]
    outcomes = macroscope.run_schedule(steps, start, workers=3)
    assert len(outcomes) == 500 and peak <= 3
    assert [one.source for one in outcomes if one.error is not None] == ["7"]
    assert {one.result for one in outcomes if one.error is None} == {
        str(n) for n in range(500) if n != 7
    }


def test_a_dataset_is_told_apart_from_the_others_of_its_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, dict[str, Any], str, str | None]] = []

    def run_source(source: str, given: Any, *, where: str, dataset: str | None) -> Any:
        asked.append((source, dict(given), where, dataset))
        return ProcessingResult(success=True, source=source, source_id="x")

    monkeypatch.setattr(parent, "run_source", run_source)
    listed = [
        Dataset(address="s3://b/one.zarr", level="s1", group="g"),
        Dataset(address="s3://b/two.zarr", name="two"),
    ]
    jobs = {job.label: job for job in jobs_of(listed)}
    assert [*jobs] == ["s3://b/one.zarr s1", "two"]
    for label in jobs:
        parent._start_job(jobs, {"address": {"max_workers": 1}}, "inline", True, label)
    first, second = asked
    assert first[1] == {
        "max_workers": 1, "scale_level": "s1", "addresses": ["s3://b/one.zarr"], "dry_run": True,
    }  # fmt: skip
    assert (first[3], second[3]) == ("s3://b/one.zarr s1", "two")
    outcome = macroscope.Outcome("two", 0.0, 1.0, error=TransportError("away"))
    result = parent._result(outcome, jobs)
    assert (result.source, result.dataset, result.label) == ("address", "two", "two")
    outcome = macroscope.Outcome("ebi", 0.0, 1.0, error=TransportError("away"))
    assert parent._result(outcome, jobs).label == "ebi"


PARENT = "00000000-0000-0000-0000-000000000001"


class Server:
    """What a Prefect server answers of a parent's children: pages of at most 200."""

    def __init__(self, children: list[SimpleNamespace]) -> None:
        self.children, self.cancelled = children, list[int]()

    def read_flow_runs(self, *, flow_run_filter: Any, offset: int = 0) -> list[SimpleNamespace]:
        left_out = {one.value for one in flow_run_filter.state.type.not_any_}
        wanted = set(flow_run_filter.tags.all_ if flow_run_filter.tags else ())
        found = [c for c in self.children if c.state not in left_out and wanted <= set(c.tags)]
        return found[offset : offset + 200]

    def set_flow_run_state(self, child: int, state: Any, *, force: bool) -> None:
        self.cancelled.append(child)


def child(*tags: str, number: int = 0, state: str = "RUNNING") -> SimpleNamespace:
    return SimpleNamespace(id=number, state=state, tags=["macroscope", *tags])


def test_a_deployed_dataset_finds_its_own_child_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two, plain = child("ebi", "dataset:one"), child("ebi", "dataset:two"), child("ebi")
    ended = [child("ebi", "dataset:two", state="COMPLETED") for _ in range(300)]
    monkeypatch.setattr(sources, "current_run", SimpleNamespace(get_id=lambda: PARENT))
    client: Any = Server([*ended, one, two, plain])
    assert sources._running_child(client, ["ebi", "dataset:two"]) is two
    assert sources._running_child(client, ["ebi", "dataset:one"]) is one
    assert sources._running_child(client, ["ebi"]) is plain
    assert sources._running_child(client, ["idr", "dataset:one"]) is None


def test_a_cancel_reaches_every_child_that_runs_however_many_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = [child("ebi", number=n, state="COMPLETED") for n in range(300)]
    running = [child("ebi", number=n) for n in range(300, 550)]
    server = Server([*ended, *running])
    monkeypatch.setattr(sources, "get_client", lambda **_: nullcontext(server))
    flow_run: Any = SimpleNamespace(id=UUID(PARENT))
    state: Any = None
    sources.cancel_children(None, flow_run, state)
    assert server.cancelled == list(range(300, 550))


def test_a_deployed_dataset_is_told_by_name_and_group_before_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def run_deployment(name: str, **given: Any) -> FlowRun:
        asked.update(given, deployment=name)
        return FlowRun(flow_id=UUID(PARENT))

    monkeypatch.setattr(sources, "run_deployment", run_deployment)
    with tags("group:worms"):
        sources._start("ebi", None, ["ebi", "dataset:a"], "ebi a")
    assert asked["deployment"] == "ebi/ingest" and asked["flow_run_name"] == "ebi a"
    assert asked["tags"] == ["ebi", "dataset:a", "group:worms"]

    def missing(*_: Any, **__: Any) -> None:
        raise ObjectNotFound(ValueError("404"))

    monkeypatch.setattr(sources, "run_deployment", missing)
    with pytest.raises(ConfigError, match=r"no deployment ebi/ingest.*macroscope deploy"):
        sources._start("ebi", None, ["ebi"], "ebi")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (Failed(message="gone.tif: there is no such file"), "gone.tif: there is no such file"),
        (Failed(), "the run ended as Failed"),
    ],
)
def test_a_deployed_dataset_that_failed_says_why_in_its_own_words(
    state: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "get_client", lambda **_: nullcontext())
    monkeypatch.setattr(sources, "_running_child", lambda *_: SimpleNamespace(id=UUID(PARENT)))
    monkeypatch.setattr(sources, "_wait", lambda *_: state)
    monkeypatch.setattr(sources, "_volumes", lambda *_: [])
    result = sources.run_deployed("address", None, "mine")
    assert not result.success and result.errors == [said]
    monkeypatch.setattr(sources, "_wait", lambda *_: Crashed(message="137"))
    with pytest.raises(sources.ChildRunError, match=r"137.*killed for its memory"):
        sources.run_deployed("address", None, "mine")


@pytest.mark.parametrize(
    ("source", "config", "name"),
    [
        (
            "address",
            {"addresses": ["s3://bucket/x.zarr|zarr:em"], "scale_level": "s2"},
            "address s3://bucket/x.zarr|zarr:em s2",
        ),
        ("address", {"addresses": ["gs://b/x"], "name": "liver"}, "address gs://b/x liver"),
        ("ebi", {"entry_id": "10310", "box": "z=0:4"}, "ebi EMPIAR-10310 z=0:4"),
    ],
)
def test_a_runs_name_says_what_it_is(
    source: str, config: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked: list[str] = ["macroscope"]
    run = SimpleNamespace(
        get_flow_name=lambda: source,
        get_parameters=lambda: {"config": config},
        get_tags=lambda: marked,
    )
    monkeypatch.setattr(calling, "flow_run", run)
    monkeypatch.setenv("EM_ARCHIVES", "public")
    assert calling.source_run_name() == name
    marked += calling.dataset_tags("what people call it")
    assert calling.source_run_name() == f"{source} what people call it"


def test_the_parents_name_counts_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [{"address": "epfl:"}, {"address": "idr:1"}]
    given = {"mode": "staged", "datasets": listed}
    monkeypatch.setattr(calling, "flow_run", SimpleNamespace(get_parameters=lambda: given))
    assert calling.parent_run_name() == "macroscope staged 2 datasets"


def test_a_dataset_is_handed_to_its_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str | None]] = []
    monkeypatch.setattr(
        sources, "run_deployed", lambda source, config, dataset: seen.append((source, dataset))
    )
    sources.run_source("epfl", {"box": "z=0:4"}, where="deployments", dataset="mine")
    assert seen == [("epfl", "mine")]


def test_a_run_whose_last_answer_was_lost_is_read_back_from_its_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Prefect goes on with the state as the server keeps it, which has no data."""
    bare = Completed(message="1 complete")
    bare.state_details.flow_run_id = UUID(PARENT)
    asked: list[UUID] = []
    place = {"shape_zyx": (1, 2, 3), "voxel_nm_zyx": (1.0, 1.0, 1.0)}
    volume = VolumeResult.model_validate(
        {"name": "v", "source_id": "x", "status": "complete", **place}
    )

    def volumes(client: Any, source: str, run_id: UUID) -> list[VolumeResult]:
        asked.append(run_id)
        return [volume]

    class Bare:
        def with_options(self, flow_run_name: Any) -> Any:
            assert flow_run_name() == "address a {b}"
            return lambda **_: bare

    monkeypatch.setattr(sources, "source_flow", lambda source: Bare())
    monkeypatch.setattr(sources, "get_client", lambda **_: nullcontext())
    monkeypatch.setattr(sources, "_volumes", volumes)
    result = sources.run_source("address", {}, where="inline", dataset="a {b}")
    assert result.success and result.volumes == [volume] and asked == [UUID(PARENT)]
    with pytest.raises(calling.LostAnswerError, match="Run again"):
        calling.came_to(bare)
