"""A PostgreSQL and a Redis of a test's own, on loopback ports, from the machine's packages."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lib.transport.environment import free_ports

_START_S = 180


def _program(name: str) -> str | None:
    """Where a program is: Debian keeps PostgreSQL's own out of the PATH."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(kept[-1]) if kept else shutil.which(name)


def _found(name: str) -> str:
    return _program(name) or name


def why_not() -> str | None:
    """Why neither can be started here."""
    wanted = ("initdb", "postgres", "pg_dump", "pg_restore", "redis-server", "redis-cli")
    missing = [name for name in wanted if _program(name) is None]
    return f"not installed here: {', '.join(missing)}" if missing else None


class PostgreSQL:
    """A server that runs, with one database ``prefect`` of a user of that name."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"postgresql+asyncpg://prefect:secret@127.0.0.1:{port}/prefect"

    def run(self, name: str, *arguments: str) -> str:
        """What one of its client programs prints: ``psql``, ``pg_dump``, ``dropdb``, ..."""
        where = ["--host=127.0.0.1", f"--port={self.port}", "--username=prefect"]
        done = subprocess.run([_found(name), *where, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        return done.stdout


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Start a server with its data in a folder of its own, and end it."""
    become: list[str] = []
    # not below pytest's folder, which every session closes to other users
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name, ExitStack() as stack:
        folder = Path(name)
        if os.geteuid() == 0:  # which it refuses to run as
            shutil.chown(folder, "postgres")
            become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        data = folder / "data"
        made = [_found("initdb"), f"--pgdata={data}", "--username=prefect", "--auth=trust"]
        done = subprocess.run([*become, *made], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (port,) = free_ports("127.0.0.1", 1)
        served = [_found("postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port)]
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            [*become, *served, "-k", name], cwd=folder, stdout=log, stderr=log
        )
        try:
            server = PostgreSQL(port)
            ready = [_found("pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
            _wait([*ready, "-U", "prefect", "-d", "postgres"], process)
            server.run("createdb", "prefect")
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # without waiting for its clients
            process.wait(_START_S)


@contextmanager
def redis(folder: Path, password: str) -> Iterator[str]:
    """Start a server that asks for a password; yields its URL."""
    folder.mkdir(parents=True)
    (port,) = free_ports("127.0.0.1", 1)
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--requirepass", password], cwd=folder, stdout=log, stderr=log
        )
    try:
        _wait(["redis-cli", "-p", str(port), "ping"], process)
        yield f"redis://:{password}@127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(_START_S)


def _wait(asking: list[str], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while subprocess.run(asking, capture_output=True).returncode != 0:
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline, f"it did not start: {asking}"
        time.sleep(0.2)
