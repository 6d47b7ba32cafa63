"""Files that come while others are read: several at once, in the order in which they are needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from functools import partial

from lib.concurrency import cancel
from lib.concurrency.bounded_map import Crew
from lib.formats.base import Block
from lib.formats.sections import Section, SectionStack
from lib.geometry import Box

_GRACE_S = 2.0


class ArrivingFiles:
    """Brings files by their numbers, each once. Thread-safe.

    Parameters
    ----------
    count
        How many there are.
    bring
        Brings one; called from several threads.
    at_once
        How many are brought at the same time.
    """

    def __init__(self, count: int, bring: Callable[[int], None], at_once: int) -> None:
        self._count, self._bring = count, bring
        self._crew: Crew[None] = Crew(at_once, "arriving", abandons=True)
        self._begun: dict[int, Future[None]] = {}
        self._lock = threading.Lock()

    def want(self, numbers: Iterable[int], ahead: int = 0) -> None:
        """Begin to bring files, and so many of those that follow the last of them.

        Returns at once. How far ahead it goes is bounded by the caller, because another process may
        be meant to read what follows.
        """
        wanted = [*numbers]
        if wanted:
            wanted += range(wanted[-1] + 1, min(wanted[-1] + 1 + ahead, self._count))
        with self._lock:
            for number in wanted:
                if number not in self._begun:
                    self._begun[number] = self._crew.begin(partial(self._bring, number))

    def wait_for(self, number: int) -> None:
        """Wait until a file is there.

        Raises
        ------
        StoppedError
            Within a second of a stop.
        MacroscopeError
            It could not be brought; the next one who waits has it tried again.
        """
        self.want([number])
        with self._lock:
            future = self._begun[number]
        while True:
            try:
                future.result(timeout=cancel.POLL_S)
                return
            except NotYetError:
                cancel.check()
            except BaseException:
                with self._lock:
                    if self._begun.get(number) is future:
                        del self._begun[number]
                raise

    def close(self) -> None:
        """Let no more files come; what has begun is broken off."""
        self._crew.dismiss(_GRACE_S)


class ArrivingStack(SectionStack):
    """Sections whose files come while earlier ones are read.

    A box is read section by section; files of the box come first, then as many that follow as the
    box is deep, so that connections have work while voxels are encoded. No more than that is held
    of what nobody has read yet.

    Parameters
    ----------
    files
        Of each section the number of its file among `arriving`; None where it has none.
    """

    def __init__(
        self, sections: Sequence[Section], files: Sequence[int | None], arriving: ArrivingFiles
    ) -> None:
        self._files, self._arriving = tuple(files), arriving
        try:
            super().__init__(sections)
        except BaseException:
            arriving.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._arriving.close()

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield blocks that tile `box`; see `VolumeReader`."""
        z0, z1 = box.start_zyx[0], box.stop_zyx[0]
        wanted = [number for number in self._files[z0:z1] if number is not None]
        self._arriving.want(wanted, ahead=z1 - z0)
        yield from super().blocks(box)
