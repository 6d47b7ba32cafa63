"""All pages of a TIFF: walked, or extrapolated from the first and verified.

A page's directory may lie anywhere. Writers such as ITK put it behind the page, so that a walk
over a remote file takes a request a page. Where the first two directories show a constant stride,
the last page is looked at; if it is where it should be and says what it should say, the pages
between are extrapolated, and each is verified when its bytes stream by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from lib.bytesource.base import ByteSource, MemoryBytes
from lib.concurrency import cancel as stopping
from lib.errors import FormatError, MacroscopeError
from lib.formats.tiff.ifd import TiffHeader, check_following, read_ifd
from lib.formats.tiff.page import Page, read_any_page, read_page

MAX_PAGES = 1_000_000
_SCATTERED_BYTES = 32 * 2**10  # directories further apart than this are not worth walking remotely
_MAX_VERIFIED_BYTES = 2**20  # a directory with its tables, to be read along with its page


@dataclass(slots=True)
class PageList:
    """The pages of the main chain, in file order.

    `walked` holds the pages that were read; any page after them is `stride` bytes from the one
    before, up to `count`.
    """

    source: ByteSource
    header: TiffHeader
    walked: list[Page]
    count: int
    stride: int = 0
    _verified: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Page:
        if index < len(self.walked):
            return self.walked[index]
        steps = index - len(self.walked) + 1
        return self.walked[-1].moved(steps * self.stride, steps)

    @property
    def extrapolated(self) -> bool:
        return self.count > len(self.walked)

    def unverified(self, index: int) -> bool:
        """True while page `index` is only believed to be where it is."""
        return index >= len(self.walked) and index not in self._verified

    def verify(self, index: int, view: memoryview) -> None:
        """Compare page `index` with its own directory, `view` being the bytes of its `ifd_span`.

        Raises
        ------
        FormatError
            The page is not what the first pages promised.
        """
        expected = self[index]
        window = MemoryBytes(
            view, name=self.source.name, base=expected.ifd_span[0], size=self.source.size
        )
        try:
            found = read_page(read_ifd(window, self.header, expected.ifd_offset))
        except MacroscopeError as error:
            raise error.located(unit=f"page {index}") from None
        last = index == self.count - 1
        if not found.same_as(expected, last=last) or (last and found.next_ifd != 0):
            raise FormatError(
                "the page's own directory differs from what the first pages and the last promise",
                location=self.source.name,
                unit=f"page {index}",
                advice="Fetch the file by other means, and give its path as an address",
            )
        self._verified.add(index)


def list_pages(source: ByteSource, header: TiffHeader) -> PageList:
    """Find all pages.

    Raises
    ------
    FormatError
        The chain of directories leaves the file or loops, or a page is damaged.
    StoppedError
        A stop was requested.
    """
    first = read_any_page(read_ifd(source, header, header.first_ifd))
    if source.remote and first.next_ifd - first.ifd_offset > _SCATTERED_BYTES:
        check_following(source, header, first.next_ifd)
        found = _extrapolate(source, header, first)
        if found is not None:
            return found
    pages = [first, *_walk(source, header, first)]
    return PageList(source, header, pages, len(pages))


def _walk(source: ByteSource, header: TiffHeader, first: Page) -> Iterator[Page]:
    """The pages after `first`; directories and voxels together may not exceed the file."""
    page, seen = first, {first.ifd_offset}
    tables, data = first.table_bytes, first.data_bytes
    while page.next_ifd:
        stopping.check()
        if page.next_ifd in seen or len(seen) >= MAX_PAGES:
            raise FormatError(
                f"the chain of TIFF pages loops or does not end after {len(seen)} pages",
                location=source.name,
            )
        seen.add(page.next_ifd)
        try:
            page = read_any_page(read_ifd(source, header, page.next_ifd))
        except MacroscopeError as error:
            raise error.located(unit=f"page {len(seen) - 1}") from None
        if page.kind == first.kind:
            page = replace(page, kind=first.kind)  # one object for all, as there may be many pages
        tables, data = tables + page.table_bytes, data + page.data_bytes
        if tables > source.size or data > source.size:
            raise FormatError(
                f"the first {len(seen)} pages claim more bytes than the file has: pages overlap",
                location=source.name,
            )
        yield page


def _extrapolate(source: ByteSource, header: TiffHeader, first: Page) -> PageList | None:
    """Pages at a constant stride, if the last one proves it; None if the pattern does not hold."""
    if first.number is not None and first.number[1] * first.data_bytes > source.size:
        raise FormatError(
            f"the first page says that there are {first.number[1]} pages of {first.data_bytes} "
            f"bytes, the file has {source.size} bytes: it is cut short",
            location=source.name,
        )
    for walked in _beginnings(source, header, first):
        page = walked[-1]
        stride = page.next_ifd - page.ifd_offset
        if not _repeats(page, stride):
            continue
        if page.number is not None and page.number[1]:
            steps = page.number[1] - 1 - page.number[0]
        else:
            steps = (source.size - page.ifd_span[1]) // stride
        expected = page.moved(steps * stride, steps)
        if not 0 < steps < MAX_PAGES or expected.ifd_span[1] > source.size:
            continue
        try:
            last = read_page(read_ifd(source, header, expected.ifd_offset))
        except FormatError:  # no directory there: the guess was wrong, not the file
            continue
        if last.same_as(expected, last=True) and last.next_ifd == 0:
            return PageList(source, header, walked, len(walked) + steps, stride)
    return None


def _beginnings(source: ByteSource, header: TiffHeader, first: Page) -> Iterator[list[Page]]:
    """The first page alone, then, since a description may set it apart, the first two."""
    yield [first]
    second = read_any_page(read_ifd(source, header, first.next_ifd))
    if second.next_ifd and second.kind == first.kind:  # else each page has to say what it is
        yield [first, second]


def _repeats(page: Page, stride: int) -> bool:
    """True if voxels, directory and tables of one page fit one stride."""
    if page.data_offset is None:
        return False
    start = min(page.data_offset, page.ifd_span[0])
    stop = max(page.data_offset + page.data_bytes, page.ifd_span[1])
    tables = page.ifd_span[1] - page.ifd_span[0]
    return stop - start <= stride and tables <= _MAX_VERIFIED_BYTES
