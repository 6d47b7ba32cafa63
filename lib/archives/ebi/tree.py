"""The public file tree of EMBL-EBI, over FTP or its HTTPS mirror.

``ftp.ebi.ac.uk`` serves the same paths by both; EMPIAR and IDR lie in it. FTP has no checksums and
no entity tags: size and modification time are what identifies a file there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote, unquote, urlsplit

from lib.archives.remote_tiff import as_remote, source_file
from lib.bytesource.base import ByteSource
from lib.bytesource.remote import FtpBytes, HttpBytes
from lib.bytesource.server_tree import HttpTree
from lib.bytesource.tree import fetch_whole
from lib.bytesource.zip_tree import ZipTree
from lib.config.loaders import TransferProtocol
from lib.errors import (
    DestinationError,
    FormatError,
    MacroscopeError,
    NotFoundError,
    OutOfBoundsError,
    SourceChangedError,
    StoppedError,
    UnsupportedFormatError,
)
from lib.plan import SourceFile
from lib.rawfiles.sidecar import facts_of
from lib.transport.ftp import FtpEntry
from lib.transport.http import RangesIgnoredError
from lib.transport.limits import MIB, Limits
from lib.transport.listing import Likeness, ObjectInfo, compare
from lib.transport.partial import Fetched
from lib.transport.session import Session

FTP, HTTPS = "ebi-ftp", "ebi-https"

# EBI asks for fair use and publishes no numbers: two FTP connections in all, one a job; users
# measured about four HTTPS requests a second as accepted, 1.5 MB/s a connection and 5 to 10 over
# eight, and that a small share of requests hangs, while nine of ten answers begin within 2 s:
# giving up after 12 s instead of 60 made a transfer 2.5 times faster.
SERVICES = {
    FTP: Limits(2, None, 15.0, 60.0, 5, 2.0, 8 * MIB),
    HTTPS: Limits(8, 4.0, 15.0, 60.0, 5, 1.0, 8 * MIB, stall_s=6.0),
}
Way = Literal["ftp", "https"]
T = TypeVar("T")

SPLIT_BYTES = 16 * MIB
"""From this size on a file that is brought whole comes by several ranges at once."""

_LAST_BYTES = 2 * MIB
_SHOWN = 20
_log = logging.getLogger(__name__)
# What another protocol would only repeat.
_FINAL = (StoppedError, DestinationError, SourceChangedError, FormatError, OutOfBoundsError)


class EbiTree:
    """Files below the tree's root; every path is absolute, with ``/`` between its parts.

    With ``auto``, one protocol is asked first, and the other for whatever that one fails at.
    The members of a ZIP file are files below it; they are read by ranges of it, over HTTPS.

    Parameters
    ----------
    ftp_address
        ``host`` or ``host:port``.
    https_root
        URL without a slash at the end.
    order
        Of the protocols, with ``auto``.
    """

    def __init__(
        self,
        session: Session,
        ftp_address: str,
        https_root: str,
        protocol: TransferProtocol,
        order: tuple[Way, ...] = ("ftp", "https"),
    ) -> None:
        self._session, self._ftp, self._root = session, ftp_address, https_root
        self.ways: tuple[Way, ...] = order if protocol == "auto" else (protocol,)
        self._given = self.ways
        self._zips: dict[str, ZipTree] = {}
        self._opening = threading.Lock()

    @property
    def failed(self) -> tuple[Way, ...]:
        """Protocols that are asked no longer."""
        return tuple(way for way in self._given if way not in self.ways)

    # --- what there is ----------------------------------------------------------------------

    def listing(self, path: str) -> tuple[Way, list[FtpEntry]]:
        """The entries of a folder, and the protocol that told."""
        return self._first(lambda way: (way, self.listing_by(way, path)))

    def listing_by(self, way: Way, path: str) -> list[FtpEntry]:
        """The entries of a folder by one protocol; index pages give no exact sizes."""
        if way == "ftp":
            return self._session.ftp(FTP, self._ftp).entries(path)
        found = self._session.http(HTTPS).list_index(self._url("https", path.rstrip("/")) + "/")
        return [FtpEntry(e.name, e.is_dir, None, e.modified) for e in found]

    def folder(self, path: str) -> tuple[list[FtpEntry], tuple[str, ...]]:
        """The entries of a folder by every protocol that may be used, and where these disagree.

        The mirror has several hosts, of which one may show a page that lacks a file; FTP gives
        exact sizes, a whole folder in one request. What either shows is there.

        Raises
        ------
        NotFoundError
            There is no such folder.
        TransportError, BadAnswerError
            No protocol gives a listing.
        """
        if len(self.ways) < 2:
            return self.listing(path)[1], ()
        shown: dict[Way, dict[str, FtpEntry]] = {}
        failures: list[MacroscopeError] = []
        ways = self.ways
        found = self.side_by_side([partial(self.listing_by, way, path) for way in ways])
        for way, entries in zip(ways, found, strict=True):
            if not isinstance(entries, MacroscopeError):
                shown[way] = {entry.name: entry for entry in entries}
                continue
            if isinstance(entries, _FINAL):
                raise entries
            failures.append(entries)
            if not isinstance(entries, NotFoundError):
                _log.warning("no listing by %s: %s", way.upper(), entries)
                self.ways = tuple(w for w in self.ways if w != way) or self.ways
        if not shown:
            raise failures[0]
        if len(shown) == 1:
            (only,) = shown.values()
            return [*only.values()], ()
        pages, exact = shown["https"], shown["ftp"]
        notes = [
            f"{_few(lacking)} of {path} {'is' if len(lacking) == 1 else 'are'} not on {where}, and "
            "was taken from the other listing"
            for lacking, where in (
                (sorted(exact.keys() - pages.keys()), "the mirror's page"),
                (sorted(pages.keys() - exact.keys()), "FTP's listing"),
            )
            if lacking
        ]
        merged = pages | exact
        for name, entry in exact.items():
            if entry.modified is None and name in pages:
                merged[name] = FtpEntry(name, entry.is_dir, entry.size, pages[name].modified)
        return [merged[name] for name in sorted(merged)], tuple(notes)

    def file(self, path: str, name: str, entry: FtpEntry | None = None) -> SourceFile:
        """Size and identity of a file; of an FTP entry, what the listing told is believed."""
        return self._first(lambda way: self._file(way, path, name, entry))

    def listed(self, path: str, name: str, entry: FtpEntry) -> SourceFile:
        """A file as its listing describes it, which may lack the size; asks for nothing."""
        return SourceFile(
            url=self._url(self.ways[0], path),
            name=name,
            size=entry.size,
            last_modified=entry.modified,
        )

    def probe(self, path: str) -> int | None:
        """The size of a file that no listing shows; None where the mirror does not have it."""
        try:
            return self._session.http(HTTPS).head(self._url("https", path)).size
        except StoppedError:
            raise
        except MacroscopeError as error:
            _log.info("a file that is missing from a run of numbers is not there: %s", error)
            return None

    def address(self, path: str) -> str:
        """The address of a file or a folder on the mirror."""
        return self._url("https", path)

    def side_by_side(self, jobs: Sequence[Callable[[], T]]) -> Iterator[T | MacroscopeError]:
        """Results of jobs in their order, as many at once as the server bears.

        What went wrong with one is in its place; a stop is raised.
        """

        def one(job: Callable[[], T]) -> T | MacroscopeError:
            try:
                return job()
            except StoppedError:
                raise
            except MacroscopeError as error:
                return error

        return self._session.ordered(HTTPS, [partial(one, job) for job in jobs])

    def files(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """The same files with size and identity, as many asked for at once as the server bears."""
        jobs = [partial(self.file, path_of(file), file.name) for file in files]
        return [*self._session.ordered(HTTPS if self.ways[0] == "https" else FTP, jobs)]

    def members(self, file: SourceFile) -> list[ObjectInfo]:
        """The members of a ZIP file; reads its directory only.

        Raises
        ------
        FormatError, UnsupportedFormatError
            It is damaged, encrypted, or larger than a reader should believe.
        """
        return [*self._zip(file.url).list_all()]

    def member(self, file: SourceFile, info: ObjectInfo, name: str) -> SourceFile:
        """A member of a ZIP file as a file of a plan."""
        return SourceFile(
            url=f"{file.url}{_ZIP}{info.key.replace('|', '%7C')}",
            name=name,
            size=info.size,
            etag=info.etag,
            publisher_checksum=info.checksum,
        )

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
        if is_member(file):
            return read(self.source(file))
        path, by_ftp = path_of(file), file.url.startswith("ftp:")
        try:
            remote = as_remote(file)
            if by_ftp:
                remote = self._session.http(HTTPS).head(self._url("https", path))
            if remote.size == file.size:
                return read(HttpBytes(self._session, HTTPS, remote))
        except MacroscopeError as error:
            if not (by_ftp or "ftp" in self.ways) or isinstance(error, _FINAL):
                raise
            _log.info("the mirror failed, FTP is asked for the header: %s", error)
        return read(FtpBytes(self._session, FTP, self._ftp, path, file.size or 0))

    # --- the bytes --------------------------------------------------------------------------

    def ranged(self, file: SourceFile) -> bool:
        """Whether the bytes of a file can be read by ranges of it, wherever they lie."""
        return file.url.startswith("http") and file.size is not None

    def source(self, file: SourceFile, *, ends: bool = False) -> ByteSource:
        """The bytes of a file, by ranges.

        Parameters
        ----------
        ends
            Nothing is read after it: its last ranges are small, so that no connection idles.

        Raises
        ------
        SourceChangedError
            The member of a ZIP file is not that of the plan.
        """
        if not is_member(file):
            last_bytes = _LAST_BYTES if ends else None
            return HttpBytes(self._session, HTTPS, as_remote(file), last_bytes=last_bytes)
        outer, key = _inside(file)
        return self._zip(outer).source(key, ObjectInfo(key, file.size, file.etag))

    def download(self, file: SourceFile, local: Path, *, ends: bool = False) -> Fetched:
        """Bring a file to `local`, by the plan's protocol or, with ``auto``, the other one.

        A large one comes by several ranges at once; `ends` is that of `source`.

        Raises
        ------
        IncompleteTransferError
            The file has another size than the plan says.
        SourceChangedError, DestinationError, TransportError
        """
        if is_member(file):
            key = _inside(file)[1]
            info = ObjectInfo(key, file.size, file.etag, None, file.publisher_checksum)
            return fetch_whole(self.source(file), info, local)
        planned: Way = "ftp" if file.url.startswith("ftp:") else "https"
        others = [way for way in self.ways if way != planned]
        path = path_of(file)

        def bring(way: Way) -> Fetched:
            if way == "ftp":
                return self._session.ftp(FTP, self._ftp).download(path, local)
            # Where only a name is known, the server says what belongs together.
            if planned != "https" or file.size is None:
                return self._session.http(HTTPS).download(self._url(way, path), local)
            return self._download_by_https(file, local, ends=ends)

        fetched = self._first(bring, (planned, *others))
        if file.size is not None and fetched.size != file.size:
            local.unlink(missing_ok=True)
            raise SourceChangedError(
                f"the file has {fetched.size} bytes, the plan says {file.size}", location=file.url
            )
        return fetched

    def _download_by_https(self, file: SourceFile, local: Path, *, ends: bool) -> Fetched:
        size = file.size or 0
        large = size >= SPLIT_BYTES or (ends and size >= 2 * _LAST_BYTES)
        if large and file.publisher_checksum is None:
            info = ObjectInfo(path_of(file), size, file.etag, file.last_modified)
            with suppress(RangesIgnoredError):
                return fetch_whole(self.source(file, ends=ends), info, local)
        return self._session.http(HTTPS).download(as_remote(file), local)

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
        if is_member(file):
            outer, key = _inside(file)
            now = self._zip(outer).head(key)
            if now is None or (now.size, now.etag) != (file.size, file.etag):
                raise SourceChangedError(
                    "the member of the ZIP file changed while it was read",
                    archive=self._session.archive,
                    location=file.url,
                )
            return
        told = (file.size, file.last_modified)
        if entry is not None and None not in told and told == (entry.size, entry.modified):
            return

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

    def _zip(self, url: str) -> ZipTree:
        """The ZIP file at an address; its directory is read once."""
        with self._opening:
            if url not in self._zips:
                if not url.startswith("http"):
                    raise UnsupportedFormatError(
                        "a ZIP file is read by ranges, which FTP does not give",
                        location=url,
                        advice="Set protocol to auto or https",
                    )
                remote = self._session.http(HTTPS).head(url)
                source = HttpBytes(self._session, HTTPS, remote)
                self._zips[url] = ZipTree(source, HttpTree(self._session, HTTPS, self._root))
            return self._zips[url]

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
                if isinstance(error, _FINAL):
                    raise
                failures.append(error)
                if way != ways[-1]:
                    _log.warning("%s failed, the other protocol is tried: %s", way.upper(), error)
                    self.ways = tuple(w for w in self.ways if w != way) or self.ways
        # What both say is certain; else the first failure is the one to be mended.
        certain = all(isinstance(error, NotFoundError) for error in failures)
        raise failures[-1] if certain else failures[0]


_ZIP = "|zip:"


def is_member(file: SourceFile) -> bool:
    """Whether a file of a plan is a member of a ZIP file."""
    return _ZIP in file.url


def path_of(file: SourceFile) -> str:
    """The path in the tree of a file of a plan; of a member, that of its ZIP file."""
    return unquote(urlsplit(file.url.partition(_ZIP)[0]).path, errors="surrogateescape")


def _inside(file: SourceFile) -> tuple[str, str]:
    """The address of a member's ZIP file, and the member's name in it."""
    outer, _, key = file.url.partition(_ZIP)
    return outer, key.replace("%7C", "|")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
