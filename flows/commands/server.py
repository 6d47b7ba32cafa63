"""A Prefect server for one command, where neither the environment nor a profile names one.

Prefect would start one by itself. That one makes its tables by more than a hundred migrations each
time, which is half of its start; it draws the whole server into the process of the flow; and it
gets every Ctrl-C of the terminal, so that a run could not say any more how it ended.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

import requests

from lib.errors import MacroscopeError
from lib.storage.keys import temporary_name

START_S = 180.0  # 6 s with tables, 13 s without; a loaded machine takes its time
_END_S = 10.0
_ADDRESS = "PREFECT_API_URL"
_DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
_FILE = ":memory:.db"
"""Prefect opens a database with this in its name once only, so that flows that start together do
not wait for each other's locks."""


class PrefectServer:
    """A server in a process of its own, on a free port of this machine.

    Parameters
    ----------
    folder
        For its log, and to work in.
    environment
        Of its process; an address of another server in it is left out.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/api"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {k: v for k, v in environment.items() if k != _ADDRESS}

    def start(self) -> None:
        """Begin to start it; see `wait`."""
        command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui"]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", self.port],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C of the terminal is not for it
            )

    def wait(self) -> None:
        """Wait until it answers.

        Raises
        ------
        MacroscopeError
            It ended, or does not answer.
        """
        deadline = time.monotonic() + START_S
        while True:
            with suppress(requests.RequestException):
                if requests.get(f"{self.url}/health", timeout=5).ok:
                    return
            if not self.is_running() or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace").strip().splitlines()[-3:]
                raise MacroscopeError(
                    "Prefect's server did not start: " + " | ".join(said),
                    location=self.url,
                    advice="Start one with `prefect server start`, and set PREFECT_API_URL",
                )
            time.sleep(0.1)

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
    def _log(self) -> Path:
        return self._folder / "server.log"


class OwnServer:
    """The server that is named, or one that lasts as long as this process.

    It starts as soon as this is made, while the caller goes on; `wait` before the first flow.
    """

    def __init__(self) -> None:
        from prefect.context import refresh_global_settings_context
        from prefect.settings import get_current_settings

        self._server: PrefectServer | None = None
        self._database: Path | None = None
        settings = get_current_settings()
        if settings.api.url is not None:
            return
        folder = Path(tempfile.mkdtemp(prefix="macroscope-prefect-"))
        # at the very end: Prefect's own threads still have something to tell the server then
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        environment = dict(os.environ)
        if _DATABASE not in environment:
            self._database = folder / _FILE
            self._tables = _tables_in(settings.home)
            _take_tables(self._tables, self._database)
            environment[_DATABASE] = f"sqlite+aiosqlite:///{self._database}"
        self._server = PrefectServer(folder, environment)
        atexit.register(self._server.stop)
        self._server.start()
        os.environ[_ADDRESS] = self._server.url
        refresh_global_settings_context()

    def wait(self) -> None:
        """Wait until the server answers; see `PrefectServer.wait`."""
        if self._server is None:
            return
        self._server.wait()
        if self._database is not None:
            _keep_tables(self._database, self._tables)


def _tables_in(home: Path) -> Path:
    """Where the tables of this version's servers are kept, without any content."""
    import prefect

    return home / f"macroscope-tables-{prefect.__version__}.db"


def _take_tables(tables: Path, database: Path) -> None:
    """Begin a database with tables that an earlier server made; without them it makes its own."""
    with suppress(OSError):
        shutil.copyfile(tables, database)
    try:
        with closing(sqlite3.connect(database)) as copy:
            whole = copy.execute("PRAGMA quick_check").fetchone() == ("ok",)
    except sqlite3.Error:
        whole = False
    if not whole:
        for path in (database, tables):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _keep_tables(database: Path, tables: Path) -> None:
    """Keep the tables of a server that has just started, for those to come."""
    if tables.exists():
        return
    part = tables.with_name(temporary_name(tables.name, "tmp"))
    with suppress(OSError, sqlite3.Error):  # the next server makes them once more
        try:
            tables.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(database)) as made, closing(sqlite3.connect(part)) as kept:
                made.backup(kept)
            os.replace(part, tables)
        finally:
            part.unlink(missing_ok=True)
