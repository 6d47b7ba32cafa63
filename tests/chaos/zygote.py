"""A process with everything imported that forks one worker for each line it reads, and kills it.

Starting Python and importing takes a second; a fork takes milliseconds, so that a thousand kills
fit into the time that the work itself takes. It must never start a thread of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from tests.chaos.worker import Task, work


class Zygote:
    """The handle on that process; a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def run(self, task: Task, kill_after: float | None) -> tuple[bool, float]:
        """Run a task, killed after so many seconds; returns whether it was, and the seconds."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"task": json.loads(task.as_json()), "kill": kill_after}) + "\n")
        stdin.flush()
        answer = json.loads(stdout.readline())
        return bool(answer["killed"]), float(answer["seconds"])


def main() -> None:
    """Serve lines of JSON until standard input ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_attempt(json.loads(line))) + "\n")
        sys.stdout.flush()


def _attempt(given: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_the_worker(given["task"])
    limit = 120.0 if given["kill"] is None else float(given["kill"])
    left = max(0.0, limit - (time.monotonic() - began))
    ended = signal.sigtimedwait({signal.SIGCHLD}, left) is not None
    if not ended:
        os.killpg(pid, signal.SIGKILL) if _is_leader(pid) else os.kill(pid, signal.SIGKILL)
        signal.sigwait({signal.SIGCHLD})
    _, status = os.waitpid(pid, 0)
    return {
        "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
        "seconds": time.monotonic() - began,
    }


def _is_leader(pid: int) -> bool:
    return os.getpgid(pid) == pid


def _be_the_worker(task: dict[str, Any]) -> None:
    code = 1
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        work(Task(**task))
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
