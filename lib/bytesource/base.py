"""Where a reader's bytes come from: a local file, a remote one, or memory.

A parser asks a `ByteSource` for exact ranges. A range beyond the end of the file is a named error,
so no parser can mistake a file that was cut short for a smaller one. Many small pieces of a file
are read as few larger ranges.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import itertools
import os
import queue
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from lib.concurrency import cancel as stopping
from lib.errors import (
    AccessDeniedError,
    FormatError,
    MacroscopeError,
    NotFoundError,
    SourceChangedError,
    TransportError,
)

RANGE_BYTES = 8 * 2**20


class ByteSource(Protocol):
    """Random access to the bytes of one file. Thread-safe.

    Attributes
    ----------
    name
        How errors call the file: a path or a URL without its query.
    size
        Bytes in the file.
    remote
        True where each read is a request.
    range_bytes
        The largest range that a reader should ask for where it may choose.
    """

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def remote(self) -> bool: ...
    @property
    def range_bytes(self) -> int: ...

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`: all of it, or a named error."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes, meant for metadata: a remote source reads ahead."""
        ...

    def ranges_ordered(self, ranges: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
        """The ``(offset, length)`` ranges in the order asked; each is valid until the next."""
        ...

    def close(self) -> None:
        """Give back what is held open."""
        ...


def check_range(source: ByteSource, offset: int, length: int) -> None:
    """Raise `FormatError` unless the range lies inside the file."""
    if offset < 0 or length < 0 or offset + length > source.size:
        raise FormatError(
            f"the file has {source.size} bytes, but {length} bytes at {offset} are needed: "
            "it is cut short or damaged",
            location=source.name,
        )


def read_each(source: ByteSource, ranges: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
    """`ByteSource.ranges_ordered` for sources that gain nothing from several reads at once."""
    buffer = bytearray()
    for offset, length in ranges:
        check_range(source, offset, length)  # before the buffer grows to an impossible length
        if length > len(buffer):
            buffer = bytearray(length)
        view = memoryview(buffer)[:length]
        source.read_into(offset, view)
        yield view


def read_filled(source: ByteSource, offset: int, length: int) -> bytes:
    """`ByteSource.read` for sources whose reads fill a view."""
    check_range(source, offset, length)  # before a buffer of an impossible length
    data = bytearray(length)
    source.read_into(offset, memoryview(data))
    return bytes(data)


class LocalBytes:
    """A file on this machine, read by `pread`.

    Raises
    ------
    NotFoundError, AccessDeniedError
        The file cannot be opened.
    """

    remote = False
    range_bytes = RANGE_BYTES

    def __init__(self, path: Path | str, *, name: str | None = None) -> None:
        self.name = name or os.fspath(path)
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._fd).st_size
        except OSError as error:
            raise named_os_error(error, self.name) from error

    def read_into(self, offset: int, view: memoryview) -> None:
        check_range(self, offset, len(view))
        while len(view):
            try:
                count = os.preadv(self._fd, [view], offset)
            except OSError as error:
                raise named_os_error(error, self.name) from error
            if count == 0:
                raise SourceChangedError(
                    f"the file shrank below {self.size} bytes while it was read",
                    location=self.name,
                )
            view, offset = view[count:], offset + count

    def read(self, offset: int, length: int) -> bytes:
        check_range(self, offset, length)
        try:
            data = os.pread(self._fd, length, offset)
        except OSError as error:
            raise named_os_error(error, self.name) from error
        if len(data) == length:
            return data
        return read_filled(self, offset, length)  # more than one call gives, or the file shrank

    def ranges_ordered(self, ranges: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
        return read_each(self, ranges)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class MemoryBytes:
    """A window of a file that is already in memory; the rest of the file cannot be read.

    Parameters
    ----------
    data
        The bytes of the window.
    base
        Where the window begins in the file.
    size
        Bytes in the whole file; by default the window ends it.
    """

    remote = False
    range_bytes = RANGE_BYTES

    def __init__(
        self,
        data: bytes | memoryview,
        *,
        name: str = "memory",
        base: int = 0,
        size: int | None = None,
    ) -> None:
        self.name = name
        self.size = base + len(data) if size is None else size
        self._data = memoryview(data)
        self._base = base

    def read_into(self, offset: int, view: memoryview) -> None:
        check_range(self, offset, len(view))
        start = offset - self._base
        if start < 0 or start + len(view) > len(self._data):
            raise FormatError(
                f"{len(view)} bytes at {offset} lie outside the part of the file where they belong",
                location=self.name,
            )
        view[:] = self._data[start : start + len(view)]

    def read(self, offset: int, length: int) -> bytes:
        return read_filled(self, offset, length)

    def ranges_ordered(self, ranges: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
        return read_each(self, ranges)

    def close(self) -> None:
        """Nothing is held open."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """One of the files that make a volume; it is opened only while it is read.

    Attributes
    ----------
    name
        In its folder.
    size
        Bytes, as planned.
    """

    name: str
    size: int
    opened: Callable[[], ByteSource]

    def open(self) -> ByteSource:
        """The file. Raises `SourceChangedError` where its size is another."""
        source = self.opened()
        if source.size != self.size:
            source.close()
            raise SourceChangedError(
                f"the file has {source.size} bytes, {self.size} when it was planned",
                location=source.name,
            )
        return source


class JoinedBytes:
    """A file and those of its folder that it names, one behind another as if they were one.

    Parameters
    ----------
    parts
        The file that names the others, and these in the order in which it does.
    name
        What errors call it.
    """

    range_bytes = RANGE_BYTES

    def __init__(self, parts: Sequence[FilePart], name: str, *, remote: bool = False) -> None:
        self.parts, self.name, self.remote = tuple(parts), name, remote
        self._stops = [*itertools.accumulate(part.size for part in parts)]
        self.size = self._stops[-1]

    def read_into(self, offset: int, view: memoryview) -> None:
        check_range(self, offset, len(view))
        while len(view):
            number = bisect.bisect_right(self._stops, offset)
            length = min(len(view), self._stops[number] - offset)
            part = self.parts[number]
            with contextlib.closing(part.open()) as source:
                source.read_into(offset - self._stops[number] + part.size, view[:length])
            view, offset = view[length:], offset + length

    def read(self, offset: int, length: int) -> bytes:
        return read_filled(self, offset, length)

    def ranges_ordered(self, ranges: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
        return read_each(self, ranges)

    def close(self) -> None:
        """Nothing is held open."""


def header_size(source: ByteSource) -> int:
    """Bytes of the file that names others; of the whole where it has none beside it."""
    return source.parts[0].size if isinstance(source, JoinedBytes) else source.size


def sibling_name(name: str, where: str) -> str:
    """The name of a file that another names as one of its own folder.

    Raises
    ------
    FormatError
        It is no plain name: it leads to another folder.
    """
    plain = name.strip().removeprefix("./")
    if plain in ("", ".", "..") or re.search(r"[/\\\0]|^[A-Za-z]:", plain) or len(plain) > 255:
        raise FormatError(
            f"the file names {name[:200]!r}, and only files beside it are read", location=where
        )
    return plain


def named_os_error(error: OSError, name: str) -> MacroscopeError:
    """The named form of what the file system says when a file is read."""
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError(f"there is no such file ({reason})", location=name)
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessDeniedError(f"the file may not be read ({reason})", location=name)
    if error.errno == errno.EISDIR:
        return NotFoundError("this is a folder, not a file", location=name)
    return TransportError(f"the file cannot be read ({reason})", location=name)


GAP_BYTES = 64 * 2**10  # cheaper to read over than to ask again
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Span(Generic[T_co]):
    """`length` bytes at `offset`, wanted for `item`."""

    offset: int
    length: int
    item: T_co


@dataclass(slots=True)
class _Range(Generic[T]):
    offset: int
    stop: int
    spans: list[Span[T]] = field(default_factory=list)


def coalesce(spans: Iterable[Span[T]], *, range_bytes: int) -> list[_Range[T]]:
    """Join neighbours, in the order given, while a range stays within `range_bytes`."""
    ranges: list[_Range[T]] = []
    for span in spans:
        stop = span.offset + span.length
        last = ranges[-1] if ranges else None
        if (
            last is not None
            and last.stop <= span.offset <= last.stop + GAP_BYTES
            and stop - last.offset <= range_bytes
        ):
            last.stop = stop
        else:
            last = _Range(span.offset, stop)
            ranges.append(last)
        last.spans.append(span)
    return ranges


def read_spans(source: ByteSource, spans: Iterable[Span[T]]) -> Iterator[tuple[T, memoryview]]:
    """Yield each span's item and bytes in the order given; bytes are valid until the next.

    Raises
    ------
    FormatError
        A span reaches beyond the end of the file.
    StoppedError
        A stop was requested between two ranges.
    """
    ranges = coalesce(spans, range_bytes=source.range_bytes)
    views = source.ranges_ordered([(part.offset, part.stop - part.offset) for part in ranges])
    for part, view in zip(ranges, views, strict=True):
        stopping.check()
        for span in part.spans:
            start = span.offset - part.offset
            yield span.item, view[start : start + span.length]


class BufferPool:
    """Buffers of at least `nbytes`, given out and taken back. Thread-safe.

    It holds as many as were ever out at once.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._idle: queue.SimpleQueue[memoryview] = queue.SimpleQueue()

    def take(self, nbytes: int | None = None) -> memoryview:
        """A buffer of `nbytes` (default: the pool's) with undefined content; see `give`."""
        length = self._nbytes if nbytes is None else nbytes
        if length > self._nbytes:
            return np.empty(length, np.uint8).data
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()[:length]
        return np.empty(self._nbytes, np.uint8).data[:length]

    def give(self, view: memoryview) -> None:
        """Take back what `take` gave; nobody may look at it any more."""
        whole = view.obj
        if isinstance(whole, np.ndarray) and whole.nbytes == self._nbytes:
            self._idle.put(whole.data)
