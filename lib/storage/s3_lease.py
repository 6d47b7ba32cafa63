"""One run per volume on an object store: a lease object that its holder keeps renewing.

Taking, renewing and taking over are conditional writes, so that of two runs exactly one succeeds.
Ages are told by the server's clock alone: the clocks of two hosts need not agree. How long a lease
still lasts is told to the store's `Fence` by the holder's own clock, from before the renewal was
sent; it ends there at least a second before another run may take over.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from lib.concurrency import cancel as stopping
from lib.errors import AlreadyExistsError, DestinationError, MacroscopeError, NotFoundError
from lib.storage.base import Fence, StoredObject, clock
from lib.storage.keys import byte_views, lock_key
from lib.storage.local_lock import busy, describe_holder
from lib.storage.s3_objects import ReadObject, S3Objects
from lib.storage.s3_writes import S3Writes

LONGEST_LEASE_S = 3600.0  # that `dest_lease_seconds` may set
BEATS = 6  # renewals within one term: five may fail before the lease is in danger


class Lease:
    """A lease on `key` for `holder`; a context manager, and the `Term` of what is written under it.

    A second run watches for at most one term: it gives up as soon as the holder renews, and takes
    over when it does not. A holder killed on this very machine is found out at once.

    Parameters
    ----------
    writes
        Without a fence: renewing a lease needs none.
    fence
        Of the store that is written to under this lease.
    """

    def __init__(
        self, objects: S3Objects, writes: S3Writes, fence: Fence, key: str, holder: str
    ) -> None:
        self.key = key
        self._objects, self._writes, self._fence = objects, writes, fence
        self._name = lock_key(key, ".lease")
        self._seconds = objects.settings.lease_seconds
        self._about = {
            **describe_holder(holder),
            "nonce": secrets.token_hex(8),
            "process": process_identity(os.getpid()),
            "seconds": self._seconds,
        }
        self._renewals = 0
        self._etag = ""
        self._renewed = 0.0
        self._lost = False
        self._renewing = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {key}", daemon=True)

    def __enter__(self) -> None:
        self._take()
        try:
            self._require_conditions()
        except MacroscopeError:
            with suppress(MacroscopeError):
                self._delete()
            raise
        self._fence.add(self.key, self)
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self.left() <= 0:  # stays in the fence: nothing more is written
            if kind is None:
                raise self._busy()
            return
        self._fence.remove(self.key)
        # Past half a term it might be another run's by now, and not every server compares versions.
        if clock() - self._renewed < self._seconds / 2:
            with suppress(MacroscopeError):
                self._delete()

    def left(self) -> float:
        """Seconds until the lease ends by our clock; 0 when it is over or another run's.

        Where the term has passed, as after a pause, it is renewed if nobody took it meanwhile.
        """
        seconds = self._renewed + self._seconds - clock()
        if seconds > 0 or self._lost:
            return 0.0 if self._lost else seconds
        with self._renewing:
            if not self._lost and self._renewed + self._seconds <= clock():
                self._renew()
        return 0.0 if self._lost else self._renewed + self._seconds - clock()

    # --- taking

    def _take(self) -> None:
        seen = None
        while True:
            with suppress(AlreadyExistsError):
                return self._write("")
            found = self._read()
            if found is None:
                continue
            if self._abandoned(found):
                with suppress(AlreadyExistsError):
                    return self._write(found.etag)
                continue
            if seen is not None and found.etag != seen:
                raise busy(self.key, parse(found.data), self._objects.where(self._name))
            seen = found.etag
            stopping.sleep(self._seconds / BEATS / 2)

    def _abandoned(self, found: ReadObject) -> bool:
        other = parse(found.data)
        if other is not None and is_dead(other.get("process")):
            return True
        # One second more, because the server's times are in whole seconds.
        term = _stated_seconds(other) or self._seconds
        return (self._server_time() - found.written).total_seconds() > term + 1

    def _server_time(self) -> datetime:
        probe = f"{self._name}.{secrets.token_hex(6)}"
        self._writes.put(probe, byte_views(b"?"), None)
        try:
            return self._objects.get(probe).written
        finally:
            self._writes.delete([StoredObject(probe, 1)])

    def _require_conditions(self) -> None:
        """A server that ignores conditions would let every run in."""
        try:
            etag = self._writes.put(self._name, byte_views(b"?"), "")
        except AlreadyExistsError:
            return
        if clock() - self._renewed >= self._seconds:  # another run had it, and has ended
            self._writes.delete_each([StoredObject(self._name, 0, etag)])
            raise busy(self.key, None, self._objects.where(self._name))
        raise DestinationError(
            "the object store ignores conditional writes, so two runs cannot be kept apart",
            location=self._objects.where(self._name),
            advice="Use a store that honours If-None-Match (AWS, MinIO, SeaweedFS, Ceph)",
        )

    # --- keeping

    def _beat(self) -> None:
        while not self._done.wait(self._seconds / BEATS):
            with self._renewing:
                self._renew()
                if self._lost:
                    return

    def _renew(self) -> None:
        """Renew it, or find that it is lost; a failure of the network leaves the rest of the term.

        Renewed after its term it is still ours: whoever takes over changes its entity tag.
        """
        try:
            self._write(self._etag)
            return
        except AlreadyExistsError:
            if self._still_ours():
                return
        except MacroscopeError:
            if clock() - self._renewed < self._seconds:
                return
        self._lost = True

    def _still_ours(self) -> bool:
        """Whether an earlier renewal went through although its answer was lost."""
        asked = clock()
        try:
            found = self._read()
        except MacroscopeError:
            return asked - self._renewed < self._seconds
        other = parse(found.data) if found else None
        if found is None or other is None or other.get("nonce") != self._about["nonce"]:
            return False
        self._etag, self._renewed = found.etag, asked
        return True

    def _write(self, etag: str) -> None:
        self._renewals += 1  # every renewal differs, so that its entity tag does
        body = json.dumps({**self._about, "renewals": self._renewals}).encode()
        started = clock()
        attempts = 1 if self._thread.is_alive() else None
        self._etag = self._writes.put(self._name, byte_views(body), etag, attempts=attempts)
        self._renewed = started

    def _delete(self) -> None:
        self._writes.delete([StoredObject(self._name, 0, self._etag)])

    def _read(self) -> ReadObject | None:
        try:
            return self._objects.get(self._name)
        except NotFoundError:
            return None

    def _busy(self) -> DestinationError:
        found = None
        with suppress(MacroscopeError):
            found = self._read()
        return busy(self.key, parse(found.data) if found else None, self._objects.where(self._name))


class FollowedLease:
    """Another process's lease, for those that write on its behalf: Dask workers.

    It is read again six times in a term. A lease that is gone or another holder's is over for good.
    """

    def __init__(self, objects: S3Objects, key: str, holder: str) -> None:
        self._objects, self._holder = objects, holder
        self._name = lock_key(key, ".lease")
        self._seconds = objects.settings.lease_seconds
        self._ends = self._looked = -float("inf")
        self._over = False
        self._looking = threading.Lock()

    def left(self) -> float:
        """Seconds until the lease ends, as far as was seen; 0 when it is over."""
        with self._looking:
            if not self._over and clock() - self._looked >= self._seconds / BEATS:
                self._look()
        return 0.0 if self._over else self._ends - clock()

    def _look(self) -> None:
        asked = clock()
        try:
            found = self._objects.get(self._name)
        except NotFoundError:
            self._over = True
            return
        except MacroscopeError:
            if asked >= self._ends:
                raise
            return  # what was seen before holds until its end
        about = parse(found.data)
        if about is None or about.get("run") != self._holder:
            self._over = True
            return
        age_s = max(0.0, (self._objects.requests.now() - found.written).total_seconds())
        self._looked, self._ends = asked, asked + self._seconds - age_s


def parse(data: bytes) -> dict[str, Any] | None:
    try:
        about = json.loads(data)
    except ValueError:
        return None
    return about if isinstance(about, dict) else None


def _stated_seconds(about: dict[str, Any] | None) -> float | None:
    """The term that the holder keeps to, which may be set otherwise here; None where not stated."""
    seconds = about.get("seconds") if about else None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return None
    return seconds if 0 < seconds <= LONGEST_LEASE_S else None


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
