"""A fork in place of the process that looks at an HDF5 file: the same code, started at once."""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import h5py  # noqa: F401  (so that no fork has to)

from lib.formats.hdf5 import format as hdf5_format
from lib.formats.hdf5 import structure

_QUESTIONS = 200  # of one fork: its time is bounded as that of the process that it stands for
_ENDS_S = 0.2


def _close_all_but(*kept: int) -> None:
    """What a fork inherited: the pipe whose end a stand-in waits for would never end."""
    for before, after in itertools.pairwise([*sorted(kept), os.sysconf("SC_OPEN_MAX")]):
        os.closerange(before + 1, after)


class _Worker:
    """A fork that answers one question after another, until one ends it."""

    def __init__(self) -> None:
        their_in, self.question = os.pipe()
        self.answer, their_out = os.pipe()
        self.done, their_done = os.pipe()
        self.left = _QUESTIONS
        self.pid = os.fork()
        if self.pid == 0:
            signal.setitimer(signal.ITIMER_REAL, 0)
            try:
                _close_all_but(0, 1, 2, their_in, their_out, their_done)
                while True:
                    # kept: a text file that nobody holds closes what lies below it
                    kept = os.fdopen(os.dup(their_in), "r"), os.fdopen(os.dup(their_out), "w")
                    sys.stdin, sys.stdout = kept
                    structure.main()
                    os.write(their_done, b".")
            finally:
                os._exit(0)
        for theirs in (their_in, their_out, their_done):
            os.close(theirs)

    def idle(self) -> bool:
        """Whether it has answered, and may be asked again."""
        self.left -= 1
        ready, _, _ = select.select([self.done], [], [], _ENDS_S)
        if not ready or os.read(self.done, 1) != b"." or self.left <= 0:
            return False
        return not select.select([self.answer], [], [], 0)[0]  # nobody heard it

    def close(self) -> None:
        for ours in (self.question, self.answer, self.done):
            os.close(ours)


_idle: list[_Worker] = []


class Forked:
    """What `lib.formats.hdf5.format` needs of ``subprocess.Popen``."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._worker: _Worker | None = _idle.pop() if _idle else _Worker()
        self.returncode: int | None = None
        self.stdin = os.fdopen(os.dup(self._worker.question), "wb")
        self.stdout = os.fdopen(os.dup(self._worker.answer), "rb")

    def kill(self) -> None:
        if self._worker is not None and self.returncode is None:
            if self._worker.idle():
                _idle.append(self._worker)
                self._worker, self.returncode = None, 0
            else:
                os.kill(self._worker.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self._worker is not None:
            _, status = os.waitpid(self._worker.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
            self._worker.close()
            self._worker = None
        return self.returncode or 0


@contextmanager
def structure_in_forks() -> Iterator[None]:
    """Look at HDF5 files in forks, which end with this."""
    ours = SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)
    with patch.object(hdf5_format, "subprocess", ours):
        yield
    while _idle:
        worker = _idle.pop()
        os.kill(worker.pid, signal.SIGKILL)
        os.waitpid(worker.pid, 0)
        worker.close()
