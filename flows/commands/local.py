"""``macroscope up`` and ``macroscope down``: a Prefect server with its UI, a work pool, a worker.

Everything runs on this machine, in the background, below one folder; ``down`` ends it all. Whoever
may read that folder may use the server: its password lies in `CLIENT`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flows.commands import server
from flows.commands.server import answers, comes_true
from lib.config.errors import suggestion
from lib.errors import ConfigError, MacroscopeError
from lib.present.output import say

STATE = Path(".macroscope")
CLIENT = "client.env"
"""In `STATE`: what a shell has to source to use the server."""
POOL = "macroscope"
_ARCHIVES = ("samples", "public")
_PATIENCE_S = 300.0  # with what starts: a server took 95 s where eight others were at work


def up(*, port: int, archives: str) -> int:
    """Start what is not running yet, and say how to reach it.

    Raises
    ------
    ConfigError
        There are no such archives.
    """
    if archives not in _ARCHIVES:
        raise ConfigError(
            f"--archives {archives!r}: {suggestion(archives, _ARCHIVES)}",
            location="archives",
            advice="samples are stand-ins on this machine, public the archives themselves",
        )
    STATE.mkdir(mode=0o700, exist_ok=True)
    url = f"http://127.0.0.1:{port}/api"
    password = _password()
    clients = {"PREFECT_API_URL": url, **server.guarded_client(password)}
    env = {
        **os.environ,
        **clients,
        "PREFECT_HOME": str(STATE.resolve() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    path = STATE / CLIENT
    path.unlink(missing_ok=True)
    # readable by its owner only, from the first byte on
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in clients.items())
    server_env = {
        "PREFECT_SERVER_UI_V2_ENABLED": "false",  # that page tells somebody's analytics of its use
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        **env,
        # in `STATE`: a server that is started again still knows whose slots are taken
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": server.LEASES_ON_DISK,
        "PREFECT_UI_API_URL": "/api",  # the page asks the address that it came from
        **server.guarded_server(port, password),
    }
    _start("server", [_tool("prefect"), "server", "start", "--port", str(port)], server_env)
    _until(lambda: answers(url), "the Prefect server")
    if archives == "samples":
        _start("samples", [_tool("macroscope"), "samples", "--root", str(STATE / "samples")], env)
        services = STATE / "samples.out"
        _until(lambda: bool(json.loads(services.read_text())), "the stand-in archives")
        env["EM_SERVICES"] = str(services.resolve())
    env["EM_ARCHIVES"] = archives
    pool = [_tool("prefect"), "work-pool", "create", POOL, "--type", "process", "--overwrite"]
    subprocess.run(pool, env=env, check=True, stdout=subprocess.DEVNULL)
    worker = [_tool("prefect"), "worker", "start", "--pool", POOL, "--type", "process"]
    _start("worker", worker, env)
    say(f"Prefect UI     http://127.0.0.1:{port}")
    say(f"Password       {password}")
    say(f"Next           source {STATE / CLIENT}")
    say("               macroscope deploy && prefect deployment run macroscope/full --watch")
    return 0


def _password() -> str:
    """The server's password: the one that was chosen, that of the last time, or a new one.

    It stays the same, so that shells and browsers that know it can go on.
    """
    chosen = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    if chosen:
        return chosen
    try:
        told = (STATE / CLIENT).read_text()
    except FileNotFoundError:
        return server.new_password()
    found = re.search(r"^export PREFECT_API_AUTH_STRING=(.+)$", told, re.MULTILINE)
    return shlex.split(found[1])[0] if found else server.new_password()


def down() -> int:
    """End what `up` started, the worker first so that it can hand back its runs."""
    ended = 0
    for name in ("worker", "samples", "server"):
        note = STATE / f"{name}.pid"
        if note.exists():
            _end(int(note.read_text()))
            note.unlink()
            say(f"stopped {name}")
            ended += 1
    if not ended:
        say("nothing runs here that `macroscope up` started from this folder", error=True)
    return 0


def _start(name: str, command: list[str], env: dict[str, str]) -> None:
    note = STATE / f"{name}.pid"
    if note.exists() and _alive(int(note.read_text())):
        return
    with (STATE / f"{name}.out").open("w") as out, (STATE / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            start_new_session=True,
        )
    note.write_text(str(process.pid))


def _until(ready: Callable[[], bool], what: str) -> None:
    if not comes_true(ready, _PATIENCE_S):
        raise MacroscopeError(
            f"{what} did not start within {_PATIENCE_S:.0f} s",
            location=str(STATE.resolve()),
            advice="See the logs in that folder",
        )


def _end(pid: int) -> None:
    """SIGTERM to the whole session; SIGKILL where that is not heard."""
    for sign, patience in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(pid, sign)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not _alive(pid):
                return
            time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        done, _ = os.waitpid(pid, os.WNOHANG)
        if done:
            return False
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
        told = Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):  # of one that ended between the two
        return False
    return not told.split(") ")[1].startswith("Z")


def _tool(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise MacroscopeError(f"the command {name} is not installed")
    return found
