"""Remote files that are read while they come: by ranges, kept or at least hashed in the same pass;
or several whole ones at once, in the order in which they are needed.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import overload

import google_crc32c
import numpy as np

from lib.bytesource.base import GAP_BYTES, ByteSource, LocalBytes
from lib.bytesource.remote import RemoteBytes
from lib.concurrency import cancel
from lib.concurrency.bounded_map import Crew
from lib.errors import FormatError, SourceChangedError
from lib.formats.base import Block, VolumeReader
from lib.formats.planes import MissingSection, Section, SectionStack
from lib.geometry import Box
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.files import RawFiles
from lib.storage.digests import REORDER_BYTES
from lib.transport.partial import Fetched

_TAIL_BYTES = 4 * 2**10


def digest_reads(size: int, workers: int, checksum: str | None = None) -> int:
    """How often a file that is not kept is read: twice if its ranges may come out of order.

    So is one with a checksum that only a second reading can be held against.
    """
    once = (workers == 1 or size <= REORDER_BYTES) and _check(checksum) is None
    return 1 if once else 2


def kept_while_read(source: RemoteBytes, raw: RawFiles, file: SourceFile) -> ByteSource:
    """The source, whose bytes are kept or hashed as they come."""
    tee = raw.tee(file)
    source.watch(None if tee is None else tee.write, raw.hasher(file).write)
    return GapFillingBytes(source)


def settle_ranged(source: RemoteBytes, raw: RawFiles, file: SourceFile) -> Fetched:
    """Finish what `kept_while_read` began: the kept file, or the digest of the streamed one."""
    tee = raw.tee(file)
    if tee is not None:
        fetched = raw.complete(file, tee, source.read_into)
        return replace(fetched, publisher_checksum=_proven(fetched, file, raw))
    if _check(file.publisher_checksum) is not None:
        proven = digest_of(source, file.publisher_checksum)
        return Fetched(
            raw.path(file),
            source.size,
            proven,
            file.etag,
            file.last_modified,
            file.publisher_checksum,
        )
    if raw.hasher(file).hexdigest(source.size) is None:
        hasher, step = raw.new_hasher(file), source.range_bytes  # once more, in order
        ranges = [(at, min(step, source.size - at)) for at in range(0, source.size, step)]
        for (offset, _), view in zip(ranges, source.ranges_ordered(ranges), strict=True):
            hasher.write(offset, view)
    sha256 = raw.hasher(file).hexdigest(source.size)
    if sha256 is None:
        raise FormatError("the file's bytes did not come in order", location=file.url)
    path = raw.path(file)  # nothing lies there; it names the file
    return Fetched(path, source.size, sha256, file.etag, file.last_modified)


def _proven(fetched: Fetched, file: SourceFile, raw: RawFiles) -> str | None:
    """The publisher's checksum, if the kept file fits it; a file that does not is deleted."""
    if _check(file.publisher_checksum) is None:
        return fetched.publisher_checksum
    try:
        with closing(LocalBytes(fetched.path, name=file.url)) as source:
            digest_of(source, file.publisher_checksum)
    except SourceChangedError:
        raw.forget(file)
        raise
    return file.publisher_checksum


def digest_of(source: ByteSource, published: str | None) -> str:
    """sha256 of all bytes of a source, held against the publisher's checksum on the way.

    Raises
    ------
    SourceChangedError
        They do not fit: what was made from them must not stay.
    """
    digest, check = hashlib.sha256(), _check(published)
    step = source.range_bytes
    ranges = [(at, min(step, source.size - at)) for at in range(0, source.size, step)]
    for view in source.ranges_ordered(ranges):
        digest.update(view)
        check = None if check is None else check.updated(view)
    if check is not None and published is not None and check.text != published.lower():
        raise SourceChangedError(
            f"the bytes fit {check.text}, the publisher says {published}", location=source.name
        )
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Check:
    """A running checksum of the kinds that stores publish beside md5."""

    kind: str
    value: int = 0

    def updated(self, view: memoryview) -> _Check:
        if self.kind == "crc32":
            return _Check(self.kind, zlib.crc32(view, self.value))
        return _Check(self.kind, google_crc32c.extend(self.value, bytes(view)))

    @property
    def text(self) -> str:
        return f"{self.kind}:{self.value:08x}"


def _check(published: str | None) -> _Check | None:
    kind = (published or "").partition(":")[0].lower()
    return _Check(kind) if kind in ("crc32", "crc32c") else None


class GapFillingBytes:
    """A source that, between neighbouring ranges, also asks for the bytes that nobody wants.

    Padding and short texts between the pages of a file would otherwise have to be fetched later,
    one request for each.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.name, self.size = source.name, source.size
        self.remote, self.range_bytes = source.remote, source.range_bytes

    def read_into(self, offset: int, view: memoryview) -> None:
        self.source.read_into(offset, view)

    def read(self, offset: int, length: int) -> bytes:
        return self.source.read(offset, length)

    def ranges_ordered(self, ranges: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
        wanted = list(ranges)
        views = self.source.ranges_ordered(self._gaps_filled(wanted))
        for (_, length), view in zip(wanted, views, strict=True):
            yield view[:length]

    def _gaps_filled(self, wanted: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        following = [offset for offset, _ in wanted[1:]]
        for (offset, length), after in zip(wanted, [*following, None], strict=True):
            stop = offset + length
            if after is None:
                # The next part of the volume begins behind a little of the same kind.
                stop = max(stop, min(self.size, stop + _TAIL_BYTES))
            elif stop < after <= stop + GAP_BYTES:
                stop = after
            yield offset, stop - offset

    def close(self) -> None:
        self.source.close()


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
        self._bring, self._at_once = bring, at_once
        self._crew: Crew[None] = Crew(at_once, "arriving", abandons=True)
        # A byte for each file: a job and a future of its own would take kilobytes.
        self._begun, self._there = bytearray(count), bytearray(count)
        self._waiting: deque[int] = deque()
        self._failed: dict[int, BaseException] = {}
        self._bringing = 0  # threads that take what waits
        self._moved = threading.Condition()

    def want(self, numbers: Iterable[int], ahead: int = 0) -> None:
        """Begin to bring files, and so many of those that follow the last of them.

        Returns at once. How far ahead it goes is bounded by the caller, because another process may
        be meant to read what follows.
        """
        wanted = [*numbers]
        if wanted:
            wanted += range(wanted[-1] + 1, min(wanted[-1] + 1 + ahead, len(self._begun)))
        with self._moved:
            for number in wanted:
                if not self._begun[number]:
                    self._begun[number] = True
                    self._waiting.append(number)
                    if self._bringing < self._at_once:
                        self._bringing += 1
                        self._crew.begin(self._bring_waiting)

    def wait_for(self, number: int) -> None:
        """Wait until a file is there.

        Raises
        ------
        StoppedError
            Within a second of a stop.
        MacroscopeError
            It could not be brought; the next one who waits has it tried again.
        """
        while not self._there[number]:
            with self._moved:
                error = self._failed.pop(number, None)
            if error is not None:
                raise error
            self.want([number])
            with self._moved:
                cancel.wait_for(self._moved, lambda: self._there[number] >= self._begun[number])

    def close(self) -> None:
        """Let no more files come; what has begun is broken off."""
        with self._moved:
            self._waiting.clear()
        self._crew.dismiss(_GRACE_S)

    def _bring_waiting(self) -> None:
        while (number := self._next()) is not None:
            try:
                self._bring(number)
            except BaseException as error:
                with self._moved:
                    self._failed[number] = error
                    self._begun[number] = False
                    self._moved.notify_all()
            else:
                with self._moved:
                    self._there[number] = True
                    self._moved.notify_all()

    def _next(self) -> int | None:
        with self._moved:
            if self._waiting:
                return self._waiting.popleft()
            self._bringing -= 1
            return None


class PlannedSections(Sequence[Section]):
    """The sections of a plan; each is made when it is asked for, for there may be 20,000.

    Parameters
    ----------
    shape_yx
        Of every section.
    opened
        Opens the file of a number.
    """

    def __init__(
        self, plan: VolumePlan, shape_yx: tuple[int, int], opened: Callable[[int], VolumeReader]
    ) -> None:
        self._plan, self._shape, self._opened = plan, shape_yx, opened
        self._dtype = np.dtype(plan.dtype)
        self.numbers: list[int | None] = [None] * plan.reader["depth"]
        """Of each section that of its file; None where it has none."""
        for number, place in enumerate(plan.reader["places"]):
            self.numbers[place] = number

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, z: int) -> Section: ...
    @overload
    def __getitem__(self, z: slice) -> Sequence[Section]: ...
    def __getitem__(self, z: int | slice) -> Section | Sequence[Section]:
        if isinstance(z, slice):
            return [self[one] for one in range(*z.indices(len(self)))]
        number = self.numbers[z]
        if number is None:
            name = f"section {z + self._plan.reader['first_z']}"
            opener = partial(MissingSection, name, self._shape, self._dtype)
            return Section(name, self._shape, self._dtype, opener)
        name = self._plan.files[number].name
        return Section(name, self._shape, self._dtype, partial(self._opened, number))


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
        z0, z1 = box.start_zyx[0], box.stop_zyx[0]
        wanted = [number for number in self._files[z0:z1] if number is not None]
        self._arriving.want(wanted, ahead=z1 - z0)
        yield from super().blocks(box)
