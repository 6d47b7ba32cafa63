"""A TIFF on a web server: read by ranges, kept or at least hashed in the same pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from lib.archives.selection import Crop
from lib.bytesource.base import ByteSource, LocalBytes
from lib.bytesource.remote import HttpBytes
from lib.errors import FormatError
from lib.formats import registry
from lib.formats.base import VolumeReader
from lib.formats.planes import CroppedReader
from lib.formats.tiff.reader import TiffVolume, open_tiff
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.files import RawFiles
from lib.rawfiles.ranged import kept_while_read, settle_ranged
from lib.transport.http import RemoteFile
from lib.transport.partial import Fetched
from lib.transport.session import Session


@dataclass(frozen=True, slots=True)
class TransferCost:
    """What reading takes."""

    nbytes: int
    requests: int

    def times(self, count: int) -> TransferCost:
        """The same, `count` times."""
        return TransferCost(self.nbytes * count, self.requests * count)


def source_file(remote: RemoteFile, name: str) -> SourceFile:
    """A plan's description of a file on a web server."""
    return SourceFile(
        url=remote.url,
        name=name,
        size=remote.size,
        etag=remote.etag,
        last_modified=remote.last_modified,
        publisher_checksum=remote.publisher_checksum,
    )


def as_remote(file: SourceFile) -> RemoteFile:
    """The inverse of `source_file`; every range is held against it."""
    return RemoteFile(file.url, file.size, file.etag, file.last_modified, file.publisher_checksum)


def describe(
    session: Session, service: str, remote: RemoteFile, **chosen: int | None
) -> tuple[TiffVolume, TransferCost]:
    """One volume of a remote TIFF, and what it took to read its directories."""
    counters = session.counters.service(service)
    before = counters.snapshot()
    volume = open_tiff(HttpBytes(session, service, remote), **chosen)
    after = counters.snapshot()
    took = (after[key] - before[key] for key in ("bytes_received", "requests"))
    return volume, TransferCost(*took)


def read_cost(volume: TiffVolume, header: TransferCost, crop: Crop) -> TransferCost:
    """What `open_ranges` and reading all blocks will take; directories are read once more."""
    source = volume.source
    nbytes = source.size
    if not crop.whole:
        nbytes = math.ceil(nbytes * crop.box.shape_zyx[0] / volume.shape_zyx[0])
    requests = math.ceil(nbytes / source.range_bytes)
    return TransferCost(nbytes + header.nbytes, requests + header.requests)


def open_local(path: Path, plan: VolumePlan) -> VolumeReader:
    """Read the plan's voxels out of a file on this machine."""
    return _reader(LocalBytes(path), plan)


def open_ranges(service: str, plan: VolumePlan, session: Session, raw: RawFiles) -> VolumeReader:
    """Read the plan's voxels by ranges; the whole volume is kept or hashed on the way."""
    file = plan.files[0]
    source = HttpBytes(session, service, as_remote(file))
    if plan.box_zyx is not None:
        return _reader(source, plan)
    return _reader(kept_while_read(source, raw, file), plan)


def settle_ranges(service: str, plan: VolumePlan, session: Session, raw: RawFiles) -> list[Fetched]:
    """Finish what `open_ranges` began: the kept file, or the digest of the streamed one."""
    file = plan.files[0]
    if plan.box_zyx is not None or file.size is None:
        return []
    return [settle_ranged(HttpBytes(session, service, as_remote(file)), raw, file)]


def _reader(source: ByteSource, plan: VolumePlan) -> VolumeReader:
    chosen = plan.reader
    handle = {key: chosen.get(key) for key in ("series", "channel", "time")}
    reader = registry.file_format("tiff").open(source, handle)
    expected = tuple(chosen["shape_zyx"])
    if reader.shape_zyx != expected or reader.dtype.name != plan.dtype:
        raise FormatError(
            f"the file holds {reader.shape_zyx} {reader.dtype}, the plan says {expected} "
            f"{plan.dtype}",
            archive=plan.source,
            location=source.name,
        )
    return CroppedReader(reader, plan.box_zyx, source.name) if plan.box_zyx else reader
