"""Running one variant: wall time, CPU seconds, and peak memory of all its processes together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
_POLL_S = 0.025


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took. ``import_s`` is None for programs that are not ours to look into."""

    seconds: float
    cpu_s: float
    peak_mb: float
    import_s: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def run_python(
    target: str, parameters: dict[str, Any], settings: dict[str, str] | None = None
) -> Run:
    """Run ``module:function`` through `benchmarks.child`, `settings` added to its environment.

    Raises
    ------
    RuntimeError
        It failed; the message ends with what it wrote.
    """
    command = [sys.executable, "-m", "benchmarks.child", target, json.dumps(parameters)]
    _, _, peak, output = _run(command, settings)
    answer = json.loads(output.strip().splitlines()[-1])
    return Run(
        answer.pop("seconds"),
        answer.pop("cpu_s"),
        peak,
        answer.pop("import_s"),
        answer,
    )


def run_program(command: list[str], settings: dict[str, str] | None = None) -> Run:
    """Run a program from start to end, `settings` added to its environment.

    Raises
    ------
    RuntimeError
        It failed; the message ends with what it wrote.
    """
    seconds, cpu_s, peak, _ = _run(command, settings)
    return Run(seconds, cpu_s, peak)


def _run(
    command: list[str], settings: dict[str, str] | None = None
) -> tuple[float, float, float, str]:
    # the machine's own S3 settings and certificates have nothing to do with a server beside it
    environment = {name: value for name, value in os.environ.items() if name[:4] != "AWS_"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once
    environment |= settings or {}
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    watch = _Memory(process.pid)
    texts: dict[str, bytes] = {}
    readers = [
        threading.Thread(target=lambda n=n, f=f: texts.__setitem__(n, f.read()))
        for n, f in (("out", process.stdout), ("err", process.stderr))
    ]
    for reader in readers:
        reader.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:  # whoever ends this one must not wait for what it measures
        process.kill()
        raise
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    for reader in readers:
        reader.join()
    peak = watch.stop()
    if process.returncode:
        text = texts["err"].decode(errors="replace")[-3000:]
        raise RuntimeError(f"{command[:4]} ended with {process.returncode}: {text}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return seconds, cpu_s, peak, texts["out"].decode(errors="replace")


class _Memory:
    """Resident memory of a process and its descendants, asked for again and again."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """End the watch; MB of 10^6 bytes."""
        self._over.set()
        self._thread.join()
        return self._peak / 1e6

    def _watch(self) -> None:
        descendants: list[psutil.Process] = []
        turn = 0
        while not self._over.wait(_POLL_S):
            total = 0
            try:
                if turn % 20 == 0:
                    descendants = self._process.children(recursive=True)
                for process in (self._process, *descendants):
                    total += process.memory_info().rss
            except psutil.Error:
                turn = -1
            turn += 1
            self._peak = max(self._peak, total)
