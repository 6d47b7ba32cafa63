"""A Prefect server that is away for a while: the work waits for it, and still hears a cancel.

Prefect asks its server before a task's body runs (its version, the slots of its tags). Where that
fails, nothing has been done yet, and the step can be tried again; so can one that was at work,
because what is finished is found in the store.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.runtime import flow_run as current_run
from prefect.settings import get_current_settings

from lib.concurrency import cancel as stopping
from lib.errors import MacroscopeError
from lib.transport.environment import proxy_for, proxy_in_words

LOGGER = logging.getLogger("macroscope")  # what a run has to tell, see `flows.logs`
T = TypeVar("T")

LONGEST_OUTAGE_S = 600.0
PAUSE_S = 3.0
LISTEN_S = 20.0
"""Between two looks at whether a run was cancelled; so long Prefect's runner has to end it."""


class ServerAwayError(MacroscopeError):
    """The Prefect server does not answer, where nothing can wait for it."""

    retryable = True
    advice = (
        "See that it runs and that PREFECT_API_URL is its address; run again: finished work is kept"
    )


def server_is_away(error: BaseException) -> bool:
    """Whether an error is Prefect's about its own server; those of archives have other names.

    A server whose database is away is away as well: it answers, with 500 or more.
    """
    if isinstance(error, RuntimeError) and str(error).startswith("Failed to reach API"):
        return True
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.is_server_error
    return isinstance(error, (httpx.TransportError, ConcurrencySlotAcquisitionError))


def show(step: Callable[[], T]) -> T | None:
    """What a step returns that only shows something in Prefect's UI; None where it could not.

    A server that is away, or whose database was restored from before the thing that is changed,
    costs no volume.
    """
    try:
        return step()
    except Exception as error:
        known = isinstance(error, (PrefectHTTPStatusError, ObjectNotFound))
        if not known and not server_is_away(error):
            raise
        LOGGER.warning("Prefect's UI will not show all of this run: %s", error)
        return None


class OutageBackoff:
    """How long a server has been away, from the first error to the next success.

    Parameters
    ----------
    seconds
        When to give up.
    pause_s
        Between two tries.
    """

    def __init__(self, seconds: float = LONGEST_OUTAGE_S, pause_s: float = PAUSE_S) -> None:
        self._seconds, self._pause_s = seconds, pause_s
        self._since: float | None = None

    def retries(self, error: BaseException) -> bool:
        """Wait a little and return True where the server is away and another try may help.

        Raises
        ------
        StoppedError
            The run was asked to stop meanwhile.
        """
        return server_is_away(error) and self.wait(error)

    def wait(self, error: BaseException) -> bool:
        """The same for an error that is known to be the server's."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            LOGGER.warning("the Prefect server is away, waiting for it: %s", error)
        if now - self._since > self._seconds:
            return False
        stopping.sleep(self._pause_s)
        return True

    def reset(self) -> None:
        """The server is back."""
        self._since = None


def retry_through_outage(step: Callable[[], T], backoff: OutageBackoff | None = None) -> T:
    """What a step returns; it is tried again while the server is away."""
    backoff = backoff or OutageBackoff()
    while True:
        try:
            return step()
        except Exception as error:
            if not backoff.retries(error):
                raise


@contextmanager
def named_where_away() -> Iterator[None]:
    """Give Prefect's errors about its own server a name. Raises `ServerAwayError`."""
    try:
        yield
    except Exception as error:
        if not server_is_away(error):
            raise
        address = get_current_settings().api.url
        way = (
            f" (asked through {proxy_in_words(address)})" if address and proxy_for(address) else ""
        )
        raise ServerAwayError(
            f"the Prefect server is away{way}: {error}", location=address
        ) from error


def deployed_run() -> UUID | None:
    """The flow run that is at work here, where a worker started it for a deployment."""
    own = os.environ.get("PREFECT__FLOW_RUN_ID")
    return UUID(own) if own is not None and own == current_run.get_id() else None


@contextmanager
def heeding_cancel(also: Callable[[UUID], object] = lambda run_id: None) -> Iterator[None]:
    """Stop the work of this process when its flow run is cancelled and nobody else ends it.

    What listens for a cancel beside a deployment's run gives up for good when the server was away
    for 20 s ("flow run cancellation will fail"): the run would be Cancelling until it is complete.

    Parameters
    ----------
    also
        Called with the run's id then: what else is to end.
    """
    run_id = deployed_run()
    if run_id is None:
        yield
        return
    over = threading.Event()
    call = partial(copy_context().run, _listen, run_id, also, over)
    listening = threading.Thread(target=call, name="cancel", daemon=True)
    listening.start()
    try:
        yield
    finally:
        over.set()


def _listen(run_id: UUID, also: Callable[[UUID], object], over: threading.Event) -> None:
    seen = False
    with get_client(httpx_settings={"timeout": 30.0}, sync_client=True) as client:
        while not over.wait(LISTEN_S):
            try:
                state = client.read_flow_run(run_id).state
                cancelled = state is not None and state.is_cancelling()
                if seen and cancelled:
                    if not stopping.stop_requested():
                        LOGGER.warning("the run was cancelled: it stops")
                    stopping.request_stop()
                    also(run_id)
                seen = cancelled
            except Exception as error:  # away, again; the next look may find it
                if not server_is_away(error) and not isinstance(error, ObjectNotFound):
                    LOGGER.warning("it is not known whether the run was cancelled: %s", error)
