"""A Prefect server of a test's own: a process, a free port, a database that goes with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from flows.commands.server import PrefectServer as Server

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


class PrefectServer(Server):
    """The same for a test that kills its server: it comes back on its port, with its database."""

    def __init__(self, folder: Path, database: str = IN_MEMORY) -> None:
        self.server_environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        }
        super().__init__(folder, self.server_environment)
        self.environment = self.server_environment | {"PREFECT_API_URL": self.url}

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


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
