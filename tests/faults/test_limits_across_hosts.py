"""Hosts that share nothing but the Prefect server keep, together, to one archive's limits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client

from emulators.control import Control
from emulators.serving import Samples
from lib.concurrency import cancel as stopping
from lib.errors import StoppedError
from lib.transport.limits import Limiter, Limits
from tasks.limits import Leases, ServerSlots, limit_name

HOST = """
import sys
from pathlib import Path
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
    assert [host.wait(120) for host in hosts] == [0, 0]
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
