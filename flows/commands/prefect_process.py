"""The process in which a Prefect server runs that must not outlive whoever started it.

A program, not a module: `flows.commands.server` runs it by its path, with the read end of a pipe as
standard input. The pipe closes when the process at its other end closes it, or dies, however it
died. A server left behind would keep its memory, its port and the environment of the run.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time

GRACE_S = 10.0


def main(port: str, *rubbish: str) -> None:
    """Serve on a port of this machine until standard input ends.

    Parameters
    ----------
    rubbish
        Folders to delete then: nobody else is left to do it.
    """
    threading.Thread(target=_follow, args=(sys.stdin.fileno(), rubbish), daemon=True).start()
    import uvicorn

    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
        lifespan="on",
    )


def _follow(pipe: int, rubbish: tuple[str, ...]) -> None:
    """End with the process at the other end of a pipe."""
    while os.read(pipe, 1024):
        pass
    for folder in rubbish:
        shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
