"""One run per volume on an object store: a lease object that its holder keeps renewing.

Taking, renewing and taking over are conditional writes, so that of two runs exactly one succeeds.
Ages are told by the server's clock alone: the clocks of two hosts need not agree.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from lib.concurrency import cancel as stopping
from lib.errors import AlreadyExistsError, DestinationError, MacroscopeError, NotFoundError
from lib.storage.keys import byte_views, lock_key
from lib.storage.local_lock import busy, describe_holder
from lib.storage.s3_objects import Found, S3Objects

_BEATS = 6  # renewals within one term: five may fail before the lease is in danger


class Lease:
    """A lease on `key` for `holder`; a context manager.

    A second run watches for at most one term: it gives up as soon as the holder renews, and takes
    over when it does not. A holder killed on this very machine is found out at once.
    """

    def __init__(
        self, objects: S3Objects, key: str, holder: str, on_loss: Callable[[], None]
    ) -> None:
        self.key = key
        self._objects = objects
        self._name = lock_key(key, ".lease")
        self._seconds = objects.settings.lease_seconds
        self._about = {
            **describe_holder(holder),
            "nonce": secrets.token_hex(8),
            "process": process_identity(os.getpid()),
        }
        self._renewals = 0
        self._etag = ""
        self._renewed = 0.0
        self._on_loss = on_loss
        self._lost = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {key}", daemon=True)

    def __enter__(self) -> None:
        self._take()
        try:
            self._require_conditions()
        except MacroscopeError:
            with suppress(MacroscopeError):
                self._objects.delete([self._name])
            raise
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._lost and kind is None:
            raise self._busy()
        # Past half a term it might be another run's by now, and there is no conditional delete.
        if not self._lost and time.monotonic() - self._renewed < self._seconds / 2:
            with suppress(MacroscopeError):
                self._objects.delete([self._name])

    # --- taking

    def _take(self) -> None:
        seen = None
        while True:
            with suppress(AlreadyExistsError):
                return self._write(None)
            found = self._read()
            if found is None:
                continue
            if self._abandoned(found):
                with suppress(AlreadyExistsError):
                    return self._write(found.etag)
                continue
            if seen is not None and found.etag != seen:
                raise busy(self.key, _parse(found), self._objects.where(self._name))
            seen = found.etag
            stopping.sleep(self._seconds / _BEATS / 2)

    def _abandoned(self, found: Found) -> bool:
        other = _parse(found)
        if other is not None and is_dead(other.get("process")):
            return True
        # One second more, because the server's times are in whole seconds.
        return (self._server_time() - found.written).total_seconds() > self._seconds + 1

    def _server_time(self) -> datetime:
        probe = f"{self._name}.{secrets.token_hex(6)}"
        self._objects.put(probe, byte_views(b"?"))
        try:
            return self._objects.get(probe).written
        finally:
            self._objects.delete([probe])

    def _require_conditions(self) -> None:
        """A server that ignores conditions would let every run in."""
        try:
            self._objects.put_if(self._name, byte_views(b"?"), None)
        except AlreadyExistsError:
            return
        raise DestinationError(
            "the object store ignores conditional writes, so two runs cannot be kept apart",
            location=self._objects.where(self._name),
            advice="Use a store that honours If-None-Match (AWS, MinIO, SeaweedFS, Ceph)",
        )

    # --- keeping

    def _beat(self) -> None:
        while not self._done.wait(self._seconds / _BEATS):
            try:
                self._write(self._etag)
                continue
            except AlreadyExistsError:
                if self._still_ours():
                    continue
            except MacroscopeError:
                if time.monotonic() - self._renewed < self._seconds:
                    continue
            self._lost = True
            self._on_loss()
            return

    def _still_ours(self) -> bool:
        """Whether an earlier renewal went through although its answer was lost."""
        try:
            found = self._read()
        except MacroscopeError:
            return time.monotonic() - self._renewed < self._seconds
        other = _parse(found) if found else None
        if found is None or other is None or other.get("nonce") != self._about["nonce"]:
            return False
        self._etag, self._renewed = found.etag, time.monotonic()
        return True

    def _write(self, etag: str | None) -> None:
        self._renewals += 1  # every renewal differs, so that its entity tag does
        body = json.dumps({**self._about, "renewals": self._renewals}).encode()
        started = time.monotonic()
        attempts = 1 if self._thread.is_alive() else None
        self._etag = self._objects.put_if(self._name, byte_views(body), etag, attempts=attempts)
        self._renewed = started

    def _read(self) -> Found | None:
        try:
            return self._objects.get(self._name)
        except NotFoundError:
            return None

    def _busy(self) -> DestinationError:
        found = None
        with suppress(MacroscopeError):
            found = self._read()
        return busy(self.key, _parse(found) if found else None, self._objects.where(self._name))


def _parse(found: Found) -> dict[str, Any] | None:
    try:
        about = json.loads(found.data)
    except ValueError:
        return None
    return about if isinstance(about, dict) else None


def process_identity(pid: int) -> list[str] | None:
    """What tells a process from every other of all machines; None where /proc does not say.

    Machine boot, process id name space, id, and start time in clock ticks since boot (field 22 of
    ``/proc/PID/stat``, see proc_pid_stat(5)).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink("/proc/self/ns/pid")
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = state.rpartition(")")[2].split()  # the name before may hold anything
    return [boot, space, str(pid), "ended" if fields[0] in "ZX" else fields[19]]


def is_dead(identity: object) -> bool:
    """Whether that process ran in this machine's name space and is gone; False if in doubt."""
    here = process_identity(os.getpid())
    if not isinstance(identity, list) or len(identity) != 4 or here is None:
        return False
    if identity[:2] != here[:2] or not str(identity[2]).isdigit():
        return False
    return process_identity(int(identity[2])) != identity
