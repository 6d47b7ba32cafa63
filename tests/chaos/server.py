"""A Prefect server that starts quickly, for campaigns that kill it often.

``python -m tests.chaos.server`` has everything imported and forks one server for each line it
reads: a start takes two seconds of a processor and not eight.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

from flows.commands.server import PrefectServer
from tests.chaos.pace import Pace
from tests.kit.prefect_server import alone_in


class QuickServer(PrefectServer):
    """A server on a database file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, f"sqlite+aiosqlite:///{folder / 'prefect.db'}", **alone_in(folder))
        with (folder / "server.log").open("a") as log:
            self._zygote = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.server", self.port],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=Path(__file__).parents[2],
                env=self.server_environment,
            )

    def start(self) -> None:
        self._tell("start")

    def kill(self) -> None:
        self._tell("kill")

    def is_running(self) -> bool:
        return self._tell("look") == "running"

    def __exit__(self, *_: object) -> None:
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()  # it takes its server along
        self._zygote.wait(timeout=60)

    def _tell(self, word: str) -> str:
        stdin, stdout = self._zygote.stdin, self._zygote.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(word + "\n")
        stdin.flush()
        return stdout.readline().strip()


class ServerKiller(threading.Thread):
    """Kills a server at random moments, starting ones too, and brings it back after a while."""

    def __init__(
        self, server: QuickServer, chance: random.Random, pace: Pace, kills: int, log: Path
    ) -> None:
        super().__init__(daemon=True)
        self._log = log
        self._server, self._random, self._pace, self._left = server, chance, pace, kills
        self._over = threading.Event()
        self.kills = 0

    def run(self) -> None:
        # Mostly once the run is at work: without a server it does not even begin.
        early = self._random.random() < 0.1
        while not (early or self._at_work() or self._over.is_set()):
            self._over.wait(0.1)
        while self.kills < self._left and not self._over.wait(self._upto(self._pace.server_life)):
            self._server.kill()
            self.kills += 1
            self._over.wait(self._upto(self._pace.server_away))
            self._server.start()
            if self._random.random() < 0.75:
                self._server.wait()

    def end(self) -> None:
        """Kill no more; the server is up afterwards."""
        self._over.set()
        self.join()
        self._server.wait()

    def _at_work(self) -> bool:
        return self._log.exists() and self._log.stat().st_size > 0

    def _upto(self, seconds: float) -> float:
        return self._random.uniform(0.0, seconds)


def main() -> None:
    """Start, kill and look after servers until standard input ends."""
    from prefect.server.api.server import create_app

    app = create_app(final=True)
    child: int | None = None
    started = 0
    for line in sys.stdin:
        if line.strip() == "start":
            child = os.fork()
            if child == 0:
                _serve(app, first=started == 0)
            started += 1
        elif line.strip() == "kill" and child is not None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            child = None
        elif child is not None and os.waitpid(child, os.WNOHANG)[0]:
            child = None
        print("ended" if child is None else "running", flush=True)
    if child is not None:
        os.kill(child, signal.SIGKILL)


def _serve(app: object, *, first: bool) -> None:
    """What ``prefect server start`` does; the tables of a database need to be made only once."""
    import uvicorn
    from prefect.settings import (
        PREFECT_API_BLOCKS_REGISTER_ON_START,
        PREFECT_API_DATABASE_MIGRATE_ON_START,
        temporary_settings,
    )

    os.close(sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # standard output is for answers
    on_start = {PREFECT_API_BLOCKS_REGISTER_ON_START: first}
    try:
        with temporary_settings({**on_start, PREFECT_API_DATABASE_MIGRATE_ON_START: first}):
            uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
