"""A Prefect server that is away is waited for; every other error counts at once."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.settings import PREFECT_API_URL, temporary_settings

from lib.concurrency import cancel as stopping
from lib.errors import BadAnswerError, StoppedError
from lib.transport.environment import _proxies
from tasks.outage import OutageBackoff, ServerAwayError, named_where_away, retry_through_outage

AWAY = (
    RuntimeError("Failed to reach API at http://macroscope-server.em:4200/api/"),
    ConcurrencySlotAcquisitionError("Unable to acquire concurrency slots on ['tag:convert']"),
    httpx.ConnectError("All connection attempts failed"),
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
    "error", [BadAnswerError("nonsense"), OSError("no space left"), RuntimeError("a bug")], ids=str
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
