"""Runs pytest in forks of a process that has imported what takes long, and nothing of ours.

A mutant's tests take a fraction of a second, Python's start with numba, zarr and hypothesis takes
two. ``forkserver.py serve SOCKET`` waits; ``forkserver.py ask SOCKET ARGUMENTS`` ends as the tests
do.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
import sys
from contextlib import suppress

SLOW_IMPORTS = (
    "pytest", "hypothesis.stateful", "numpy", "numba", "zarr", "tensorstore", "numcodecs",
    "pydantic", "jsonschema", "ome_zarr_models.v05.image", "google_crc32c", "boto3", "obstore",
    "starlette.applications", "uvicorn", "aiohttp", "requests", "tifffile", "pyftpdlib.handlers",
)  # fmt: skip


def serve(address: str) -> None:
    """Fork for each caller; a caller that hangs up has its fork killed."""
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    sys.path.insert(0, os.getcwd())
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    while True:
        caller, _ = listening.accept()
        arguments = caller.recv(65536).decode().split("\0")
        child = os.fork()
        if child == 0:
            run(arguments)
        end = os.pidfd_open(child)
        select.select([end, caller], [], [])  # the tests ended, or the caller gave up
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(end)
        with suppress(OSError):  # nobody waits for it any more
            caller.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        caller.close()


def run(arguments: list[str]) -> None:
    """Run the tests and end this process with their exit code."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    import pytest

    try:
        code = int(pytest.main(arguments))
    except BaseException:
        code = 99
    os._exit(code)


def ask(address: str, arguments: list[str]) -> int:
    """Let the server run the tests; their exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        server.sendall("\0".join(arguments).encode())
        return int(server.recv(100) or b"98")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(sys.argv[2], sys.argv[3:]))
