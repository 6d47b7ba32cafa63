"""A remote file that is read by ranges: kept, or at least hashed, in the same pass."""

from __future__ import annotations

from lib.bytesource.base import ByteSource
from lib.bytesource.remote import RemoteBytes
from lib.errors import FormatError
from lib.formats.covering import CoveringBytes
from lib.plan import SourceFile
from lib.rawfiles.files import RawFiles
from lib.storage.ordered_hash import REORDER_BYTES
from lib.transport.partial import Fetched


def digest_reads(size: int, workers: int) -> int:
    """How often a file that is not kept is read: twice if its ranges may come out of order."""
    return 1 if workers == 1 or size <= REORDER_BYTES else 2


def kept_while_read(source: RemoteBytes, raw: RawFiles, file: SourceFile) -> ByteSource:
    """The source, whose bytes are kept or hashed as they come."""
    tee = raw.tee(file)
    source.watch(None if tee is None else tee.write, raw.hasher(file).write)
    return CoveringBytes(source)


def settle_ranged(source: RemoteBytes, raw: RawFiles, file: SourceFile) -> Fetched:
    """Finish what `kept_while_read` began: the kept file, or the digest of the streamed one."""
    tee = raw.tee(file)
    if tee is not None:
        return raw.complete(file, tee, source.read_into)
    if raw.hasher(file).hexdigest(source.size) is None:
        _stream(source, raw, file)
    sha256 = raw.hasher(file).hexdigest(source.size)
    if sha256 is None:
        raise FormatError("the file's bytes did not come in order", location=file.url)
    path = raw.path(file)  # nothing lies there; it names the file
    return Fetched(path, source.size, sha256, file.etag, file.last_modified)


def _stream(source: RemoteBytes, raw: RawFiles, file: SourceFile) -> None:
    """Read the file once more, in order, for its digest only."""
    hasher = raw.new_hasher(file)
    step = source.range_bytes
    ranges = [(at, min(step, source.size - at)) for at in range(0, source.size, step)]
    for (offset, _), view in zip(ranges, source.ranges_ordered(ranges), strict=True):
        hasher.write(offset, view)
