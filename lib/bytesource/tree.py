"""Named objects below one root: a folder, a bucket, a web server, an FTP server, a ZIP file.

A format of many objects (Zarr, N5, precomputed) reads through a `Tree` and does not know what it
is. Keys are relative to the root, with ``/`` between their parts, never with ``..``.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from lib.bytesource.base import ByteSource
from lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    FormatError,
    NotListableError,
    SourceChangedError,
)
from lib.transport.listing import Listing, ObjectInfo
from lib.transport.partial import Fetched, PartialFile

__all__ = [
    "MOST_BYTES",
    "Listing",
    "ObjectInfo",
    "Tree",
    "check_length",
    "in_words",
    "join",
    "listing_or_none",
    "normal_key",
    "optional_document",
]

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
    identity: dict[str, str | int | None] = {
        "url": source.name,
        "size": source.size,
        "etag": info.etag,
        "last_modified": info.last_modified,
    }
    with PartialFile(path, identity) as part:
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
