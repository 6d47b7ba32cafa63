"""The Prefect server that a run brings along: closed to everybody else, and gone when the run is.

One real server, started as a run starts it, asked as a page of another site would ask it. The last
test kills the run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.kit.prefect_server import alone_in

ELSEWHERE = "http://evil.example"
RUN = """
import json, os, time
from flows.commands.server import start_own_server
start_own_server()()
told = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED")
print(json.dumps({name: os.environ[name] for name in told}), flush=True)
time.sleep(3600)
"""


@dataclass(frozen=True)
class RunWithServer:
    """A process that has started a server, and what it tells its own clients."""

    process: subprocess.Popen[str]
    clients: dict[str, str]
    temporary: Path

    @property
    def url(self) -> str:
        return self.clients["PREFECT_API_URL"]

    @property
    def origin(self) -> str:
        return self.url.removesuffix("/api")

    def server(self) -> int:
        pid = self.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(child)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunWithServer]:
    folder = tmp_path_factory.mktemp("run")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=Path(__file__).parents[3],
        env={**kept, **alone_in(folder), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield RunWithServer(process, json.loads(process.stdout.readline()), folder)
    finally:
        process.kill()
        process.wait()


def known_flows(run: RunWithServer) -> list[str]:
    """Names of the server's flows, as one of its own clients reads them."""
    code = (
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as client:\n"
        "    client.create_flow_from_name('mine')\n"
        "    print(*(flow.name for flow in client.read_flows()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **run.clients},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic Og=="}], ids=["none", "empty"])
def test_a_post_of_another_site_changes_nothing(
    run: RunWithServer, headers: dict[str, str]
) -> None:
    """A form or a fetch without preflight: text/plain, sent without asking, answer or not."""
    body = json.dumps({"name": "theirs"})
    simple = {"Origin": ELSEWHERE, "Content-Type": "text/plain", **headers}
    for path in ("flows/", "deployments/", "work_pools/", "flow_runs/"):
        answer = requests.post(f"{run.url}/{path}", body, headers=simple, timeout=120)
        assert answer.status_code in (401, 403), path
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert known_flows(run) == ["mine"]


def test_another_site_may_neither_ask_first_nor_read(run: RunWithServer) -> None:
    asked = {
        "Origin": ELSEWHERE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    preflight = requests.options(f"{run.url}/flows/", headers=asked, timeout=120)
    assert "Access-Control-Allow-Origin" not in preflight.headers
    own = requests.options(
        f"{run.url}/flows/", headers={**asked, "Origin": run.origin}, timeout=120
    )
    assert own.headers["Access-Control-Allow-Origin"] == run.origin, "the test asks as pages do"
    read = requests.post(f"{run.url}/flows/filter", headers={"Origin": ELSEWHERE}, timeout=120)
    assert read.status_code in (401, 403)
    assert "Access-Control-Allow-Origin" not in read.headers


@pytest.mark.parametrize("path", ["admin/settings", "csrf-token?client=theirs"])
def test_a_name_that_leads_here_opens_nothing(run: RunWithServer, path: str) -> None:
    """DNS rebinding: the page's own origin, at this address."""
    here = {"Host": "evil.example", "Origin": ELSEWHERE}
    assert requests.get(f"{run.url}/{path}", headers=here, timeout=120).status_code == 401


@pytest.mark.parametrize("protocols", [None, ["prefect"]], ids=["old", "prefect"])
def test_events_cannot_be_read_without_the_password(run: RunWithServer, protocols: Any) -> None:
    url = run.url.replace("http", "ws", 1) + "/events/out"
    told = []
    with (
        suppress(ConnectionClosed, InvalidStatus),
        connect(url, subprotocols=protocols, proxy=None, open_timeout=120) as socket,
    ):
        socket.send(json.dumps({"type": "auth", "token": ""}))
        told.append(json.loads(socket.recv(120))["type"])
    assert "auth_success" not in told


def test_a_run_that_is_killed_leaves_neither_server_nor_folder(run: RunWithServer) -> None:
    server = run.server()
    assert list(run.temporary.glob("macroscope-*-prefect-*")), "there was something to leave"
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    deadline = time.monotonic() + 120
    while Path(f"/proc/{server}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{server}").exists()
    assert list(run.temporary.glob("macroscope-*-prefect-*")) == []
