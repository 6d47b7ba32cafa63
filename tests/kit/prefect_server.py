"""A Prefect server of a test's own: a process, a free port, a database that goes with it."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
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
    session = patient()
    if password := env.get("PREFECT_API_AUTH_STRING"):
        session.headers.update(_leave(env["PREFECT_API_URL"], password))
    return session


@cache
def _leave(api: str, password: str) -> dict[str, str]:
    """Headers of one who may write; once, for the server writes each token into its database."""
    client = str(uuid.uuid4())
    basic = {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
    found = patient().get(f"{api}/csrf-token?client={client}", headers=basic, timeout=120)
    found.raise_for_status()
    token = found.json()["token"]
    return basic | {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client}


def ask(url: str, path: str, body: Any = None, auth: str | None = None) -> Any:
    """Ask a Prefect API: POST with a body, else GET. "Database is locked" (503) is asked again.

    Parameters
    ----------
    auth
        Its auth string, ``user:password``.
    """
    with patient() as session:
        if auth is not None:
            user, _, password = auth.partition(":")
            session.auth = (user, password)
        whole = f"{url}/{path}"
        answer = (
            session.get(whole, timeout=120)
            if body is None
            else session.post(whole, json=body, timeout=120)
        )
        answer.raise_for_status()
        return answer.json()


def patient() -> requests.Session:
    """A session that asks again where the database was locked: nothing was done then.

    Each request has a connection of its own. The server closes one that is idle for 5 s, which a
    busy machine makes of any pause, and what was just sent on it is not sent again.
    """
    session = requests.Session()
    again = Retry(total=8, read=0, backoff_factor=0.3, status_forcelist=[503], allowed_methods=None)
    session.mount("http://", HTTPAdapter(max_retries=again))
    session.headers["Connection"] = "close"
    return session


_RECORD = re.compile(r"^(?=\d\d:\d\d:\d\d\.\d+ \|)", re.M)


def without_locks(log: str) -> str:
    """A server's log without the records of a locked database, of which every one is tried again.

    A disk that many tests write to is slow enough for that at any moment.
    """
    return "".join(one for one in _RECORD.split(log) if "database is locked" not in one)
