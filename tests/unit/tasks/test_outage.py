"""A Prefect server that is away is waited for; every other error counts at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Running, State

from lib.concurrency import cancel as stopping
from lib.errors import BadAnswerError, StoppedError
from lib.ingest.context import VolumeRequest
from lib.transport.environment import _proxies
from tasks import artifacts, outage
from tasks.outage import (
    LOGGER,
    OutageBackoff,
    ServerAwayError,
    heeding_cancel,
    named_where_away,
    retry_through_outage,
    show,
)


def answered(status: int) -> PrefectHTTPStatusError:
    """What Prefect's client raises where its server answers with a status."""
    request = httpx.Request("POST", "http://127.0.0.1:4200/api/artifacts/")
    return PrefectHTTPStatusError(
        f"status {status}", request=request, response=httpx.Response(status, request=request)
    )


AWAY = (
    RuntimeError("Failed to reach API at http://macroscope-server.em:4200/api/"),
    ConcurrencySlotAcquisitionError("Unable to acquire concurrency slots on ['tag:convert']"),
    httpx.ConnectError("All connection attempts failed"),
    answered(500),  # its database is away
)


def failing_with(*errors: Exception) -> tuple[Callable[[], str], list[Exception]]:
    """A step that raises each of the errors once, then succeeds; and what it has yet to raise."""
    left = list(errors)

    def step() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return step, left


def test_a_step_is_tried_again_until_the_server_is_back() -> None:
    step, left = failing_with(*AWAY, *AWAY)
    assert retry_through_outage(step, OutageBackoff(pause_s=0)) == "done"
    assert left == []


@pytest.mark.parametrize(
    "error",
    [BadAnswerError("nonsense"), OSError("no space left"), RuntimeError("a bug"), answered(404)],
    ids=str,
)
def test_any_other_error_ends_the_step_at_once(error: Exception) -> None:
    step, left = failing_with(error, *AWAY)
    with pytest.raises(type(error), match=str(error)):
        retry_through_outage(step, OutageBackoff(pause_s=0))
    assert len(left) == len(AWAY)


def test_patience_ends_and_begins_anew_after_a_success() -> None:
    backoff = OutageBackoff(seconds=0, pause_s=0.001)
    assert backoff.retries(AWAY[0])
    assert not backoff.retries(AWAY[0])
    backoff.reset()
    assert backoff.retries(AWAY[0])


def test_a_run_that_is_asked_to_stop_does_not_wait_for_the_server() -> None:
    step, _ = failing_with(*AWAY)
    stopping.request_stop()
    try:
        with pytest.raises(StoppedError):
            retry_through_outage(step, OutageBackoff(pause_s=60))
    finally:
        stopping.reset()


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_where_nothing_can_wait_the_absence_has_a_name_and_says_what_to_do(
    error: Exception,
) -> None:
    with pytest.raises(ServerAwayError, match="PREFECT_API_URL") as caught, named_where_away():
        raise error
    assert caught.value.retryable


def test_other_errors_keep_their_own_name() -> None:
    with pytest.raises(OSError, match="no space left"), named_where_away():
        raise OSError("no space left")


def test_a_server_behind_a_proxy_is_named_with_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hidden@proxy.lab:3128")
    _proxies.cache_clear()
    address = {PREFECT_API_URL: "https://prefect.lab/api"}
    with (
        temporary_settings(address),
        pytest.raises(ServerAwayError, match=r"http://proxy.lab:3128 \(HTTPS_PROXY\)") as caught,
        named_where_away(),
    ):
        raise AWAY[2]
    assert "hidden" not in str(caught.value)
    _proxies.cache_clear()


@pytest.mark.parametrize(
    "error", [*AWAY, answered(404), ObjectNotFound(answered(404))], ids=lambda e: type(e).__name__
)
def test_what_is_only_shown_costs_nothing_where_the_server_is_away_or_knows_it_no_more(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    step, left = failing_with(error)
    with patch.object(LOGGER, "propagate", True):
        assert show(step) is None
    assert left == []
    assert "will not show" in caplog.text
    assert show(step) == "done"


def test_a_fault_of_ours_in_what_is_shown_is_not_hidden() -> None:
    step, _ = failing_with(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        show(step)


def test_progress_that_a_restored_database_has_forgotten_is_shown_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: dict[UUID, float] = {}

    def create(percent: float, key: str, words: str) -> UUID:
        shown[known := UUID(int=len(shown))] = percent
        return known

    def update(known: UUID, percent: float) -> UUID:
        if known == UUID(int=0):
            raise answered(404)
        shown[known] = percent
        return known

    monkeypatch.setattr(artifacts, "create_progress_artifact", create)
    monkeypatch.setattr(artifacts, "update_progress_artifact", update)
    monkeypatch.setattr(artifacts, "_SECONDS_BETWEEN_UPDATES", 0)
    plan = SimpleNamespace(source="ebi", source_id="1", name="volume")
    bar = artifacts.ProgressBar(cast(VolumeRequest, SimpleNamespace(plan=plan)))
    for share in (0.25, 0.5, 1):
        bar.update(share)
    assert shown == {UUID(int=0): 0, UUID(int=1): 100}


@flow
def nothing() -> None:
    """What a run can be made of."""


@pytest.mark.parametrize(("state", "stops"), [(Running, False), (Cancelling, True)])
def test_a_deployed_run_hears_a_cancel_although_nothing_else_listens(
    prefect_server: str,
    monkeypatch: pytest.MonkeyPatch,
    state: Callable[[], State],
    stops: bool,
) -> None:
    looked, read = threading.Semaphore(0), outage.get_client
    ended: list[UUID] = []
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(nothing, state=state())

    def counted(**options: Any) -> Any:
        client = read(**options)
        look = client.read_flow_run

        def noted(run_id: UUID) -> Any:
            looked.release()
            return look(run_id)

        client.read_flow_run = noted
        return client

    monkeypatch.setattr(outage, "get_client", counted)
    monkeypatch.setattr(outage, "deployed_run", lambda: run.id)
    monkeypatch.setattr(outage, "LISTEN_S", 0.01)
    stopping.reset()
    try:
        with heeding_cancel(ended.append):
            for _ in range(4):
                assert looked.acquire(timeout=120)
        assert stopping.stop_requested() == stops
        assert set(ended) == ({run.id} if stops else set())
    finally:
        stopping.reset()


def test_a_run_that_nobody_deployed_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "get_client", lambda **_: pytest.fail("nobody cancels it there"))
    monkeypatch.setattr(outage, "LISTEN_S", 0.0)
    with heeding_cancel():
        pass
