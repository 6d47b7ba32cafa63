"""Hosts that share nothing but the Prefect server keep, together, to one archive's limits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from emulators.control import Control
from emulators.serving import Samples
from flows.commands.server import LEASES_ON_DISK, PrefectServer, comes_true
from lib.concurrency import cancel as stopping
from lib.errors import StoppedError
from lib.storage.base import clock
from lib.transport.limits import Limiter, Limits
from tasks import limits
from tasks.limits import LEASE_SECONDS, LONG_WAIT_S, Leases, ServerSlots, limit_name
from tests.kit.prefect_server import alone_in, without_locks

LEASE_STORAGE = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
HOST = """
import sys
from pathlib import Path
from uuid import UUID
from tasks.limits import rate_limited
from lib.ingest.context import open_session
from lib.config.loaders import EPFLConfig

@rate_limited
def ask():
    url = sys.argv[1]
    with open_session(EPFLConfig(), "epfl", scratch_dir=Path(sys.argv[2])) as session:
        http = session.http("epfl")
        list(session.ordered("epfl", [lambda: http.head(url)] * 12))

ask()
"""


@pytest.fixture
def server(prefect_server: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def source_of(client: SyncPrefectClient, service: str, slots: int) -> ServerSlots:
    client.upsert_global_concurrency_limit_by_name(limit_name(service), slots)
    return ServerSlots(client, Leases(client), service)


def in_use(client: SyncPrefectClient, service: str) -> int:
    return client.read_global_concurrency_limit_by_name(limit_name(service)).active_slots


@pytest.mark.long
def test_two_hosts_stay_at_the_connections_of_one(
    server: SyncPrefectClient, prefect_api: str, samples: Samples, faults: Control, tmp_path: Path
) -> None:
    """Each host by itself would open four connections; the server grants three in all."""
    server.upsert_global_concurrency_limit_by_name(limit_name("epfl"), 3)
    faults.set_latency("epfl", first_byte_s=0.3)
    environment = {**os.environ, "PREFECT_API_URL": prefect_api}
    url = samples.endpoints["EPFL"]["download_url"]
    hosts = [
        subprocess.Popen([sys.executable, "-c", HOST, url, str(tmp_path)], env=environment)
        for _ in range(2)
    ]
    assert [host.wait(500) for host in hosts] == [0, 0]
    tally = faults.counters.tally("epfl")
    assert tally.requests == 24
    assert tally.peak <= 3
    assert in_use(server, "epfl") == 0  # all of them were given back


def test_a_slot_taken_elsewhere_is_waited_for_and_a_stop_ends_the_wait(
    server: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (Limiter("one", Limits(1), source_of(server, "one", 1)) for _ in range(2))
    waits: list[float] = []

    def look_away(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise StoppedError("stop")

    monkeypatch.setattr(stopping, "sleep", look_away)
    with here.slot(), pytest.raises(StoppedError):
        there.acquire()
    here.give_back()
    with there.slot():
        assert in_use(server, "one") == 1
    there.give_back()
    assert in_use(server, "one") == 0


@pytest.mark.parametrize("slow", [False, True])
def test_a_lease_that_the_server_ended_is_taken_anew(
    server: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    """As after a laptop's sleep: the server gave the slot back, and the work goes on.

    `slow`: the last renewal was in time, and its answer came when the term was over.
    """
    service = f"ended-{slow}".lower()
    other = source_of(server, service, 2).take(2)
    assert other is not None
    lease = server.increment_concurrency_slots_with_lease(
        [limit_name(service)], 1, "concurrency", LEASE_SECONDS
    ).json()["lease_id"]
    real, late = clock, iter([0.0] if slow else [])
    monkeypatch.setattr(limits, "clock", lambda: real() + next(late, LEASE_SECONDS))
    server.release_concurrency_slots_with_lease(UUID(lease))
    assert in_use(server, service) == 1
    leases = Leases(server, every_s=0.05)
    taken: list[object] = []
    take = limits._take
    monkeypatch.setattr(limits, "_take", lambda *given: taken.append(given) or take(*given))
    release = leases.hold(service, UUID(lease), real())
    assert comes_true(lambda: bool(taken) and in_use(server, service) == 2, 120)
    assert source_of(server, service, 2).take(2) is None
    release()
    assert in_use(server, service) == 1
    other()
    assert in_use(server, service) == 0


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("leases", ["memory", "disk"])
def test_a_restarted_server_counts_the_slots_that_are_in_use_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leases: str
) -> None:
    """Prefect's own storage of leases, in memory, forgets them; the slots it counts on."""
    database = f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}"
    storage = {} if leases == "memory" else {LEASE_STORAGE: LEASES_ON_DISK}
    own = PrefectServer(tmp_path, database, settings=storage, **alone_in(tmp_path))
    with own, temporary_settings({PREFECT_API_URL: own.url}), get_client(sync_client=True) as asked:
        asked.upsert_global_concurrency_limit_by_name(limit_name("two"), 2)
        source = ServerSlots(asked, Leases(asked, every_s=0.2), "two")
        release = source.take(2)
        assert release is not None
        own.kill()
        own.start()
        own.wait()
        before = asked.renew_concurrency_lease
        good: list[UUID] = []

        def renewed(lease: UUID, seconds: float) -> None:
            before(lease, seconds)
            good.append(lease)

        monkeypatch.setattr(asked, "renew_concurrency_lease", renewed)
        assert comes_true(lambda: len(good) >= 2, 240), "it is renewed again"
        assert in_use(asked, "two") == 1
        release()
        assert in_use(asked, "two") == 0
    assert "Traceback" not in without_locks((tmp_path / "server.log").read_text())


def test_a_long_wait_for_a_slot_is_told_with_what_helps(
    server: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = source_of(server, "full", 1)
    release = source.take(1)
    assert release is not None
    other, real = source_of(server, "full", 1), clock
    assert other.take(1) is None
    assert "macroscope-full" not in caplog.text
    monkeypatch.setattr(limits, "clock", lambda: real() + LONG_WAIT_S)
    assert other.take(1) is None
    assert "prefect gcl update macroscope-full --active-slots 0" in caplog.text
    release()
