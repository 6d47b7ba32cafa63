"""Sockets that a stop shuts down.

A thread in ``recv`` does not see a stop until the read time-out, minutes later. So every socket
in use is registered here, and one daemon thread shuts them all down when a stop comes; the reads
end at once, and their callers find out why by `lib.concurrency.cancel.check`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref

from lib.concurrency import cancel

_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_lock = threading.Lock()
_watcher: threading.Thread | None = None


def wake_on_stop(sock: socket.socket) -> None:
    """Shut `sock` down when a stop is requested, for as long as it lives."""
    global _watcher
    with _lock:
        _sockets.add(sock)
        # A fork takes the set along but not the thread.
        if _watcher is None or not _watcher.is_alive():
            _watcher = threading.Thread(target=_watch, name="wake-on-stop", daemon=True)
            _watcher.start()


def _watch() -> None:
    global _watcher
    sock: socket.socket | None
    while True:
        cancel.wait_for_stop(cancel.POLL_S)
        with _lock:
            waiting = list(_sockets)
            if not waiting:
                _watcher = None
                return
        if cancel.stop_requested():
            for sock in waiting:
                _shut_down(sock)
            time.sleep(cancel.POLL_S)
        sock, waiting = None, []  # held any longer, closed sockets would never leave the set


def _shut_down(sock: socket.socket) -> None:
    # Not SSLSocket.shutdown, which would take the TLS state away from under the reading thread.
    with contextlib.suppress(OSError, ValueError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
