"""Slots of an archive's services, kept by the Prefect server for every host of a deployment.

`flows.register` makes a global concurrency limit for each service. Where the server has one, the
tasks of all hosts together keep to it; without a server of one's own (``macroscope run``) each
process keeps to the service's limits by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from lib.errors import TransportError
from lib.storage.base import clock
from lib.transport import limits
from lib.transport.shared_slots import Release
from tasks.outage import OutageBackoff, retry_through_outage

LOGGER = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")

LEASE_SECONDS = 60.0  # a killed process keeps its slots no longer than this
LONG_WAIT_S = 600.0  # for a slot, after which it is said
_installing = threading.Lock()
_installed_for: str | None = None


def limit_name(service: str) -> str:
    """The name of a service's global concurrency limit."""
    return f"macroscope-{service}"


def rate_limited(function: Callable[P, R]) -> Callable[P, R]:
    """Let a task keep to the limits that the server has for all hosts."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        _share_through_the_server()
        try:
            return function(*args, **kwargs)
        finally:
            limits.give_back_idle_slots()

    return run


def _share_through_the_server() -> None:
    global _installed_for
    address = get_current_settings().api.url
    with _installing:
        if address == _installed_for:
            return
        _installed_for = address
        if address is None:
            limits.share_slots_through(None)
            return
        # of its own, for all threads: the client of a run's context closes with that run
        client = get_client(httpx_settings={"timeout": 30.0}, sync_client=True)
        leases = Leases(client)
        limits.share_slots_through(lambda service: _slots_of(client, leases, service))


def _slots_of(client: SyncPrefectClient, leases: Leases, service: str) -> ServerSlots | None:
    name = limit_name(service)
    try:
        retry_through_outage(lambda: client.read_global_concurrency_limit_by_name(name))
    except ObjectNotFound:
        LOGGER.info("no limit %s on the server: this process's own holds", name)
        return None
    except httpx.HTTPError as error:
        raise _unreachable(service, error) from error
    return ServerSlots(client, leases, service)


class ServerSlots:
    """A `lib.transport.shared_slots.SlotSource`: leases on a global concurrency limit."""

    lease_s = 5.0
    poll_s = 1.0

    def __init__(self, client: SyncPrefectClient, leases: Leases, service: str) -> None:
        self._client = client
        self._leases = leases
        self._service = service
        self._backoff = OutageBackoff(pause_s=0)
        self._locked_since: float | None = None

    def take(self, connections: int) -> Release | None:
        """A lease, or None while all slots are taken or the server is away."""
        asked = clock()
        try:
            lease = _take(self._client, self._service)
        except httpx.HTTPError as error:
            if _status(error) == httpx.codes.LOCKED:
                self._backoff.reset()
                self._say_what_is_waited_for(asked)
            elif not self._backoff.wait(error):
                raise _unreachable(self._service, error) from error
            return None
        self._backoff.reset()
        self._locked_since = None
        return self._leases.hold(self._service, lease, asked)

    def _say_what_is_waited_for(self, now: float) -> None:
        """Say so where nobody gave a slot back for long: such a wait looks like a hang.

        A server that keeps its leases in memory only, as Prefect's does by default, counts the
        slots of processes that ended while it was away for ever.
        """
        if self._locked_since is None:
            self._locked_since = now
        elif now - self._locked_since >= LONG_WAIT_S:
            self._locked_since = now
            LOGGER.warning(
                "all slots of %s have been taken for %.0f minutes. Where no run is at work, a "
                "restarted server has forgotten whose they were: "
                "prefect gcl update %s --active-slots 0",
                self._service,
                LONG_WAIT_S / 60,
                limit_name(self._service),
            )


@dataclass(slots=True, eq=False)
class _Held:
    service: str
    lease: UUID | None  # None: the server no longer has it, and gave its slot to others
    renewed: float  # when the last renewal that came through was asked for


class Leases:
    """Leases in force, renewed by a thread of their own until they are given back.

    One that the server no longer has, because it was restarted or did not hear from this process
    for a whole term, is taken anew.

    Parameters
    ----------
    every_s
        Seconds between two renewals; a third of a term by default.
    """

    def __init__(self, client: SyncPrefectClient, every_s: float = LEASE_SECONDS / 3) -> None:
        self._client = client
        self._every_s = every_s
        self._held: set[_Held] = set()
        self._lock = threading.Lock()
        self._renewing = False
        self._failed = False

    def hold(self, service: str, lease: UUID, asked: float) -> Release:
        """Keep a lease alive that was asked for at that time; returns what gives it back."""
        held = _Held(service, lease, asked)
        with self._lock:
            self._held.add(held)
            if not self._renewing:
                self._renewing = True
                threading.Thread(target=self._renew, name="slot leases", daemon=True).start()
        return lambda: self._give_back(held)

    def _give_back(self, held: _Held) -> None:
        with self._lock:
            self._held.discard(held)
            lease = held.lease
        if lease is not None:
            self._end(lease)

    def _end(self, lease: UUID) -> None:
        try:
            self._client.release_concurrency_slots_with_lease(lease)
        except httpx.HTTPError as error:  # it runs out by itself
            LOGGER.info("a slot goes back late: %s", error)

    def _renew(self) -> None:
        while True:
            time.sleep(self._every_s)
            with self._lock:
                if not self._held:
                    self._renewing = False
                    return
                held = list(self._held)
            for one in held:
                try:
                    self._renew_one(one)
                    self._failed = False
                except httpx.HTTPError as error:
                    if not self._failed:  # once for each outage
                        LOGGER.warning("a slot's lease was not renewed: %s", error)
                    self._failed = True

    def _renew_one(self, held: _Held) -> None:
        asked, lease = clock(), held.lease
        if lease is not None:
            try:
                self._client.renew_concurrency_lease(lease, LEASE_SECONDS)
                held.renewed = asked
                return
            except httpx.HTTPError as error:
                if _status(error) != httpx.codes.GONE:
                    raise
            with self._lock:
                if held not in self._held:
                    return
                held.lease = None
            LOGGER.info("the server no longer has the lease of a slot of %s", held.service)
            if clock() - held.renewed < LEASE_SECONDS:  # now: Prefect's client asked for minutes
                # Too young to have been ended: it was forgotten, and its slot is counted for ever.
                self._client.release_concurrency_slots([limit_name(held.service)], 1, 1.0)
        try:
            lease = _take(self._client, held.service)
        except httpx.HTTPError as error:
            if _status(error) == httpx.codes.LOCKED:
                return  # others have the slots by now: the next turn asks again
            raise
        with self._lock:
            wanted = held in self._held
            if wanted:
                held.lease, held.renewed = lease, asked
        if not wanted:
            self._end(lease)


def _take(client: SyncPrefectClient, service: str) -> UUID:
    """A lease on one slot; `httpx.HTTPStatusError` with status 423 where all are taken."""
    response = client.increment_concurrency_slots_with_lease(
        [limit_name(service)], 1, "concurrency", LEASE_SECONDS
    )
    return UUID(response.json()["lease_id"])


def _status(error: httpx.HTTPError) -> int | None:
    """What the server answered, where it did."""
    return error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None


def _unreachable(service: str, error: httpx.HTTPError) -> TransportError:
    return TransportError(
        f"the Prefect server gave no slot of {service}: {error}",
        location=str(get_current_settings().api.url),
        advice="See that the server runs; the next run goes on where this one stopped",
    )
