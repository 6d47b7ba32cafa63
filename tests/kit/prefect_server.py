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
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

START_S = 180  # a loaded machine takes its time


IN_MEMORY = "sqlite+aiosqlite:///:memory:"
"""What a server forgets when it ends; on a file, runs at once wait for each other's locks."""


@contextmanager
def prefect_server(folder: Path, database: str = IN_MEMORY) -> Iterator[dict[str, str]]:
    """Start a server and end it; yields the environment of its clients.

    Parameters
    ----------
    folder
        For its log and its clients' PREFECT_HOME.
    """
    with PrefectServer(folder, database) as server:
        yield server.environment


class PrefectServer:
    """The same for a test that kills its server: it comes back on its port, with its database."""

    def __init__(self, folder: Path, database: str = IN_MEMORY) -> None:
        base = {
            **os.environ,
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        }
        base.pop("PREFECT_API_URL", None)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        self._folder, self.server_environment = folder, base
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.environment = base | {"PREFECT_API_URL": self.url}

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_healthy()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def start(self) -> None:
        """Begin to start it; see `wait_until_healthy`."""
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", self.port]
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=self.server_environment, stderr=log, stdout=log
            )

    def kill(self) -> None:
        """SIGKILL, at whatever it is doing."""
        self._process.kill()
        self._process.wait()

    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self._process.poll() is None

    def wait_until_healthy(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                requests.get(f"{self.url}/health", timeout=5).raise_for_status()
                return
            except requests.RequestException:
                assert self.is_running(), "the server ended"
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.2)


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
