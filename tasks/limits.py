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
from functools import wraps
from typing import ParamSpec, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from lib.errors import TransportError
from lib.transport import limits
from lib.transport.shared_slots import Release
from tasks.outage import OutageBackoff, retry_through_outage

LOGGER = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")

LEASE_SECONDS = 60.0  # a killed process keeps its slots no longer than this
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

    def take(self, connections: int) -> Release | None:
        """A lease, or None while all slots are taken or the server is away."""
        try:
            response = self._client.increment_concurrency_slots_with_lease(
                [limit_name(self._service)], 1, "concurrency", LEASE_SECONDS
            )
        except httpx.HTTPError as error:
            if _says_locked(error):
                self._backoff.reset()
            elif not self._backoff.wait(error):
                raise _unreachable(self._service, error) from error
            return None
        self._backoff.reset()
        return self._leases.hold(UUID(response.json()["lease_id"]))


class Leases:
    """Leases in force, renewed by a thread of their own until they are given back."""

    def __init__(self, client: SyncPrefectClient, seconds: float = LEASE_SECONDS) -> None:
        self._client = client
        self._seconds = seconds
        self._held: set[UUID] = set()
        self._lock = threading.Lock()
        self._renewing = False

    def hold(self, lease: UUID) -> Release:
        """Keep a lease alive; returns what gives it back."""
        with self._lock:
            self._held.add(lease)
            if not self._renewing:
                self._renewing = True
                threading.Thread(target=self._renew, name="slot leases", daemon=True).start()
        return lambda: self._give_back(lease)

    def _give_back(self, lease: UUID) -> None:
        with self._lock:
            self._held.discard(lease)
        try:
            self._client.release_concurrency_slots_with_lease(lease)
        except httpx.HTTPError as error:  # it runs out by itself
            LOGGER.info("a slot goes back late: %s", error)

    def _renew(self) -> None:
        while True:
            time.sleep(self._seconds / 3)
            with self._lock:
                if not self._held:
                    self._renewing = False
                    return
                held = list(self._held)
            for lease in held:
                try:
                    self._client.renew_concurrency_lease(lease, self._seconds)
                except httpx.HTTPError as error:
                    LOGGER.warning("a slot's lease was not renewed: %s", error)


def _says_locked(error: httpx.HTTPError) -> bool:
    """Whether the server is there, and all slots are taken."""
    response = error.response if isinstance(error, httpx.HTTPStatusError) else None
    return response is not None and response.status_code == httpx.codes.LOCKED


def _unreachable(service: str, error: httpx.HTTPError) -> TransportError:
    return TransportError(
        f"the Prefect server gave no slot of {service}: {error}",
        location=str(get_current_settings().api.url),
        advice="See that the server runs; the next run goes on where this one stopped",
    )
