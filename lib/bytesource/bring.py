"""A file brought whole to this machine, by ranges of whatever source it has."""

from __future__ import annotations

from pathlib import Path

from lib.bytesource.base import ByteSource
from lib.bytesource.tree import ObjectInfo
from lib.errors import SourceChangedError
from lib.transport.partial import Fetched, PartialFile


def bring(source: ByteSource, info: ObjectInfo, path: Path) -> Fetched:
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
