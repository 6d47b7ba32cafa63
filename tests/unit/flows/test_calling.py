"""What a called flow comes to: its result, our error, or the error as it is."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from prefect.exceptions import ParameterTypeError
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows.calling import _without_a_loop, came_to
from lib.errors import ConfigError, IngestError, NotFoundError, StoppedError
from lib.ingest.result import ProcessingResult

RIGHT = ProcessingResult(success=True, source="idr", source_id="1")
WRONG = ProcessingResult(success=False, source="ebi", source_id="2", errors=["gone"])


def test_a_completed_run_gives_what_it_returned() -> None:
    assert came_to(Completed(data=RIGHT)) == RIGHT
    assert came_to(Completed(data=[RIGHT])) == [RIGHT]


def test_a_failed_run_is_an_error_that_carries_what_did_succeed() -> None:
    with pytest.raises(IngestError, match="ebi: gone") as failed:
        came_to(Failed(message="ebi: gone", data=[RIGHT, WRONG]))
    assert failed.value.results == (RIGHT, WRONG)
    with pytest.raises(IngestError, match="gone") as failed:
        came_to(Failed(message="gone", data=WRONG))
    assert failed.value.results == (WRONG,)
    with pytest.raises(IngestError, match="the machine went away"):
        came_to(Crashed(message="the machine went away"))


@pytest.mark.parametrize("error", [NotFoundError("none"), httpx.ConnectError("away")])
def test_an_error_keeps_its_own_name(error: Exception) -> None:
    """An outage of the server above all: the run around this one waits for it by its name."""
    with pytest.raises(type(error)):
        came_to(Failed(data=error))


def test_wrong_parameters_and_a_cancel_have_our_names() -> None:
    with pytest.raises(ConfigError, match="crop_size"):
        came_to(Failed(data=ParameterTypeError("crop_size: not a number")))
    with pytest.raises(StoppedError):
        came_to(Cancelled())


def test_beside_a_running_loop_the_call_has_a_thread_of_its_own() -> None:
    async def cell() -> bool:
        return _without_a_loop(asyncio.events._get_running_loop) is None

    assert asyncio.run(cell())
    assert _without_a_loop(threading.current_thread) is threading.current_thread()
