"""ftp.ebi.ac.uk in small: EMPIAR's and IDR's trees over real FTP (pyftpdlib)."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.ioloop import IOLoop
from pyftpdlib.servers import FTPServer

from emulators import ftp_words
from emulators.control import Control
from emulators.counters import Flight
from emulators.faults import Rule
from emulators.ftp_transfers import (
    SampleDTPHandler,
    TamperedProducer,
    first_half_of_lines,
)
from emulators.sockets import peer_gone, will_reset

_PRIVATE_ADDRESS = "10.34.22.86"
_PATH_COMMANDS = frozenset({"RETR", "SIZE", "MDTM", "LIST", "NLST", "MLSD", "MLST", "CWD"})
_LOGGER = logging.getLogger("pyftpdlib")
_TAMPERED = frozenset({"cut_226", "cut_426", "reset", "stall", "wrong_bytes"})


class SampleFTPHandler(FTPHandler):  # type: ignore[misc]
    """pyftpdlib, made to behave as ftp.ebi.ac.uk, with counters and faults."""

    control: ClassVar[Control]
    dtp_handler = SampleDTPHandler
    auth_failed_timeout = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._command = "CONNECT"
        self._transfer_fault: Rule | None = None
        self._rest: str | None = None
        self._flight: Flight | None = None
        super().__init__(*args, **kwargs)

    # --- connection

    def handle(self) -> None:
        """Greet in several lines, which pyftpdlib's own banner cannot do."""
        rule = self._fire("CONNECT", "")
        self._flight = self.control.counters.begin("ftp", self._is_gone)
        if rule is None:
            self._later(lambda: self.push("\r\n".join(ftp_words.BANNER) + "\r\n"))
        elif rule.kind in ("greeting_reset", "reset"):
            will_reset(self.socket)
            self.close()
        elif rule.kind == "reply_421":
            self.respond(ftp_words.TOO_MANY)
            self.close_when_done()

    def close(self) -> None:
        """Close, and count one connection fewer."""
        if self._flight is not None:
            self._flight.end()
        super().close()

    def _is_gone(self) -> bool:
        return self._closed or peer_gone(self.socket.fileno())

    def respond(self, resp: str, logfun: Callable[..., None] = _LOGGER.debug) -> None:
        """Answer in vsftpd's words."""
        super().respond(ftp_words.reworded(self._command, resp), logfun=logfun)

    # --- commands

    def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
        """Count a command, then let it go wrong or be carried out."""
        self._command = cmd
        path = self.fs.ftpnorm(arg) if self.fs and cmd in _PATH_COMMANDS else arg
        if cmd == "QUIT" and self._flight is not None:
            self._flight.end()
        rule = self._fire(cmd, "" if cmd == "PASS" else path)
        self._rest = arg if cmd == "REST" else None
        if rule is None or self._carried_out_wrongly(rule, cmd):
            super().pre_process_command(line, cmd, arg)

    def _fire(self, command: str, argument: str) -> Rule | None:
        target = f"{command} {argument}".rstrip()
        if command != "CONNECT":
            self.control.counters.request("ftp", command, argument, self._rest)
        return self.control.faults.fire("ftp", command, target)

    def _carried_out_wrongly(self, rule: Rule, command: str) -> bool:
        """Act on a rule; True where the command still has to run."""
        reply = {
            "login_incorrect": ftp_words.LOGIN_INCORRECT,
            "size_refused": ftp_words.NO_SIZE,
            "rest_refused": ftp_words.NO_REST,
            "reply_425": ftp_words.NO_DATA_CONNECTION,
            "reply_550": ftp_words.NO_FILE,
            "hide": ftp_words.NO_FILE,
        }.get(rule.kind)
        if reply is not None:
            if rule.kind == "reply_425":
                self._shutdown_connecting_dtp()
            super().respond(reply)
        elif rule.kind == "reply_421":
            super().respond(ftp_words.TOO_MANY)
            self.close_when_done()
        elif rule.kind == "private_pasv":
            self.masquerade_address = _PRIVATE_ADDRESS
            return True
        elif rule.kind == "epsv_for_pasv":
            self.ftp_EPSV("")
        elif rule.kind == "reset" and rule.before:
            will_reset(self.socket)
            self.close()
        elif rule.kind == "stall" and rule.before:
            pass
        else:
            self._transfer_fault = rule
            return True
        return False

    def ftp_SIZE(self, path: str) -> None:
        """Answer in either mode, as the real server does; pyftpdlib refuses in ASCII."""
        try:
            if not self.fs.isfile(self.fs.realpath(path)):
                raise OSError
            self.respond(f"213 {self.fs.getsize(path)}")
        except OSError:
            self.respond(ftp_words.NO_SIZE)

    def push_dtp_data(
        self, data: Any, isproducer: bool = False, file: Any = None, cmd: str | None = None
    ) -> None:
        """Send a transfer, through a fault where one is due."""
        rule, self._transfer_fault = self._transfer_fault, None
        if rule is not None and rule.kind in _TAMPERED:
            source = file if file is not None else io.BytesIO(_whole(data, isproducer))
            length = os.fstat(file.fileno()).st_size - file.tell() if file else len(source.read())
            if not file:
                source.seek(0)
            data, isproducer, file = TamperedProducer(rule, self, source, length), True, None
        elif rule is not None and rule.kind == "short_list":
            data, isproducer = first_half_of_lines(_whole(data, isproducer)), False
        send = super().push_dtp_data
        self._later(lambda: send(data, isproducer=isproducer, file=file, cmd=cmd))

    def _later(self, action: Callable[[], None]) -> None:
        """Run after the time to the first byte that is in force."""
        wait = self.control.latency("ftp").first_byte_s

        def unless_closed() -> None:
            if not self._closed:
                action()

        if wait:
            self.ioloop.call_later(wait, unless_closed, _errback=self.handle_error)
        else:
            action()


def _whole(data: Any, isproducer: bool) -> bytes:
    """What a listing's producer would send."""
    if not isproducer:
        return bytes(data)
    parts = []
    while part := data.more():
        parts.append(part)
    return b"".join(parts)


class FtpSide:
    """The FTP server of one `Samples`, in a thread of its own.

    Parameters
    ----------
    folder
        Root of the tree, with ``empiar`` and ``pub`` in it.
    control
        Faults, counters and latency.
    host, port
        Where to listen; port 0 takes a free one.
    passive_ports
        Ports for data connections, where a firewall or a pod needs them fixed.
    """

    def __init__(
        self,
        folder: Path,
        control: Control,
        host: str = "127.0.0.1",
        port: int = 0,
        passive_ports: range | None = None,
    ) -> None:
        # Without a handler of its own, pyftpdlib configures logging for the whole process.
        _LOGGER.addHandler(logging.NullHandler())
        _LOGGER.setLevel(logging.CRITICAL)
        authorizer = DummyAuthorizer()
        authorizer.add_anonymous(str(folder))
        authorizer.add_user("ftp", "", str(folder), perm="elr")
        handler = type(
            "BoundFTPHandler",
            (SampleFTPHandler,),
            {"control": control, "authorizer": authorizer, "passive_ports": passive_ports},
        )
        self._ioloop = IOLoop()
        self._server = FTPServer((host, port), handler, ioloop=self._ioloop)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="samples-ftp", daemon=True)
        self.port: int = self._server.address[1]

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Cut what is open, end the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        wait: float | None = None
        try:
            while not self._stop.is_set():
                wait = self._ioloop.loop(min(wait or 0.1, 0.1), blocking=False)
        finally:
            self._server.close_all()
