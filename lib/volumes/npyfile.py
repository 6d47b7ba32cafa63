"""Streaming into one ``.npy`` file without ever holding the array.

The file has its full size from the start, under its staging name; shards are row ranges as wide as
the volume, so each of their planes is one contiguous write.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.concurrency import cancel as stopping
from lib.concurrency.bounded_map import InOrderGate, run_each
from lib.errors import DestinationError, IntegrityError
from lib.formats.base import VolumeReader
from lib.geometry import Box, ShapeZYX
from lib.storage.base import Store
from lib.storage.digests import OrderedHasher
from lib.storage.durable import naming_os_errors, pwrite_all
from lib.volumes.job import ConcurrencyLimits, VolumeJob
from lib.volumes.label_ids import IdsAccumulator, pack
from lib.volumes.ledger import LedgerEntry, StoredFile, pack_statistics
from lib.volumes.rechunk import Buffers, gather
from lib.volumes.statistics import StatisticsAccumulator

_BLOCK = 8 * 2**20


def npy_header(shape_zyx: ShapeZYX, dtype: np.dtype[Any]) -> bytes:
    """Magic, version and header of a C-ordered array, as numpy writes them."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape_zyx},
    )
    return header.getvalue()


def convert_npy(
    job: VolumeJob,
    reader: VolumeReader,
    store: Store,
    shard_indices: Iterable[ShapeZYX],
    *,
    limits: ConcurrencyLimits,
    done: Callable[[LedgerEntry], None],
) -> None:
    """Write row ranges in place; see `lib.volumes.engine.convert`."""
    shard_indices = list(shard_indices)
    if not shard_indices:  # all done, perhaps published: a file begun now would be one of zeros
        return
    path = local_file(store, store.staging_key(job.final_key))
    header = npy_header(job.plan.shape_zyx, job.dtype)
    size = len(header) + _array_bytes(job)
    buffers, line = Buffers(job.grid.shard_zyx, job.dtype), InOrderGate(shard_indices)
    first = len(header) + _bytes_before(job, job.box_of(shard_indices[0]))
    digest = _running_digest(job, path, header, first)
    with naming_os_errors(path, "write"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with naming_os_errors(path, "write"):
            # every worker does this alike: it changes nothing that is already there
            pwrite_all(handle, memoryview(header), 0)
            os.ftruncate(handle, size)

        def make(shard_index: ShapeZYX) -> None:
            box = job.box_of(shard_index)
            with buffers.lend(box.shape_zyx) as voxels:
                missing = gather(reader.blocks(box), box, voxels)
                runs = _runs(job, len(header), box, voxels)
                store.may_write(job.final_key)
                with naming_os_errors(path, "write"):
                    for at, view in runs:
                        pwrite_all(handle, view, at)
                accumulator, crc32 = StatisticsAccumulator(job.dtype), 0
                accumulator.add(0, voxels)
                ids = IdsAccumulator()
                if job.plan.labels is not None:
                    ids.add(voxels)
                found, background = ids.result()
                for _, view in runs:
                    crc32 = zlib.crc32(view, crc32)
                with line.turn(shard_index):
                    for at, view in runs:
                        digest.write(at, view)
            done(
                LedgerEntry(
                    fingerprint=job.fingerprint,
                    level=0,
                    index_zyx=shard_index,
                    files=(StoredFile(key="", size=size, sha256=""),),
                    crc32=crc32,
                    statistics=pack_statistics(accumulator.result()),
                    missing_chunks=tuple(missing),
                    label_ids=None if job.plan.labels is None else {0: pack(found)},
                    background=background,
                )
            )

        run_each(shard_indices, make, at_once=limits.shards, failed=line.open)
        _digests[path, job.fingerprint] = digest
    finally:
        os.close(handle)


_digests: dict[tuple[str, str], OrderedHasher] = {}
"""Of files begun by this process, by path and fingerprint, until they are asked for."""


def _running_digest(job: VolumeJob, path: str, header: bytes, start: int) -> OrderedHasher:
    """The digest of the file before byte `start`, taken out; or a new one, of the header alone.

    Units must come in order to be digested: held back they would cost memory.
    """
    digest = _digests.pop((path, job.fingerprint), None)
    if digest is None or digest.reached != start:
        digest = OrderedHasher(reorder_bytes=0)
        digest.write(0, memoryview(header))
    return digest


def digest_npy(
    job: VolumeJob, store: Store, key: str, checksums: Mapping[ShapeZYX, int | None]
) -> tuple[int, str]:
    """Size and sha256 of a finished file, read again unless this process wrote all of it in order.

    Parameters
    ----------
    checksums
        Shard index -> CRC-32 of its bytes, as its ledger entry has it; where the file is read,
        each shard is held against it.

    Raises
    ------
    DamagedRowsError
        Rows of the file are not those that were written.
    NotFoundError, DestinationError, StoppedError
    """
    path = local_file(store, key)
    with naming_os_errors(path, "read"):
        size = os.stat(path).st_size
    running = _digests.pop((path, job.fingerprint), None)
    known = None if running is None else running.hexdigest(size)
    if known is not None:
        return size, known
    digest, found = hashlib.sha256(), dict.fromkeys(checksums, 0)
    reached = 0
    for shard_index, at, length in [(None, 0, size - _array_bytes(job)), *_in_file_order(job)]:
        for view in _read(store, key, at, length):
            digest.update(view)
            if shard_index is not None:
                found[shard_index] = zlib.crc32(view, found[shard_index])
        reached = at + length
    damaged = [shard_index for shard_index in found if found[shard_index] != checksums[shard_index]]
    if damaged or reached != size:
        raise DamagedRowsError(key, damaged)
    return size, digest.hexdigest()


def rows_are_whole(job: VolumeJob, store: Store, key: str, entry: LedgerEntry) -> bool:
    """Whether the rows of one shard are those that its ledger entry was written for."""
    offset, crc32 = len(npy_header(job.plan.shape_zyx, job.dtype)), 0
    for at, length in _spans(job, offset, job.grid.shard_box(entry.index_zyx)):
        for view in _read(store, key, at, length):
            crc32 = zlib.crc32(view, crc32)
    return crc32 == entry.crc32


class DamagedRowsError(IntegrityError):
    """Rows of an npy in the making are not those that were written; `shard_indices` are."""

    advice = "Run again: these rows are made again"

    def __init__(self, key: str, shard_indices: Sequence[ShapeZYX] = ()) -> None:
        super().__init__(
            f"the rows of {len(shard_indices)} units are not those that were written",
            location=key,
            unit=", ".join(str(shard_index) for shard_index in shard_indices[:3]),
        )
        self.shard_indices = tuple(shard_indices)


def local_file(store: Store, key: str) -> str:
    """The file behind a key, to be written in place.

    Raises
    ------
    DestinationError
        The store is an object store, where nothing can be written in place.
    """
    path = store.local_path(key)
    if path is None:
        raise DestinationError(
            "an object store cannot be written in place, as .npy needs",
            location=store.uri,
            advice="Use output_format zarr there, or a folder for npy",
        )
    return path


def _array_bytes(job: VolumeJob) -> int:
    return math.prod(job.plan.shape_zyx) * job.dtype.itemsize


def _bytes_before(job: VolumeJob, box: Box) -> int:
    """Bytes of the array before the first voxel of `box`, which is as wide as the volume."""
    _, ny, nx = job.plan.shape_zyx
    return (box.start_zyx[0] * ny + box.start_zyx[1]) * nx * job.dtype.itemsize


def _spans(job: VolumeJob, offset: int, box: Box) -> list[tuple[int, int]]:
    """Where in the file the bytes of `box` lie, each plane alone: ``(at, length)``."""
    _, ny, nx = job.plan.shape_zyx
    if box.shape_zyx[2] != nx:
        raise IntegrityError(f"a shard of an npy volume must be as wide as the volume, not {box}")
    start, plane = offset + _bytes_before(job, box), ny * nx * job.dtype.itemsize
    length = box.shape_zyx[1] * nx * job.dtype.itemsize
    return [(start + z * plane, length) for z in range(box.shape_zyx[0])]


def _runs(
    job: VolumeJob, offset: int, box: Box, voxels: NDArray[Any]
) -> list[tuple[int, memoryview]]:
    """Where in the file which bytes of `voxels` lie: whole planes in one run, else each in one."""
    spans = _spans(job, offset, box)
    whole = box.shape_zyx[1] == job.plan.shape_zyx[1]
    runs = voxels[np.newaxis] if whole else voxels
    starts = spans[:1] if whole else spans
    return [
        (at, memoryview(run.reshape(-1).view("u1")))
        for (at, _), run in zip(starts, runs, strict=True)
    ]


def _in_file_order(job: VolumeJob) -> Iterator[tuple[ShapeZYX, int, int]]:
    """Unit, place and length of every piece of the array, from the front of the file to its end.

    Units side by side in y take turns, plane by plane.
    """
    offset = len(npy_header(job.plan.shape_zyx, job.dtype))
    slabs, rows, _ = job.grid.counts_zyx
    for slab in range(slabs):
        shard_indices = [(slab, row, 0) for row in range(rows)]
        spans = [
            _spans(job, offset, job.grid.shard_box(shard_index)) for shard_index in shard_indices
        ]
        for plane in zip(*spans, strict=True):
            for shard_index, (at, length) in zip(shard_indices, plane, strict=True):
                yield shard_index, at, length


def _read(store: Store, key: str, at: int, length: int) -> Iterator[bytes]:
    for start in range(at, at + length, _BLOCK):
        stopping.check()
        yield store.get_range(key, start, min(_BLOCK, at + length - start))
