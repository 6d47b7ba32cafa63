"""Pieces of objects that lie side by side, fetched by one request instead of one each.

Inner chunks of a shard, or chunks of one HDF5 file, are asked for one by one and by many threads.
Whoever asks first fetches its neighbours along, as far as somebody has said that these will be
asked for as well; whoever waits for a fetch of another thread fetches what comes next meanwhile, so
that as many requests are in flight as there are threads.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Generic, TypeVar

Bytes = bytes | bytearray | memoryview
Place = tuple[int, int]
"""Offset and length of a piece in its object."""

MOST_BYTES = 2 * 2**20
"""Of one request for several pieces: a larger piece is fetched alone."""

_GAP_BYTES = 4 * 2**10  # bytes between two pieces that cost less than another request
_HELD_BYTES = 64 * 2**20  # fetched along and not asked for yet; beyond it pieces come alone


def requests_for(pieces: int, nbytes: int) -> int:
    """How many requests so many pieces take that lie side by side, all of them expected."""
    if pieces < 1:
        return 0
    together = max(1, MOST_BYTES * pieces // max(1, nbytes))
    return -(-pieces // together)


@dataclass(eq=False, slots=True)
class _Run:
    """One request in flight, or what it brought."""

    key: str
    start: int
    stop: int
    pieces: dict[Hashable, Place]
    left: int = 0
    done: threading.Event = field(default_factory=threading.Event)
    data: memoryview | None = None
    error: BaseException | None = None


class Neighbours:
    """Pieces by their names, each handed out once for each time that it is asked for. Thread-safe.

    Parameters
    ----------
    fetch
        Reads a range (key, offset, length) of an object; None where there is no such object.
    most
        Bytes of one request.
    """

    def __init__(
        self, fetch: Callable[[str, int, int], Bytes | None], most: int = MOST_BYTES
    ) -> None:
        self._fetch, self._most = fetch, most
        self._expected: defaultdict[Hashable, set[Hashable]] = defaultdict(set)
        self._held: dict[tuple[Hashable, Hashable], _Run] = {}
        self._order: dict[Hashable, list[tuple[Place, Hashable]]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def expect(self, group: Hashable, pieces: Iterable[Hashable]) -> None:
        """Say which pieces will be asked for; others are never fetched along.

        Parameters
        ----------
        group
            Pieces whose places are known together: of one shard, or one minishard.
        """
        with self._lock:
            self._expected[group].update(pieces)
            self._order.pop(group, None)

    def get(
        self,
        key: str,
        group: Hashable,
        piece: Hashable,
        at: Place,
        place: Callable[[Hashable], Place | None],
    ) -> memoryview | None:
        """The bytes of a piece; None where its object is not there any more.

        Parameters
        ----------
        at
            Where it lies.
        place
            Where another piece of the group lies; None for one that is not there.
        """
        mine: _Run | None = None
        with self._lock:
            self._expected[group].discard(piece)
            run = self._held.pop((group, piece), None)
            if run is None:
                run = mine = self._claim(key, group, piece, at, place)
            elif not run.done.is_set():
                mine = self._next(key, group, run.stop, place)
        if mine is not None:
            self._bring(mine)
        run.done.wait()
        with self._lock:
            run.left -= 1
            if run.left == 0:
                self._bytes -= run.stop - run.start
        if run.error is not None:
            raise run.error
        if run.data is None:
            return None
        offset, length = run.pieces[piece]
        return run.data[offset - run.start : offset - run.start + length]

    def _bring(self, run: _Run) -> None:
        try:
            data = self._fetch(run.key, run.start, run.stop - run.start)
            run.data = None if data is None else memoryview(data)
        except BaseException as error:
            run.error = error
        finally:
            run.done.set()

    def _claim(
        self,
        key: str,
        group: Hashable,
        piece: Hashable,
        at: Place,
        place: Callable[[Hashable], Place | None],
    ) -> _Run:
        """A request for a piece and those behind it; the lock is held."""
        run = _Run(key, at[0], at[0] + at[1], {piece: at})
        for (offset, length), other in self._behind(group, run.stop, place):
            if self._bytes >= _HELD_BYTES or not run.stop <= offset <= run.stop + _GAP_BYTES:
                break
            if offset + length - run.start > self._most:
                break
            run.pieces[other], run.stop = (offset, length), offset + length
            self._expected[group].discard(other)
            self._held[group, other] = run
        run.left = len(run.pieces)
        self._bytes += run.stop - run.start
        return run

    def _next(
        self, key: str, group: Hashable, after: int, place: Callable[[Hashable], Place | None]
    ) -> _Run | None:
        """The request for what comes behind a range that another thread fetches."""
        if self._bytes >= _HELD_BYTES:
            return None
        for at, piece in self._behind(group, after, place):
            self._expected[group].discard(piece)
            run = self._claim(key, group, piece, at, place)
            self._held[group, piece] = run
            return run
        return None

    def _behind(
        self, group: Hashable, start: int, place: Callable[[Hashable], Place | None]
    ) -> Iterator[tuple[Place, Hashable]]:
        """Expected pieces from an offset on, in the order in which they lie."""
        expected = self._expected[group]
        if group not in self._order:
            placed = [(at, piece) for piece in expected if (at := place(piece)) is not None]
            self._order[group] = sorted(placed, key=itemgetter(0))
        order = self._order[group]
        for number in range(bisect_left(order, (start, 0), key=itemgetter(0)), len(order)):
            if order[number][1] in expected:
                yield order[number]


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Read(Generic[V]):
    """A read in flight, or what it brought."""

    __slots__ = ("done", "value")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: list[V] = []  # empty where the read failed


class SharedReads(Generic[K, V]):
    """Values by their keys, each read by the thread that asks first. Thread-safe.

    A read that fails is its reader's own failure: whoever waited for it reads again.

    Parameters
    ----------
    read
        Brings the value of a key.
    most
        Values that are kept; those that were asked for longest ago go first.
    """

    def __init__(self, read: Callable[[K], V], most: int) -> None:
        self._read, self._most = read, most
        self._held: OrderedDict[K, _Read[V]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V:
        """The value of a key; raises what reading it raises."""
        while True:
            with self._lock:
                read = self._held.get(key)
                if mine := read is None:
                    read = self._held[key] = _Read()
                self._held.move_to_end(key)
            assert read is not None
            if mine:
                return self._bring(key, read)
            read.done.wait()
            if read.value:
                return read.value[0]

    def peek(self, key: K) -> V | None:
        """The value of a key if it is here; nothing is read."""
        with self._lock:
            read = self._held.get(key)
        return read.value[0] if read is not None and read.value else None

    def _bring(self, key: K, read: _Read[V]) -> V:
        try:
            value = self._read(key)
            read.value.append(value)
            return value
        finally:
            with self._lock:
                if not read.value:
                    self._held.pop(key, None)
                while len(self._held) > self._most:
                    self._held.popitem(last=False)
            read.done.set()
