"""A Prefect server of a test's own: a process, a free port, a database that goes with it."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from flows.commands.server import IN_MEMORY, PrefectServer


@contextmanager
def prefect_server(
    folder: Path, database: str = IN_MEMORY, **more: str
) -> Iterator[dict[str, str]]:
    """Start a server and end it; yields the environment of its clients.

    Parameters
    ----------
    folder
        For its log and its clients' PREFECT_HOME.
    more
        Settings in its environment, and in its clients'.
    """
    with PrefectServer(folder, database, **alone_in(folder), **more) as server:
        yield server.environment


def alone_in(folder: Path) -> dict[str, str]:
    """What keeps a server and its clients to themselves, in their environment."""
    return {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def asking(env: Mapping[str, str]) -> requests.Session:
    """A session that may use a server with a password, as its clients' environment says."""
    session = requests.Session()
    if password := env.get("PREFECT_API_AUTH_STRING"):
        basic = base64.b64encode(password.encode()).decode()
        client = str(uuid.uuid4())
        session.headers["Authorization"] = f"Basic {basic}"
        found = session.get(f"{env['PREFECT_API_URL']}/csrf-token?client={client}", timeout=120)
        found.raise_for_status()
        session.headers["Prefect-Csrf-Token"] = found.json()["token"]
        session.headers["Prefect-Csrf-Client"] = client
    return session


def ask(url: str, path: str, body: Any = None, auth: str | None = None) -> Any:
    """Ask a Prefect API: POST with a body, else GET. "Database is locked" (503) is asked again.

    Parameters
    ----------
    auth
        Its auth string, ``user:password``.
    """
    with requests.Session() as session:
        if auth is not None:
            user, _, password = auth.partition(":")
            session.auth = (user, password)
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
