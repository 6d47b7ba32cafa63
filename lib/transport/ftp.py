"""FTP: listings and resumable downloads over one passive connection."""

from __future__ import annotations

import contextlib
import ftplib
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from lib.concurrency import cancel as stopping
from lib.errors import (
    AccessDeniedError,
    IncompleteTransferError,
    MacroscopeError,
    NotFoundError,
    SourceChangedError,
    TransportError,
)
from lib.transport.bounds import ServiceCounters
from lib.transport.ftp_wire import (
    NETWORK_ERRORS,
    FtpEntry,
    Wire,
    host_and_port,
    parse_list,
    parse_mlsd,
    parse_time,
    reply_error,
    wire_path,
)
from lib.transport.limits import Limiter, Limits
from lib.transport.partial import Fetched, PartialFile
from lib.transport.retry import call_with_retry, resume

__all__ = ["FtpClient", "FtpEntry"]

T = TypeVar("T")

_BLOCK = 256 * 1024
_IDLE_S = 2.0
_FAILURES: tuple[type[Exception], ...] = (MacroscopeError, *NETWORK_ERRORS)
_NO_SUCH_COMMAND = ("500", "501", "502", "503", "504")


class FtpClient:
    """One connection to one FTP server, opened when needed. Thread-safe: calls take turns.

    The connection holds one slot of the service. It is used again for call after call, and closed
    when it has been idle for two seconds, so that others get the slot.

    Every method raises `NotFoundError` (550), `AccessDeniedError` (530), `RequestRefusedError`,
    `TransportError` and `StoppedError`.
    """

    def __init__(
        self,
        archive: str,
        address: str,
        limits: Limits,
        limiter: Limiter,
        counters: ServiceCounters,
    ) -> None:
        self._archive = archive
        self._host, self._port = host_and_port(address)
        self._limits = limits
        self._limiter = limiter
        self._counters = counters
        self._turn = threading.RLock()
        self._wire: Wire | None = None
        self._features: frozenset[str] | None = None
        self._login_refused = False
        self._idle_timer: threading.Timer | None = None

    # --- what there is ----------------------------------------------------------------------

    def entries(self, path: str) -> list[FtpEntry]:
        """The entries of a directory: by MLSD, else LIST, else NLST."""

        def once(wire: Wire) -> list[FtpEntry]:
            listed = self._listing(wire, path)
            return self._by_names(wire, path) if listed is None else listed

        return self._call("LIST", path, once)

    def size(self, path: str) -> int:
        """Bytes of a file. Where the server refuses SIZE, its directory's listing tells."""
        return self._call("SIZE", path, lambda wire: self._size(wire, path))

    def modified(self, path: str) -> str | None:
        """Modification time (ISO 8601, UTC), or None where the server does not tell."""
        return self._call("MDTM", path, lambda wire: self._modified(wire, path))

    # --- files ------------------------------------------------------------------------------

    def download(self, path: str, local: Path) -> Fetched:
        """Fetch a file to `local`, going on from what an earlier try left in ``local.partial``.

        Parameters
        ----------
        path
            On the server, absolute.
        local
            Replaced atomically once the file is whole.

        Raises
        ------
        IncompleteTransferError
            If other than SIZE bytes arrived, whatever the server said at the end.
        SourceChangedError, DestinationError
        """
        with self._turn:
            size, modified = self.size(path), self.modified(path)
            identity = {"url": self._where(path), "size": size, "last_modified": modified}
            with PartialFile(local, identity) as part:

                def stream(wire: Wire) -> None:
                    self._stream(wire, path, part, size)

                def once() -> Fetched:
                    attempt = partial(self._attempt, path, stream)
                    resume(part, size, attempt, self._limits, self._counters)
                    count = part.finish(size)
                    return Fetched(local, count, part.sha256.hexdigest(), None, modified)

                try:
                    return self._retry("RETR", path, once)
                except SourceChangedError:
                    part.discard()
                    raise

    def read_range_into(self, path: str, start: int, view: memoryview) -> None:
        """Fill `view` with the bytes from `start` on, and break the transfer off.

        Meant for the beginnings of files: each call is a transfer of its own.

        Raises
        ------
        IncompleteTransferError
            The transfer ended before that.
        """

        def once(wire: Wire) -> None:
            wire.voidcmd("TYPE I")
            done = 0
            meter = wire.transfer(len(view))
            with wire.open_data("RETR " + wire_path(path), start or None) as sock:
                while done < len(view) and (
                    count := meter.receive_into(sock, view[done : done + _BLOCK])
                ):
                    stopping.check()
                    self._counters.received(count)
                    done += count
            try:
                wire.voidresp()
            except ftplib.error_temp:  # 426: it was broken off, as meant
                pass
            except NETWORK_ERRORS:  # so was the connection
                self._drop(polite=False)
            if done < len(view):
                raise IncompleteTransferError(f"{done} of {len(view)} bytes came")

        self._call("RETR", path, once)

    def close(self) -> None:
        """Close the connection; later calls open a new one."""
        with self._turn:
            self._cancel_timer()
            self._drop(polite=True)

    def _stream(self, wire: Wire, path: str, part: PartialFile, size: int) -> None:
        if part.offset:
            now = self._size(wire, path)
            if now != size:
                raise SourceChangedError(f"the file changed on the server: {size} bytes, now {now}")
        wire.voidcmd("TYPE I")
        with self._open(wire, path, part) as sock:
            meter = wire.transfer(size - part.offset + _BLOCK)
            while count := meter.receive_into(sock, part.room()):
                stopping.check()
                self._counters.received(count)
                if part.offset + count > size:
                    part.restart()
                    raise IncompleteTransferError(f"more than the announced {size} bytes came")
                part.took(count)
        wire.voidresp()
        # A server that gives up early may still say 226, transfer complete.
        if part.offset != size:
            raise IncompleteTransferError(f"{part.offset} of {size} bytes came")

    @staticmethod
    def _open(wire: Wire, path: str, part: PartialFile) -> socket.socket:
        command = "RETR " + wire_path(path)
        if part.offset:
            try:
                return wire.open_data(command, part.offset)
            except (ftplib.error_perm, ftplib.error_reply) as error:
                if not str(error).startswith(_NO_SUCH_COMMAND):
                    raise
                part.restart()
        return wire.open_data(command)

    # --- one command ------------------------------------------------------------------------

    def _size(self, wire: Wire, path: str) -> int:
        wire.voidcmd("TYPE I")
        try:
            reply = wire.sendcmd("SIZE " + wire_path(path))
            return int(reply.split()[1])
        except (ftplib.error_perm, IndexError, ValueError):
            # 550 says "no such file" here, and "SIZE not allowed" there: the listing decides.
            folder, _, name = path.rstrip("/").rpartition("/")
            entries = self._listing(wire, folder) or []
            entry = next((e for e in entries if e.name == name), None)
        if entry is None:
            raise NotFoundError("the FTP server has no such file")
        if entry.is_dir or entry.size is None:
            raise NotFoundError("this is not a plain file on the FTP server")
        return entry.size

    def _listing(self, wire: Wire, folder: str) -> list[FtpEntry] | None:
        wire.voidcmd("CWD " + wire_path(folder))
        if {"MLST", "MLSD"} & self._feat(wire):
            return parse_mlsd(wire.lines("MLSD"))
        return parse_list(wire.lines("LIST"))

    def _modified(self, wire: Wire, path: str) -> str | None:
        try:
            return parse_time(wire.sendcmd("MDTM " + wire_path(path)).partition(" ")[2])
        except ftplib.error_perm:
            return None

    def _by_names(self, wire: Wire, path: str) -> list[FtpEntry]:
        """NLST names files and directories alike; CWD tells them apart."""
        entries = []
        for line in wire.lines("NLST"):
            name = line.rstrip("/").rpartition("/")[2]
            if name in {"", ".", ".."}:
                continue
            full = f"{path.rstrip('/')}/{name}"
            try:
                wire.voidcmd("CWD " + wire_path(full))
                entries.append(FtpEntry(name, True))
            except ftplib.error_perm:
                wire.voidcmd("TYPE I")
                size: int | None = None
                with contextlib.suppress(ftplib.error_perm, IndexError, ValueError):
                    size = int(wire.sendcmd("SIZE " + wire_path(full)).split()[1])
                entries.append(FtpEntry(name, False, size))
        return entries

    def _feat(self, wire: Wire) -> frozenset[str]:
        if self._features is None:
            try:
                lines = wire.sendcmd("FEAT").splitlines()
            except ftplib.error_perm:
                lines = []
            words = (
                line.split()[0].upper() for line in lines if line.startswith(" ") and line.strip()
            )
            self._features = frozenset(words)
        return self._features

    # --- the connection ---------------------------------------------------------------------

    def _call(self, verb: str, path: str, once: Callable[[Wire], T]) -> T:
        return self._retry(verb, path, lambda: self._attempt(path, once))

    def _retry(self, verb: str, path: str, function: Callable[[], T]) -> T:
        try:
            with self._turn:
                return call_with_retry(
                    self._limits,
                    function,
                    what=f"{verb} {self._where(path)}",
                    counters=self._counters,
                )
        except MacroscopeError as error:
            error.located(archive=self._archive, location=self._where(path))
            raise

    def _attempt(self, path: str, function: Callable[[Wire], T]) -> T:
        """Run one exchange; whatever fails in it, the connection is not used again."""
        self._cancel_timer()
        stopping.check()
        try:
            wire = self._connected(path)
            self._limiter.pace()
            self._counters.begin()
            try:
                result = function(wire)
            finally:
                self._counters.end()
        except _FAILURES as error:
            self._drop(polite=False)
            stopping.check()
            named = reply_error(error, self._where(path))
            if named is error:
                raise
            raise named from error
        except BaseException:
            self._drop(polite=False)
            raise
        self._idle_timer = threading.Timer(_IDLE_S, self._close_idle)
        self._idle_timer.daemon = True
        self._idle_timer.start()
        return result

    def _connected(self, path: str) -> Wire:
        if self._wire is not None:
            return self._wire
        self._limiter.acquire()
        try:
            self._wire = Wire(self._host, self._port, self._limits)
        except ftplib.error_perm as error:
            self._limiter.release()
            refusal = reply_error(error, self._where(path))
            # EBI says "530 Login incorrect" now and then to anonymous users too: it passes.
            if isinstance(refusal, AccessDeniedError) and not self._login_refused:
                self._login_refused = True
                raise TransportError(refusal.message) from error
            raise refusal from error
        except BaseException:
            self._limiter.release()
            raise
        self._login_refused = False
        return self._wire

    def _drop(self, *, polite: bool) -> None:
        wire, self._wire = self._wire, None
        if wire is None:
            return
        try:
            if polite:
                with contextlib.suppress(*NETWORK_ERRORS):
                    wire.quit()
            wire.close()
        finally:
            self._limiter.release()

    def _close_idle(self) -> None:
        with self._turn:
            if self._idle_timer is threading.current_thread():  # else it was used meanwhile
                self._idle_timer = None
                self._drop(polite=True)

    def _cancel_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _where(self, path: str) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        port = "" if self._port == ftplib.FTP_PORT else f":{self._port}"
        return f"ftp://{host}{port}/{path.lstrip('/')}"
