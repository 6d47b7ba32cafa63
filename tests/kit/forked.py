"""A fork in place of the process that looks at an HDF5 file: the same code, started at once."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import h5py  # noqa: F401  (so that no fork has to)

from lib.formats.hdf5 import structure


class Forked:
    """What `lib.formats.hdf5.structure_client` needs of ``subprocess.Popen``."""

    def __init__(self, *_: Any, **__: Any) -> None:
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            signal.setitimer(signal.ITIMER_REAL, 0)
            try:
                os.close(our_in)
                os.close(our_out)
                sys.stdin = sys.__stdin__ = os.fdopen(their_in, "r")  # type: ignore[misc]
                sys.stdout = sys.__stdout__ = os.fdopen(their_out, "w")  # type: ignore[misc]
                structure.main()
            finally:
                os._exit(0)
        os.close(their_in)
        os.close(their_out)
        self.stdin, self.stdout = os.fdopen(our_out, "wb"), os.fdopen(our_in, "rb")

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode
