"""The public file tree of EMBL-EBI, over FTP or its HTTPS mirror.

``ftp.ebi.ac.uk`` serves the same paths by both; EMPIAR and IDR lie in it. FTP has no checksums and
no entity tags: size and modification time are what identifies a file there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote, unquote, urlsplit

from lib.archives.remote_tiff import as_remote, source_file
from lib.bytesource.base import ByteSource
from lib.bytesource.http_bytes import FtpBytes, HttpBytes
from lib.config.loaders import TransferProtocol
from lib.errors import (
    DestinationError,
    FormatError,
    IncompleteTransferError,
    MacroscopeError,
    NotFoundError,
    OutOfBoundsError,
    SourceChangedError,
    StoppedError,
)
from lib.plan import SourceFile
from lib.rawfiles.sidecar import facts_of
from lib.transport.ftp import FtpEntry
from lib.transport.identity import Likeness, compare
from lib.transport.limits import MIB, Limits
from lib.transport.partial import Fetched
from lib.transport.session import Session

FTP, HTTPS = "ebi-ftp", "ebi-https"

# EBI asks for fair use and publishes no numbers: two FTP connections in all, one a job; users
# measured about four HTTPS requests a second as accepted.
SERVICES = {
    FTP: Limits(2, None, 15.0, 60.0, 5, 2.0, 8 * MIB),
    HTTPS: Limits(4, 4.0, 15.0, 60.0, 5, 1.0, 16 * MIB),
}
Way = Literal["ftp", "https"]
T = TypeVar("T")

_log = logging.getLogger(__name__)
# What another protocol would only repeat.
_FINAL = (StoppedError, DestinationError, SourceChangedError, FormatError, OutOfBoundsError)


class EbiTree:
    """Files below the tree's root; every path is absolute, with ``/`` between its parts.

    With ``auto``, FTP is asked first, and HTTPS for whatever FTP fails at.

    Parameters
    ----------
    ftp_address
        ``host`` or ``host:port``.
    https_root
        URL without a slash at the end.
    """

    def __init__(
        self, session: Session, ftp_address: str, https_root: str, protocol: TransferProtocol
    ) -> None:
        self._session, self._ftp, self._root = session, ftp_address, https_root
        self.ways: tuple[Way, ...] = ("ftp", "https") if protocol == "auto" else (protocol,)

    # --- what there is ----------------------------------------------------------------------

    def listing(self, path: str) -> tuple[Way, list[FtpEntry]]:
        """The entries of a folder, and the protocol that told."""
        return self._first(lambda way: (way, self.listing_by(way, path)))

    def listing_by(self, way: Way, path: str) -> list[FtpEntry]:
        """The entries of a folder by one protocol; index pages give no exact sizes."""
        if way == "ftp":
            return self._session.ftp(FTP, self._ftp).entries(path)
        found = self._session.http(HTTPS).list_index(self._url("https", path.rstrip("/")) + "/")
        return [FtpEntry(entry.name, entry.is_dir) for entry in found]

    def file(self, path: str, name: str, entry: FtpEntry | None = None) -> SourceFile:
        """Size and identity of a file; of an FTP entry, what the listing told is believed."""

        return self._first(lambda way: self._file(way, path, name, entry))

    def _file(self, way: Way, path: str, name: str, entry: FtpEntry | None) -> SourceFile:
        if way == "https":
            return source_file(self._session.http(HTTPS).head(self._url(way, path)), name)
        client = self._session.ftp(FTP, self._ftp)
        size = entry.size if entry is not None else None
        return SourceFile(
            url=self._url(way, path),
            name=name,
            size=client.size(path) if size is None else size,
            last_modified=(entry and entry.modified) or client.modified(path),
        )

    def mirrored(self, path: str, name: str) -> SourceFile:
        """The file as the HTTPS mirror describes it."""
        return source_file(self._session.http(HTTPS).head(self._url("https", path)), name)

    def metadata(self, file: SourceFile, read: Callable[[ByteSource], T]) -> T:
        """Call `read` with a source of the file's bytes: the mirror's ranges, else FTP's.

        Ranges are preferred whatever the protocol, because FTP has none that are cheap; where the
        mirror fails, FTP transfers are broken off in their place.
        """
        path = path_of(file)
        if file.url.startswith("ftp:"):
            try:
                remote = self._session.http(HTTPS).head(self._url("https", path))
                if remote.size == file.size:
                    return read(HttpBytes(self._session, HTTPS, remote))
            except MacroscopeError as error:
                if not _passes(error):
                    raise
                _log.info("the mirror failed, FTP is asked for the header: %s", error)
            return read(FtpBytes(self._session, FTP, self._ftp, path, file.size or 0))
        return read(HttpBytes(self._session, HTTPS, as_remote(file)))

    # --- the bytes --------------------------------------------------------------------------

    def download(self, file: SourceFile, local: Path) -> Fetched:
        """Bring a file to `local`, by the plan's protocol or, with ``auto``, the other one.

        Raises
        ------
        IncompleteTransferError
            The file has another size than the plan says.
        SourceChangedError, DestinationError, TransportError
        """
        planned: Way = "ftp" if file.url.startswith("ftp:") else "https"
        others = [way for way in self.ways if way != planned]
        path = path_of(file)

        def bring(way: Way) -> Fetched:
            if way == "ftp":
                return self._session.ftp(FTP, self._ftp).download(path, local)
            remote = as_remote(file) if planned == "https" else self._url(way, path)
            return self._session.http(HTTPS).download(remote, local)

        fetched = self._first(bring, (planned, *others))
        if file.size is not None and fetched.size != file.size:
            local.unlink(missing_ok=True)
            raise SourceChangedError(
                f"the file has {fetched.size} bytes, the plan says {file.size}", location=file.url
            )
        return fetched

    def check_same(
        self, file: SourceFile, entry: FtpEntry | None = None, held: Path | None = None
    ) -> None:
        """Raise `SourceChangedError` unless the archive's file is the one of the plan.

        Parameters
        ----------
        entry
            What a new FTP listing says of it.
        held
            The file as it was fetched, for a second look where a mirror's nodes disagree.
        """

        def ask(way: Way) -> None:
            path = path_of(file)
            if way == "https" and not file.url.startswith("ftp:"):
                self._session.http(HTTPS).check_same(as_remote(file), held)
                return
            now = self._file(way, path, file.name, entry)
            if compare(facts_of(file), facts_of(now)) is not Likeness.SAME:
                raise SourceChangedError(
                    "the file changed in the archive while it was read: it has "
                    f"{now.size} bytes of {now.last_modified}, planned were {file.size} of "
                    f"{file.last_modified}",
                    archive=self._session.archive,
                    location=file.url,
                )

        self._first(ask)

    # --- inside -----------------------------------------------------------------------------

    def _url(self, way: Way, path: str) -> str:
        quoted = quote(path, errors="surrogateescape")
        return f"ftp://{self._ftp}{quoted}" if way == "ftp" else f"{self._root}{quoted}"

    def _first(self, ask: Callable[[Way], T], ways: tuple[Way, ...] | None = None) -> T:
        """What the first protocol that works answers; the way that failed is not tried again."""
        ways = ways or self.ways
        failures: list[MacroscopeError] = []
        for way in ways:
            try:
                return ask(way)
            except MacroscopeError as error:
                if not _passes(error):
                    raise
                failures.append(error)
                if way != ways[-1]:
                    _log.warning("%s failed, the other protocol is tried: %s", way.upper(), error)
                    self.ways = tuple(w for w in self.ways if w != way) or self.ways
        # What both say is certain; else the first failure is the one to be mended.
        certain = all(isinstance(error, NotFoundError) for error in failures)
        raise failures[-1] if certain else failures[0]


def path_of(file: SourceFile) -> str:
    """The path in the tree of a file of a plan."""
    return unquote(urlsplit(file.url).path, errors="surrogateescape")


def short_listing(path: str, found: int, stated: int) -> IncompleteTransferError:
    """The error of a listing that lacks files which the archive says it has."""
    return IncompleteTransferError(
        f"the listing shows {found} files where the archive states {stated}",
        location=path,
        advice="Run again; if it stays so, set protocol to ftp or https",
    )


def _passes(error: Exception) -> bool:
    """Whether another protocol may do better."""
    return not isinstance(error, _FINAL)
