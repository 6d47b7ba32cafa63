"""A process with everything imported that forks one worker for each line it reads, and kills it.

Starting Python and importing takes a second; a fork takes milliseconds, so that a thousand kills
fit into the time that the work itself takes. It must never start a thread of its own.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from lib.archives.registry import archive
from tests.chaos.pausing import ANY_MOMENT, Pause, stop_at
from tests.chaos.worker import Task, work

_PATIENCE_S = 300.0  # with a run that nobody kills


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

    def warm_up(self, task: Task) -> None:
        """Run a task in the zygote itself: what it imports and compiles, its forks need not.

        Raises
        ------
        RuntimeError
            A thread is left afterwards, so that forks would not be safe.
        """
        threads = self._ask({"task": task, "warm": True})["threads"]
        if threads:
            raise RuntimeError(f"the zygote has these threads after its warm-up: {threads}")

    def run(self, task: Task, kill_after: float | None) -> tuple[bool, float]:
        """Run a task, killed after so many seconds; returns whether it was, and the seconds."""
        answer = self._ask({"task": task, "kill": kill_after})
        return bool(answer["killed"]), float(answer["seconds"])

    def run_until(self, task: Task, pause: Pause) -> int | None:
        """Run a task until it stops itself where `pause` says; its process, None where it ended."""
        answer = self._ask({"task": task, "pause": asdict(pause)})
        return None if answer["pid"] is None else int(answer["pid"])

    def go_on(self, pid: int, task: Task) -> float:
        """Let a stopped process go on until it ends; returns the seconds that it took."""
        return float(self._ask({"task": task, "go_on": pid})["seconds"])

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({**question, "task": asdict(question["task"])}) + "\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        return answer


def main() -> None:
    """Serve lines of JSON until standard input ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in sys.stdin:
        given = json.loads(line)
        if given.get("warm"):
            answer = _warm_up(given["task"])
        elif "pause" in given:
            answer = _until_stopped(given)
        elif "go_on" in given:
            answer = _go_on(int(given["go_on"]))
        else:
            answer = _attempt(given)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _warm_up(task: dict[str, Any]) -> dict[str, Any]:
    work(Task(**task))
    archive("openorganelle")  # its client starts threads that never end: no more than an import
    import_module("lib.storage.s3")
    deadline = time.monotonic() + _PATIENCE_S
    while threading.active_count() > 1 and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.1)
    return {"threads": [thread.name for thread in threading.enumerate()][1:]}


def _attempt(given: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_the_worker(given["task"])
    limit = _PATIENCE_S if given["kill"] is None else float(given["kill"])
    status = _wait(pid, began + limit)
    if status is None:
        os.killpg(pid, signal.SIGKILL) if _is_leader(pid) else os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return {
        "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
        "seconds": time.monotonic() - began,
    }


def _until_stopped(given: dict[str, Any]) -> dict[str, Any]:
    pause = Pause(**given["pause"])
    pid = os.fork()
    if pid == 0:
        _be_the_worker(given["task"], pause)
    deadline = time.monotonic() + (pause.after if pause.point == ANY_MOMENT else _PATIENCE_S)
    status = _wait(pid, deadline, os.WUNTRACED)
    if status is None:
        os.kill(pid, signal.SIGSTOP)
        status = _wait(pid, time.monotonic() + _PATIENCE_S, os.WUNTRACED)
    return {"pid": pid if status is not None and os.WIFSTOPPED(status) else None}


def _go_on(pid: int) -> dict[str, Any]:
    began = time.monotonic()
    os.kill(pid, signal.SIGCONT)
    if _wait(pid, began + _PATIENCE_S) is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return {"seconds": time.monotonic() - began}


def _wait(pid: int, deadline: float, options: int = 0) -> int | None:
    """The child's status, or None where it still runs at the deadline."""
    while True:
        # Looked at each time: the signal also comes when somebody pauses the child.
        ended, status = os.waitpid(pid, os.WNOHANG | options)
        if ended:
            return status
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        signal.sigtimedwait({signal.SIGCHLD}, left)


def _is_leader(pid: int) -> bool:
    return os.getpgid(pid) == pid


def _be_the_worker(task: dict[str, Any], pause: Pause | None = None) -> None:
    code = 1
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        if pause is not None:
            stop_at(pause)
        work(Task(**task))
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
