"""A Prefect server of a test's own: a process, a free port, a database that goes with it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

START_S = 180  # a loaded machine takes its time


@contextmanager
def prefect_server(folder: Path) -> Iterator[dict[str, str]]:
    """Start a server and end it; yields the environment of its clients.

    Parameters
    ----------
    folder
        For its log and its clients' PREFECT_HOME.
    """
    base = {
        **os.environ,
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # in memory: runs at once on a file would wait for each other's locks
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///:memory:",
    }
    base.pop("PREFECT_API_URL", None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", port]
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(command, cwd=folder, env=base, stderr=log, stdout=log) as server,
    ):
        try:
            _wait_until_healthy(url, server)
            yield base | {"PREFECT_API_URL": url}
        finally:
            server.terminate()


def ask(url: str, path: str, body: Any = None) -> Any:
    """Ask a Prefect API: POST with a body, else GET. "Database is locked" (503) is asked again."""
    with requests.Session() as session:
        again = Retry(total=8, backoff_factor=0.2, status_forcelist=[503], allowed_methods=None)
        session.mount("http://", HTTPAdapter(max_retries=again))
        whole = f"{url}/{path}"
        answer = (
            session.get(whole, timeout=60)
            if body is None
            else session.post(whole, json=body, timeout=60)
        )
        answer.raise_for_status()
        return answer.json()


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            requests.get(f"{url}/health", timeout=5).raise_for_status()
            return
        except requests.RequestException:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)
