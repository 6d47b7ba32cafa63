"""A Prefect server for one command, where neither the environment nor a profile names one.

Prefect would start one by itself. That one makes its tables by more than a hundred migrations each
time, which is half of its start; it draws the whole server into the process of the flow; and it
gets every Ctrl-C of the terminal, so that a run could not say any more how it ended.

Its API can start programs through a worker, and as Prefect ships it, it answers every origin and
every host name, so that any page that is open in a browser of this machine may ask it to. The
servers that macroscope starts answer whoever knows their password, and nobody else.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Self

import requests

from flows.commands import prefect_process
from lib.errors import MacroscopeError
from lib.storage.keys import temporary_name
from lib.storage.local import LocalStore
from lib.storage.local_lock import scratch_folder
from lib.transport.environment import free_ports


def new_password() -> str:
    """A password of 192 random bits."""
    return secrets.token_urlsafe(24)


def guarded_server(port: int | str, password: str) -> dict[str, str]:
    """Environment of a server: a password, CSRF tokens, and no other origin than its own.

    Parameters
    ----------
    port
        Where it listens on this machine.
    """
    own = ",".join(f"http://{name}:{port}" for name in ("127.0.0.1", "localhost"))
    return {
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": own,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
    }


def guarded_client(password: str) -> dict[str, str]:
    """Environment of a client of such a server."""
    return {"PREFECT_API_AUTH_STRING": password, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true"}


_START_S = 300.0  # 6 s with tables, 13 s without, 95 s where eight others were at work
_END_S = 10.0
_ADDRESS = "PREFECT_API_URL"
_DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
IN_MEMORY = "sqlite+aiosqlite:///:memory:"
"""What a server forgets when it ends; on a file, runs at once wait for each other's locks."""
LEASES_ON_DISK = "prefect.server.concurrency.lease_storage.filesystem"
"""Where a server whose database outlives it keeps its leases, below PREFECT_HOME. Otherwise the
slots that were taken as it ended stay taken for ever."""
_FILE = ":memory:.db"
"""Prefect opens a database with this in its name once only, so that flows that start together do
not wait for each other's locks."""
_FOR_ONE_RUN = {
    "PREFECT__SERVER_EPHEMERAL": "1",  # no scheduler, and nothing else that looks after workers
    "PREFECT__SERVER_FINAL": "1",
    # Registering the block types imports every integration, which is half of a server's start.
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}
"""Of a server that only one run asks, and that is gone after it."""
_WITH_TABLES = {"PREFECT_API_DATABASE_MIGRATE_ON_START": "false"}


class PrefectServer:
    """A server in a process of its own, on a free port of this machine; it ends with this process.

    Parameters
    ----------
    folder
        For its log, and to work in.
    database
        Its address, as SQLAlchemy has them.
    password
        What its clients have to know; None lets everybody in who reaches it.
    settings
        Added to the server's environment only.
    rubbish
        Folders that the server deletes where this process was killed and cannot.
    more
        Added to this process's environment, for the server and its clients.

    Attributes
    ----------
    environment
        Of its clients.
    """

    def __init__(
        self,
        folder: Path,
        database: str = IN_MEMORY,
        *,
        password: str | None = None,
        settings: Mapping[str, str] | None = None,
        rubbish: tuple[Path, ...] = (),
        **more: str,
    ) -> None:
        self.port = str(*free_ports("127.0.0.1", 1))
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.client_settings = {_ADDRESS: self.url}
        self._server_settings = {"PREFECT_SERVER_UI_ENABLED": "false", **(settings or {})}
        if password is not None:
            self.client_settings |= guarded_client(password)
            self._server_settings |= guarded_server(self.port, password)
        self.environment = {**os.environ, **more, _DATABASE: database, **self.client_settings}
        self._folder, self._rubbish = folder, [str(path) for path in rubbish]
        self._process: subprocess.Popen[bytes] | None = None

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

    def start(self) -> None:
        """Begin to start it; see `wait`."""
        # -P: the folder of that program is no place to import from
        command = [sys.executable, "-P", str(Path(prefect_process.__file__).resolve())]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*command, self.port, *self._rubbish],
                cwd=self._folder,
                env=self.server_environment,
                stdin=subprocess.PIPE,  # never written to: it closes when this process ends
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C of the terminal is not for it
            )

    def wait(self) -> None:
        """Wait until it answers. Raises `MacroscopeError`: it ended, or does not answer."""
        if comes_true(lambda: answers(self.url), _START_S, meanwhile=self.is_running):
            return
        said = self._log.read_text(errors="replace").strip().splitlines()[-3:]
        raise MacroscopeError(
            "Prefect's server did not start: " + " | ".join(said),
            location=self.url,
            advice="Start one with `prefect server start`, and set PREFECT_API_URL",
        )

    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it, and wait for that; one that was not started has ended."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, at whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def server_environment(self) -> dict[str, str]:
        """Of its own process: it is no client."""
        mine = {k: v for k, v in self.environment.items() if k not in self.client_settings}
        return {**mine, **self._server_settings}

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"


def start_own_server() -> Callable[[], None]:
    """Start a server that lasts as long as this process, unless one is named.

    It starts while the caller goes on; what is returned waits until it answers (see
    `PrefectServer.wait`), and is to be called before the first flow.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url is not None:
        return lambda: None
    ends = ExitStack()
    folder = ends.enter_context(scratch_folder("prefect"))
    # at the very end: Prefect's own threads still have something to tell the server then
    atexit.register(ends.close)
    database, tables = folder / _FILE, _tables_in(settings.home)
    given, own = os.environ.get(_DATABASE), dict(_FOR_ONE_RUN)
    if given is None and _take_tables(tables, database):
        own |= _WITH_TABLES
    server = PrefectServer(
        folder,
        given or f"sqlite+aiosqlite:///{database}",
        password=new_password(),
        settings=own,
        rubbish=(folder,),
    )
    atexit.register(server.stop)
    server.start()
    os.environ.update(server.client_settings)
    refresh_global_settings_context()

    def wait() -> None:
        server.wait()
        if given is None:
            _keep_tables(database, tables)

    return wait


def answers(url: str) -> bool:
    """Whether a Prefect server does; `OSError` where there is none."""
    return requests.get(f"{url}/health", timeout=5).ok


def comes_true(
    question: Callable[[], bool], seconds: float, *, meanwhile: Callable[[], bool] = lambda: True
) -> bool:
    """Ask until the answer is yes; no where `meanwhile` is not, or the time is over.

    A question that cannot be asked yet (`OSError`, `ValueError`) is asked again.
    """
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError, ValueError):
            if question():
                return True
        if not meanwhile() or time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def _tables_in(home: Path) -> Path:
    """Where the tables of this version's servers are kept, without any content."""
    import prefect

    return home / f"macroscope-tables-{prefect.__version__}.db"


def _take_tables(tables: Path, database: Path) -> bool:
    """Begin a database with tables that an earlier server made.

    Returns
    -------
    bool
        Whether they are there; without them a server has to make its own.
    """
    try:
        shutil.copyfile(tables, database)
        with closing(sqlite3.connect(database)) as copy:
            whole = bool(copy.execute("PRAGMA quick_check").fetchone() == ("ok",))
            whole = whole and copy.execute("SELECT 1 FROM alembic_version").fetchone() is not None
    except (OSError, sqlite3.Error):
        whole = False
    if not whole:
        for path in (database, tables):
            with suppress(OSError):
                path.unlink(missing_ok=True)
    return whole


def _keep_tables(database: Path, tables: Path) -> None:
    """Keep the tables of a server that has just started, for those to come."""
    if tables.exists():
        return
    part = tables.with_name(temporary_name(tables.name, "tmp"))
    with suppress(OSError, sqlite3.Error):  # the next server makes them once more
        LocalStore(tables.parent).sweep_abandoned()
        try:
            tables.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(database)) as made, closing(sqlite3.connect(part)) as kept:
                made.backup(kept)
            os.replace(part, tables)
        finally:
            part.unlink(missing_ok=True)
