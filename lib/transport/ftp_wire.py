"""FTP on the wire: one connection, its data channels, its listings and what its replies mean."""

from __future__ import annotations

import ftplib
import io
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from lib.concurrency import cancel as stopping
from lib.concurrency.cancel import wake_on_stop
from lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    ConfigError,
    MacroscopeError,
    NotFoundError,
    RequestRefusedError,
    TransportError,
)
from lib.safety import redact_text
from lib.transport import bounds
from lib.transport.bounds import Meter
from lib.transport.limits import Limits

_BLOCK = 64 * 1024
# Mode, links, owner, group, size, month, day, year or time, one space, name.
_UNIX_LINE = re.compile(
    r"(?P<mode>[-dlbcps][-rwxsStT]{9}\S?)\s+\d+\s+\S+\s+\S+\s+(?P<size>\d+)"
    r"\s+\S+\s+\S+\s+\S+ (?P<name>.+)"
)
NETWORK_ERRORS: tuple[type[Exception], ...] = ftplib.all_errors  # OSError and EOFError too


@dataclass(frozen=True, slots=True)
class FtpEntry:
    """One entry of a directory. `size` in bytes and `modified` (ISO 8601, UTC) where given."""

    name: str
    is_dir: bool
    size: int | None = None
    modified: str | None = None


class Wire(ftplib.FTP):
    """An FTP connection, passive, always with time-outs.

    Names travel as they are: bytes of any encoding come back from a listing and go out again
    unchanged (the control channel speaks Latin-1, names are UTF-8 with surrogate escapes).
    """

    def __init__(self, host: str, port: int, limits: Limits) -> None:
        super().__init__(encoding="latin-1", timeout=limits.connect_timeout_s)
        self.read_timeout_s = limits.read_timeout_s
        self._limits = limits
        self.host, self.port = host, port
        try:
            # as ftplib's own `connect`, whose file would read replies without bounds
            sock = self.sock = socket.create_connection((host, port), limits.connect_timeout_s)
            self.af = sock.family
            sock.settimeout(limits.read_timeout_s)
            wake_on_stop(sock)
            file = bounds.metered_file(sock.makefile("rb"))
            self.file = io.TextIOWrapper(file, encoding=self.encoding)
            self.welcome = self.getresp()
            self.login()
        except BaseException:
            self.close()
            raise

    def getmultiline(self) -> str:
        """One reply, of as many lines as it has, but with an end."""
        with bounds.metered(self._document(bounds.HEADER_BYTES)):
            return super().getmultiline()

    def makepasv(self) -> tuple[str, int]:
        """PASV, or EPSV where PASV fails; some servers even answer PASV with EPSV's 229."""
        if self.af != socket.AF_INET:
            return super().makepasv()
        try:
            return super().makepasv()
        except ftplib.error_reply as error:
            reply = str(error)
        except ftplib.error_perm:
            reply = ""
        assert self.sock is not None
        if not reply.startswith("229"):
            reply = self.sendcmd("EPSV")
        host, port = ftplib.parse229(reply, self.sock.getpeername())
        return host, port

    def open_data(self, command: str, rest: int | None = None) -> socket.socket:
        """Begin a transfer; the caller reads to the end, closes, and calls `voidresp`."""
        sock = self.transfercmd(command, rest)
        sock.settimeout(self.read_timeout_s)
        wake_on_stop(sock)
        return sock

    def transfer(self, size: int) -> Meter:
        """A meter for `size` bytes of a file."""
        return Meter(self._limits, size, document=False)

    def lines(self, command: str) -> list[str]:
        """The lines that a listing command sends."""
        self.voidcmd("TYPE A")
        data = bytearray()
        count = 0
        buffer = memoryview(bytearray(_BLOCK))
        meter = self._document(bounds.LISTING_BYTES)
        with self.open_data(command) as sock:
            while size := meter.receive_into(sock, buffer):
                stopping.check()
                data += buffer[:size]
                count += buffer[:size].tobytes().count(b"\n")
                if count > bounds.LISTING_ENTRIES:
                    raise BadAnswerError(
                        f"the directory listing goes on after {count} entries", retryable=False
                    )
        self.voidresp()
        text = data.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
        return [line for line in text.split("\n") if line]

    def _document(self, most: int) -> Meter:
        return Meter(self._limits, most, document=True)


def wire_path(path: str) -> str:
    """An absolute path as the control channel sends it.

    Raises
    ------
    RequestRefusedError
        If it holds a line break or NUL, which would end the command and begin another.
    """
    if any(c in path for c in "\r\n\0"):
        raise RequestRefusedError("the path holds a control character", location=repr(path))
    return ("/" + path.lstrip("/")).encode("utf-8", "surrogateescape").decode("latin-1")


def host_and_port(address: str) -> tuple[str, int]:
    """``host``, ``host:port``, ``[::1]:port``; a leading ``ftp://`` is allowed."""
    text = address.removeprefix("ftp://").rstrip("/")
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(ftplib.FTP_PORT)
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{address!r} is not an FTP address", advice="Write host or host:port")
    return host.strip("[]"), int(port)


# --- listings -------------------------------------------------------------------------------


def parse_mlsd(lines: Iterable[str]) -> list[FtpEntry]:
    """Entries of an MLSD listing (RFC 3659)."""
    entries = []
    for line in lines:
        facts_text, _, name = line.lstrip(" ").partition(" ")
        pairs = (fact.partition("=") for fact in facts_text.split(";") if fact)
        facts = {key.lower(): value for key, _, value in pairs}
        kind = facts.get("type", "").lower()
        if kind in {"cdir", "pdir"} or name in {"", ".", ".."}:
            continue
        size = facts.get("size", "")
        is_dir = kind == "dir"
        entries.append(
            FtpEntry(
                name,
                is_dir,
                int(size) if size.isascii() and size.isdigit() and not is_dir else None,
                parse_time(facts.get("modify", "")),
            )
        )
    return entries


def parse_list(lines: Iterable[str]) -> list[FtpEntry] | None:
    """Entries of an ``ls -l`` style listing, or None where any line is of another style."""
    entries = []
    for line in lines:
        if re.fullmatch(r"total \d+", line):
            continue
        match = _UNIX_LINE.fullmatch(line)
        if match is None:
            return None
        kind, name = match["mode"][0], match["name"]
        if kind == "l":
            name = name.partition(" -> ")[0]
        if name not in {".", ".."}:
            size = int(match["size"]) if kind == "-" else None
            entries.append(FtpEntry(name, kind == "d", size))
    return entries


def parse_time(text: str) -> str | None:
    """``YYYYMMDDHHMMSS`` of MDTM and MLSD as ISO 8601, or None where it is none."""
    try:
        moment = datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# --- failures -------------------------------------------------------------------------------


def reply_error(error: Exception, where: str) -> MacroscopeError:
    """The named form of what ftplib or the socket raised."""
    if isinstance(error, MacroscopeError):
        return error
    said = " ".join(redact_text(str(error)).split())[:200]
    code = said[:3]
    if isinstance(error, ftplib.error_perm):
        if code in {"530", "532"} or (code == "550" and "ermission" in said):
            return AccessDeniedError(f"the FTP server refuses access: {said}", location=where)
        if code == "550":
            return NotFoundError(f"the FTP server has no such file: {said}", location=where)
        return RequestRefusedError(f"the FTP server refuses the command: {said}", location=where)
    if isinstance(error, ftplib.Error):
        return TransportError(f"the FTP server failed for now: {said}", location=where)
    if isinstance(error, socket.gaierror):
        return TransportError(
            "the host name does not resolve",
            location=where,
            advice="Check the host name and the network's DNS, then run again",
        )
    if isinstance(error, TimeoutError):
        return TransportError("the FTP server did not answer in time", location=where)
    if isinstance(error, ConnectionRefusedError):
        return TransportError(
            "the host refuses the connection",
            location=where,
            advice="Check address and port, and that the server runs; then run again",
        )
    return TransportError(f"the FTP connection broke ({type(error).__name__})", location=where)
