"""Files that are compressed as a whole, unpacked into a scratch file of bounded size."""

from __future__ import annotations

import bz2
import errno
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lib.bytesource.base import ByteSource, LocalBytes
from lib.concurrency import cancel as stopping
from lib.errors import DestinationError, DestinationFullError, FormatError

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
