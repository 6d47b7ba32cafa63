"""Volumes that are plain rows of planes behind a header: NRRD, NIfTI, AmiraMesh.

Files that are compressed as a whole are unpacked into a scratch file of bounded size.
"""

from __future__ import annotations

import bz2
import errno
import math
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lib.bytesource.base import ByteSource, LocalBytes
from lib.concurrency import cancel as stopping
from lib.errors import ConfigError, DestinationError, DestinationFullError, FormatError
from lib.formats.base import Block, Layout, VolumeReader
from lib.formats.planes import check_box, plane_blocks
from lib.geometry import Box, ShapeZYX


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
        """Yield blocks of at most one range that tile `box`; see `VolumeReader`."""
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


def unpacked_file(
    source: ByteSource, scratch: Path | None, unpack: Callable[[Path], LocalBytes]
) -> LocalBytes:
    """A scratch file that `unpack` makes; it goes with the reader that holds it open.

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
        return unpack(target)
    finally:
        target.unlink(missing_ok=True)
        source.close()


_CHUNK_BYTES = 2**20


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


def unpacked(source: ByteSource, *, gzip: bool, start: int = 0) -> Iterator[bytes]:
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
            decoder = zlib.decompressobj(31) if gzip else bz2.BZ2Decompressor()
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
