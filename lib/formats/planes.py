"""Uncompressed planes: rows of voxels that lie one after another in a file, behind a header or not.

Files compressed as a whole are unpacked into a bounded scratch file. Readers in place of others: a
crop, a section that an archive does not hold, and files of one section each as one volume.
"""

from __future__ import annotations

import bz2
import errno
import math
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.base import ByteSource, LocalBytes, Span, read_spans
from lib.concurrency import cancel as stopping
from lib.errors import (
    ConfigError,
    DestinationError,
    DestinationFullError,
    FormatError,
    OutOfBoundsError,
    UnsupportedFormatError,
)
from lib.formats.base import Block, Layout, VolumeReader, check_values
from lib.formats.format import FileFormatBase, Handle, Options, VolumeDescription, only_path
from lib.geometry import Box, ShapeZYX, minimum, subtract


def check_box(box: Box, shape_zyx: ShapeZYX, name: str) -> None:
    """Raise `OutOfBoundsError` unless `box` lies inside a volume of `shape_zyx`."""
    if not box.empty and not Box.whole(shape_zyx).contains(box):
        raise OutOfBoundsError(
            f"the box {box} is not inside the volume {Box.whole(shape_zyx)}", location=name
        )


def native(view: memoryview, stored: np.dtype[Any]) -> NDArray[Any]:
    """`view` as voxels in native byte order and aligned; a copy only where that takes one."""
    voxels: NDArray[Any] = np.frombuffer(view, dtype=stored)
    if stored.isnative and voxels.flags.aligned:
        return voxels
    return voxels.astype(stored.newbyteorder("="))


def row_spans(
    box: Box, *, offset_of: Callable[[int], int], width: int, itemsize: int, range_bytes: int
) -> Iterator[Span[Box]]:
    """Whole rows of the planes that `box` crosses, in slices of at most one range.

    Each span's item is the box of voxels wanted out of those rows.
    """
    (z0, y0, x0), (z1, y1, x1) = box.start_zyx, box.stop_zyx
    row_bytes = width * itemsize
    step = max(1, range_bytes // row_bytes)
    for z in range(z0, z1):
        base = offset_of(z)
        for y in range(y0, y1, step):
            stop = min(y + step, y1)
            piece = Box((z, y, x0), (z + 1, stop, x1))
            yield Span(base + y * row_bytes, (stop - y) * row_bytes, piece)


def rows_block(piece: Box, view: memoryview, stored: np.dtype[Any], width: int) -> Block:
    """The voxels of `piece` out of the whole rows in `view`."""
    rows = native(view, stored).reshape(1, -1, width)
    return Block(piece, rows[:, :, piece.start_zyx[2] : piece.stop_zyx[2]])


def plane_blocks(
    source: ByteSource, box: Box, *, data_offset: int, shape_zyx: ShapeZYX, stored: np.dtype[Any]
) -> Iterator[Block]:
    """Blocks of a volume whose planes follow each other from `data_offset`, without gaps."""
    check_box(box, shape_zyx, source.name)
    if box.empty:
        return
    height, width = shape_zyx[1:]
    plane_bytes = height * width * stored.itemsize
    spans = row_spans(
        box,
        offset_of=lambda z: data_offset + z * plane_bytes,
        width=width,
        itemsize=stored.itemsize,
        range_bytes=source.range_bytes,
    )
    for piece, view in read_spans(source, spans):
        yield rows_block(piece, view, stored, width)


class CroppedReader(VolumeReader):
    """A box of another reader's volume, as a volume of its own.

    Counts voxels from the corner of `box`; only what is asked for is read.
    """

    def __init__(self, reader: VolumeReader, box: Box, name: str) -> None:
        check_box(box, reader.shape_zyx, name)
        self._reader, self._box, self._name = reader, box, name
        self.shape_zyx = box.shape_zyx
        self.dtype = reader.dtype
        chunk = minimum(reader.layout.chunk_zyx, box.shape_zyx)
        self.layout = replace(reader.layout, chunk_zyx=chunk)

    def __exit__(self, *details: object) -> None:
        self._reader.__exit__(None, None, None)

    def blocks(self, box: Box) -> Iterator[Block]:
        check_box(box, self.shape_zyx, self._name)
        corner = self._box.start_zyx
        back = subtract((0, 0, 0), corner)
        for block in self._reader.blocks(box.shifted(corner)):
            yield replace(block, box=block.box.shifted(back))


class MissingSection(VolumeReader):
    """Zeros in place of a section that an archive lacks, named as missing in every block."""

    def __init__(self, name: str, shape_yx: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._name = name
        self.shape_zyx = (1, *shape_yx)
        self.dtype = dtype
        self.layout = Layout((1, 1, shape_yx[1]), by_planes=True)

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield one block of zeros."""
        check_box(box, self.shape_zyx, self._name)
        if not box.empty:
            yield Block(box, np.zeros(box.shape_zyx, self.dtype), (self._name,))


class RawPlanes(VolumeReader):
    """Voxels of a volume whose planes follow each other from one offset. Thread-safe.

    Parameters
    ----------
    offset
        Of the first voxel in the file.
    stored
        dtype in the file's byte order.

    Raises
    ------
    FormatError
        The file ends before the last voxel.
    """

    def __init__(
        self, source: ByteSource, offset: int, shape_zyx: ShapeZYX, stored: np.dtype[Any]
    ) -> None:
        check_whole_file(source, offset, shape_zyx, stored)
        self._source, self._offset, self._stored = source, offset, stored
        self.shape_zyx, self.dtype = shape_zyx, stored.newbyteorder("=")
        _, height, width = shape_zyx
        remote = source.remote
        self.layout = Layout(
            (1, height if remote else 1, width), random_access=not remote, by_planes=True
        )

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def blocks(self, box: Box) -> Iterator[Block]:
        check_box(box, self.shape_zyx, self._source.name)
        yield from plane_blocks(
            self._source,
            box,
            data_offset=self._offset,
            shape_zyx=self.shape_zyx,
            stored=self._stored,
        )


def check_whole_file(
    source: ByteSource, offset: int, shape_zyx: ShapeZYX, stored: np.dtype[Any]
) -> None:
    """Raise `FormatError` where a file ends before its last voxel."""
    stop = offset + math.prod(shape_zyx) * stored.itemsize
    if stop > source.size:
        raise FormatError(
            f"the header asks for {stop} bytes, the file has {source.size}: it is cut short or its "
            "header is damaged",
            location=source.name,
        )


@dataclass(frozen=True, slots=True)
class PlanesHeader:
    """What the header of a file says whose voxels are planes behind one another.

    Attributes
    ----------
    stored
        dtype in the file's byte order.
    offset
        Of the first voxel, in the file or in what it unpacks to.
    pieces
        Unpacks the file from its first voxel, or from its beginning where `offset` is not 0; None
        where the voxels lie in it as they are.
    slack_bytes
        How many bytes may follow the unpacked voxels.
    beside
        Names of the files that hold the voxels, where these do not follow the header.
    described
        Further fields of the `VolumeDescription`.
    """

    shape_zyx: ShapeZYX
    stored: np.dtype[Any]
    offset: int
    pieces: Callable[[], Iterator[bytes]] | None = None
    slack_bytes: int = 0
    beside: tuple[str, ...] = ()
    described: dict[str, Any] = field(default_factory=dict)


class PlanesFormat(FileFormatBase):
    """One volume a file: a header, and planes, which may be compressed as a whole."""

    def parse(self, source: ByteSource) -> PlanesHeader:
        """Read the header. Raises `FormatError` or `UnsupportedFormatError`."""
        raise NotImplementedError

    def describe(self, source: ByteSource, path: str, options: Options) -> list[VolumeDescription]:
        only_path(path, source)
        header = self.parse(source)
        if header.pieces is None and not header.beside:
            check_whole_file(source, header.offset, header.shape_zyx, header.stored)
        return [
            VolumeDescription(
                path="",
                handle={},
                shape_zyx=header.shape_zyx,
                dtype=header.stored.newbyteorder("=").name,
                needs_file=header.pieces is not None,
                beside=header.beside,
                **header.described,
            )
        ]

    def open(self, source: ByteSource, handle: Handle, scratch: Path | None = None) -> RawPlanes:
        header = self.parse(source)
        if header.pieces is None:
            return RawPlanes(source, header.offset, header.shape_zyx, header.stored)
        limit = header.offset + math.prod(header.shape_zyx) * header.stored.itemsize
        limit += header.slack_bytes
        with scratch_file(source, scratch) as target:
            file = write_unpacked(source, target, b"", header.pieces(), limit)
            return RawPlanes(file, header.offset, header.shape_zyx, header.stored)


_CHUNK_BYTES = 2**20


@contextmanager
def scratch_file(source: ByteSource, scratch: Path | None) -> Iterator[Path]:
    """Where a compressed file is unpacked to; its name goes with the block, and `source` is closed.

    Raises
    ------
    ConfigError
        There is no scratch folder.
    """
    if scratch is None:
        raise ConfigError(
            "the file is compressed and there is no scratch folder to unpack it to",
            location=source.name,
        )
    scratch.mkdir(parents=True, exist_ok=True)
    target = scratch / f"{uuid.uuid4().hex}.unpacked"
    try:
        yield target
    finally:
        target.unlink(missing_ok=True)  # whoever reads it holds it open
        source.close()


def write_unpacked(
    source: ByteSource, scratch: Path, head: bytes, pieces: Iterator[bytes], limit: int
) -> LocalBytes:
    """Write pieces to a new file, to no more than `limit` bytes.

    Parameters
    ----------
    head
        What was taken from `pieces` already.

    Returns
    -------
    LocalBytes
        The file, under the name of `source`.

    Raises
    ------
    FormatError
        There are more bytes.
    DestinationError
        The file cannot be written.
    """
    try:
        with scratch.open("xb") as file:
            file.write(head)
            written = len(head)
            for piece in pieces:
                stopping.check()
                written += len(piece)
                if written > limit:
                    raise FormatError(
                        "the compressed file unpacks to far more bytes than its header asks for",
                        location=source.name,
                    )
                file.write(piece)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        kind = DestinationFullError if full else DestinationError
        raise kind(
            f"cannot unpack to the scratch file ({error.strerror})", location=str(scratch)
        ) from error
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    return LocalBytes(scratch, name=source.name)


def unpacked(source: ByteSource, *, gzip: bool, start: int = 0, wbits: int = 31) -> Iterator[bytes]:
    """Decompressed pieces of at most 1 MiB; all members, checked to their end."""
    decoder: Any = None
    offset, data = start, b""
    while offset < source.size or data:
        if not data:
            length = min(_CHUNK_BYTES, source.size - offset)
            data, offset = source.read(offset, length), offset + length
        if decoder is None:
            if not data.strip(b"\0"):  # padding after the last member is legal
                data = b""
                continue
            decoder = zlib.decompressobj(wbits) if gzip else bz2.BZ2Decompressor()
        try:
            piece = decoder.decompress(data, _CHUNK_BYTES)
        except (zlib.error, OSError, ValueError, EOFError) as error:
            raise FormatError(
                f"the compressed file does not unpack ({error})", location=source.name
            ) from error
        if piece:
            yield piece
        if decoder.eof:
            data, decoder = decoder.unused_data, None
        elif gzip:
            data = decoder.unconsumed_tail
        else:
            data = b""
            while not decoder.needs_input and not decoder.eof:
                yield decoder.decompress(b"", _CHUNK_BYTES)
            if decoder.eof:
                data, decoder = decoder.unused_data, None
    if decoder is not None:
        raise FormatError("the compressed file is cut short", location=source.name)


@dataclass(frozen=True, slots=True)
class Section:
    """One file: how to open it, and what is known of it."""

    name: str
    shape_yx: tuple[int, int]
    dtype: np.dtype[Any]
    open: Callable[[], VolumeReader]


class SectionStack(VolumeReader):
    """One volume out of sections in the order given, each opened only while it is read.

    Parameters
    ----------
    sections
        At least one; all of one shape and dtype.

    Raises
    ------
    UnsupportedFormatError
        A section differs in shape or dtype from the first.
    """

    def __init__(self, sections: Sequence[Section]) -> None:
        if not sections:
            raise FormatError("a stack without sections")
        first = sections[0]
        for section in sections:
            if (section.shape_yx, section.dtype) != (first.shape_yx, first.dtype):
                raise UnsupportedFormatError(
                    f"the section is {section.shape_yx} (y, x) {section.dtype}, the first of its "
                    f"stack {first.shape_yx} {first.dtype}",
                    location=section.name,
                    advice="Leave it out with exclude, or set assemble to files",
                )
        self._sections = sections
        self._values: set[str] = set()  # how sections store what is not 0
        self.shape_zyx: ShapeZYX = (len(sections), *first.shape_yx)
        self.dtype = first.dtype
        with first.open() as reader:
            self.layout = reader.layout

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield blocks that tile `box`, section by section; see `VolumeReader`.

        Raises
        ------
        FormatError
            A file is no longer what it was when the stack was made.
        """
        check_box(box, self.shape_zyx, self._sections[0].name)
        (z0, y0, x0), (z1, y1, x1) = box.start_zyx, box.stop_zyx
        for z, section in enumerate([] if box.empty else self._sections[z0:z1], z0):
            with section.open() as reader:
                if reader.shape_zyx != (1, *section.shape_yx) or reader.dtype != section.dtype:
                    raise FormatError(
                        f"the file holds {reader.shape_zyx} {reader.dtype}, not one section of "
                        f"{section.shape_yx} {section.dtype}",
                        location=section.name,
                        unit=f"section {z}",
                    )
                for block in reader.blocks(Box((0, y0, x0), (1, y1, x1))):
                    check_values(self._values, reader, block, section.name)
                    yield replace(block, box=block.box.shifted((z, 0, 0)))
