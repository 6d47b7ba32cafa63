"""Named objects below one root: a folder, a bucket, a web server, an FTP server, a ZIP file.

A format of many objects (Zarr, N5, precomputed) reads through a `Tree` and does not know what it
is. Keys are relative to the root, with ``/`` between their parts, never with ``..``. The simplest
tree, a folder of this machine, stands here.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from lib.bytesource.base import RANGE_BYTES, ByteSource, LocalBytes, named_os_error
from lib.concurrency.bounded_map import run_ordered
from lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    FormatError,
    MacroscopeError,
    NotListableError,
    SourceChangedError,
)
from lib.transport.listing import Listing, ObjectInfo
from lib.transport.partial import Fetched, PartialFile

if TYPE_CHECKING:
    from lib.transport.session import Session

T = TypeVar("T")

MOST_BYTES = 2**30
"""An object that is read whole is refused above this unless the caller allows more."""


class Tree(Protocol):
    """Reads objects below one root. Thread-safe.

    Absence is told only where the store itself proves it (404 of a web server, ``NoSuchKey`` of an
    object store, ENOENT of a folder): it reads as background in chunked formats. A refusal (401,
    403), a failure (5xx) and a broken answer raise a named error.

    Attributes
    ----------
    uri
        Address of the root, without credentials, without a slash at the end.
    remote
        True where each read is a request.
    ranged
        Whether a range of an object costs about its own bytes; else files are brought whole.
    listing_proves
        Whether what a listing leaves out is certainly not there. It is of disks and object
        stores; an index page or an FTP server's LIST may be cut, or of a mirror that lags.
    range_bytes
        The largest range that a reader should ask for where it may choose.
    """

    @property
    def uri(self) -> str: ...
    @property
    def remote(self) -> bool: ...
    @property
    def ranged(self) -> bool: ...
    @property
    def listing_proves(self) -> bool: ...
    @property
    def range_bytes(self) -> int: ...

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | memoryview | None:
        """The bytes of an object; None where the store says that there is none.

        Raises
        ------
        BadAnswerError
            It is longer than `most`.
        """
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview | None:
        """Exactly `length` bytes from `start` on; None where there is no such object."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Size and identity of an object; None where there is none."""
        ...

    def look(self, key: str) -> ObjectInfo | None:
        """What `head` tells, and None where a folder is there: for an address of either."""
        ...

    def list(self, prefix: str = "") -> Listing:
        """What lies directly below a folder; empty where there is no such folder.

        Raises
        ------
        NotListableError
            The store does not list: absences are then found by asking for each object.
        """
        ...

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below a folder, in no promised order; raises as `list` does."""
        ...

    def source(self, key: str, known: ObjectInfo | None = None) -> ByteSource:
        """Random access to one object, tied to the version that `known` or the store describes.

        Raises
        ------
        NotFoundError
        """
        ...

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        """Run jobs in threads, as many as the store allows, and yield results in job order."""
        ...


class WalkedTree:
    """What trees share: one look at an object, and going down folder by folder."""

    uri: str
    _most_folders: int | None = None

    def head(self, key: str) -> ObjectInfo | None:
        raise NotImplementedError

    def list(self, prefix: str = "") -> Listing:
        raise NotImplementedError

    def look(self, key: str) -> ObjectInfo | None:
        return self.head(key)

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        waiting, seen = [prefix.strip("/")], 0
        while waiting:
            seen += 1
            if self._most_folders is not None and seen > self._most_folders:
                raise NotListableError(
                    f"more than {self._most_folders} folders would have to be listed page by page",
                    location=self.uri,
                )
            listing = self.list(waiting.pop())
            yield from listing.objects
            waiting += reversed(listing.prefixes)


class SessionTree(WalkedTree):
    """What trees of servers share: the limits of a session's service."""

    remote = True

    def __init__(self, session: Session, service: str, uri: str) -> None:
        self.uri = uri
        self.range_bytes = session.limits(service).range_bytes
        self._session, self._service = session, service

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return self._session.ordered(self._service, jobs)


@runtime_checkable
class GetsSeveral(Protocol):
    """A tree that gets objects one after another for little more than their bytes."""

    def get_several(
        self, keys: Sequence[str], most: int = MOST_BYTES
    ) -> Sequence[bytes | memoryview | None]:
        """What `Tree.get` returns of each key."""
        ...


def get_several(
    tree: Tree, keys: Sequence[str], most: int = MOST_BYTES
) -> Sequence[bytes | memoryview | None]:
    """The bytes of each object, None where there is none, one after another; see `Tree.get`."""
    if isinstance(tree, GetsSeveral):
        return tree.get_several(keys, most)
    return [tree.get(key, most) for key in keys]


def join(*parts: str) -> str:
    """Parts of a key with one ``/`` between them; empty ones leave no trace."""
    return "/".join(part.strip("/") for part in parts if part.strip("/"))


def normal_key(folder: str, relative: str) -> str:
    """A key that a document names relative to its folder, as ``../other/8_8_8`` in an ``info``.

    Raises
    ------
    FormatError
        It leads out of the root, or to another host.
    """
    joined = posixpath.normpath(posixpath.join("/", folder, relative.strip("/")))
    above = posixpath.normpath(posixpath.join(folder or ".", relative.strip("/")))
    if "://" in relative or "\0" in relative or above == ".." or above.startswith("../"):
        raise FormatError(
            f"a document leads out of its own store: {relative[:200]!r}", location=folder
        )
    return joined.strip("/")


def listing_or_none(tree: Tree, prefix: str) -> Listing | None:
    """What lies directly below a folder; None where the store does not list."""
    try:
        return tree.list(prefix)
    except NotListableError:
        return None


def listing_or_empty(tree: Tree, prefix: str) -> Listing:
    """The same, empty where the store does not list."""
    return listing_or_none(tree, prefix) or Listing((), ())


def in_words(names: Sequence[str], tree: Tree, folder: str) -> str:
    """What to tell somebody who named what is not there: what there is, or why it is not known."""
    if names:
        return f"There are: {', '.join(names)}"
    if listing_or_none(tree, folder) is None:
        return "The store does not list what it holds: name the array or the group itself"
    return "There are: nothing"


def optional_document(tree: Tree, key: str, most: int = MOST_BYTES) -> bytes | memoryview | None:
    """A document that need not be there; None where it is not.

    A bucket that may be read and not listed refuses what it does not have (403), so a refusal says
    nothing of a document there. It is never taken for the absence of a chunk.
    """
    try:
        return tree.get(key, most)
    except AccessDeniedError:
        if listing_or_none(tree, key.rpartition("/")[0]) is None:
            return None
        raise


def check_length(name: str, length: int | None, most: int) -> None:
    """Raise `BadAnswerError` for an object that is longer than its reader can use."""
    if length is not None and length > most:
        raise BadAnswerError(
            f"the object has {length} bytes, at most {most} make sense here",
            location=name,
            retryable=False,
        )


def fetch_whole(source: ByteSource, info: ObjectInfo, path: Path) -> Fetched:
    """Fetch all bytes to `path`, going on from what an earlier try left in ``path.partial``.

    Raises
    ------
    SourceChangedError, TransportError, DestinationError
    """
    identity = {"url": source.name, "size": source.size, "etag": info.etag}
    with PartialFile(path, identity | {"last_modified": info.last_modified}) as part:
        step = source.range_bytes
        starts = range(part.offset, source.size, step)
        ranges = [(start, min(step, source.size - start)) for start in starts]
        try:
            for view in source.ranges_ordered(ranges):
                part.write(view)
        except SourceChangedError:
            part.discard()
            raise
        size = part.finish(source.size)
        digest = part.sha256.hexdigest()
        return Fetched(path, size, digest, info.etag, info.last_modified, info.checksum)


_THREADS = max(2, min(8, os.cpu_count() or 2))
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


class LocalTree(WalkedTree):
    """Files below a folder. Symbolic links are followed: they are the owner's own.

    Parameters
    ----------
    root
        Absolute.
    """

    remote = False
    ranged = True
    listing_proves = True
    range_bytes = RANGE_BYTES

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = root.as_uri().rstrip("/")

    def path(self, key: str) -> Path:
        """Where an object lies; raises `FormatError` where its key leads out of the root."""
        parts = [part for part in key.split("/") if part]
        if "\0" in key or ".." in parts:
            raise FormatError("a name leads out of its folder", location=f"{self.uri}/{key}")
        return self.root.joinpath(*parts)

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | None:
        with self._opened(key) as file:
            if file is None:
                return None
            check_length(file.name, file.size, most)
            return file.read(0, file.size)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        with self._opened(key) as file:
            return None if file is None else file.read(start, length)

    @contextmanager
    def _opened(self, key: str) -> Iterator[LocalBytes | None]:
        """The file of an object; None where there is none."""
        try:
            file = LocalBytes(self.path(key))
        except MacroscopeError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _ABSENT:
                yield None
                return
            raise
        try:
            yield file
        finally:
            file.close()

    def head(self, key: str) -> ObjectInfo | None:
        path = self.path(key)
        try:
            found = path.stat()
        except OSError as error:
            _absent(error, path)
            return None
        return _info(key, found) if path.is_file() else None

    def list(self, prefix: str = "") -> Listing:
        folder = self.path(prefix)
        objects, prefixes = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    key = f"{prefix.strip('/')}/{entry.name}".lstrip("/")
                    if entry.is_dir():
                        if not (entry.is_symlink() and _is_above(entry.path)):
                            prefixes.append(key)
                    elif entry.is_file():
                        objects.append(_info(key, entry.stat()))
        except OSError as error:
            _absent(error, folder)
        objects.sort(key=lambda one: one.key)
        return Listing(tuple(objects), tuple(sorted(prefixes)))

    def source(self, key: str, known: ObjectInfo | None = None) -> LocalBytes:
        path = self.path(key)
        if known is not None and known.etag != _info(key, path.stat()).etag:
            raise SourceChangedError("the file changed since it was planned", location=str(path))
        return LocalBytes(path)

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return run_ordered(jobs, _THREADS)


def _is_above(link: str) -> bool:
    """Whether a link leads to a folder that it lies in: whoever follows it finds it again."""
    inside, target = os.path.realpath(os.path.dirname(link)), os.path.realpath(link)
    return os.path.join(inside, "").startswith(os.path.join(target, ""))


def _info(key: str, found: os.stat_result) -> ObjectInfo:
    moment = datetime.fromtimestamp(found.st_mtime, UTC).isoformat()
    return ObjectInfo(key, found.st_size, f"{found.st_size}-{found.st_mtime_ns}", moment)


def _absent(error: OSError, path: Path) -> None:
    """Nothing where the file is not there; raises for whatever else went wrong."""
    if error.errno not in _ABSENT:
        raise named_os_error(error, str(path)) from error
