"""Streaming into one ``.npy`` file without ever holding the array.

The file has its full size from the start, under its staging name; units are row ranges as wide as
the volume, so each of their planes is one contiguous write.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib import stopping
from lib.errors import DestinationError, IntegrityError
from lib.geometry import Box, ShapeZYX
from lib.readers.base import VolumeReader
from lib.storage.base import Store
from lib.storage.os_errors import naming_os_errors
from lib.volumes.blockpass import Buffers, Line, gather, run_all
from lib.volumes.effort import Effort
from lib.volumes.job import VolumeJob
from lib.volumes.ledger import Entry, StoredFile
from lib.volumes.tally import Tally

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
    units: Iterable[ShapeZYX],
    *,
    effort: Effort,
    done: Callable[[Entry], None],
) -> None:
    """Write row ranges in place; see `lib.volumes.engine.convert`."""
    units = list(units)
    if not units:  # all done, perhaps published: a file begun now would be one of zeros
        return
    path = local_file(store, store.staging_key(job.final_key))
    header = npy_header(job.plan.shape_zyx, job.dtype)
    size = len(header) + int(np.prod(job.plan.shape_zyx)) * job.dtype.itemsize
    buffers, line = Buffers(job.grid.shard_zyx, job.dtype), Line()
    places = {unit: place for place, unit in enumerate(units)}
    digest = _digest_of(job, path, header, units[0])
    with naming_os_errors(path, "write"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with naming_os_errors(path, "write"):
            # every worker does this alike: it changes nothing that is already there
            os.pwrite(handle, header, 0)
            os.ftruncate(handle, size)

        def make(unit: ShapeZYX) -> None:
            box = job.box_of(unit)
            with buffers.lend(box.shape_zyx) as voxels:
                missing = gather(reader, box, voxels)
                with naming_os_errors(path, "write"):
                    _write_rows(handle, len(header), job.plan.shape_zyx, box, voxels)
                tally = Tally(job.dtype)
                tally.add(0, voxels)
                with line.turn(places[unit]):
                    digest.take(box, voxels)
            done(
                Entry(
                    fingerprint=job.fingerprint,
                    level=0,
                    index_zyx=unit,
                    files=(StoredFile(key="", size=size, sha256=""),),
                    statistics=tally.result().to_json(),
                    missing_chunks=tuple(missing),
                )
            )

        run_all(units, make, at_once=effort.shards)
    finally:
        os.close(handle)


class _FrontToEnd:
    """The digest of a file that one process writes whole and in order; otherwise it gives up."""

    def __init__(self, header: bytes, shape_zyx: ShapeZYX) -> None:
        self._sha256, self._shape = hashlib.sha256(header), shape_zyx
        self._next: ShapeZYX | None = (0, 0, 0)
        self._lock = threading.Lock()

    def take(self, box: Box, voxels: NDArray[Any]) -> None:
        """Take what is written next: whole planes, or it is not in order."""
        with self._lock:
            if box.start_zyx == self._next and box.shape_zyx[1:] == self._shape[1:]:
                self._sha256.update(voxels.reshape(-1).view("u1").data)
                self._next = (box.stop_zyx[0], 0, 0)
            else:
                self._next = None

    def hexdigest(self) -> str | None:
        """Of the whole file, or None."""
        whole = self._next == (self._shape[0], 0, 0)
        return self._sha256.hexdigest() if whole else None


_digests: dict[tuple[str, str], _FrontToEnd] = {}  # by path and fingerprint, until they are asked


def _digest_of(job: VolumeJob, path: str, header: bytes, first: ShapeZYX) -> _FrontToEnd:
    """The running digest of the file; it begins with the first unit, and never in the middle."""
    key, fresh = (path, job.fingerprint), _FrontToEnd(header, job.plan.shape_zyx)
    if first == (0, 0, 0):
        _digests[key] = fresh
    return _digests.get(key, fresh)


def digest_npy(job: VolumeJob, store: Store, key: str) -> tuple[int, str]:
    """Size and sha256 of a finished file, read again unless this process wrote all of it in order.

    Raises
    ------
    NotFoundError, DestinationError, StoppedError
    """
    path = local_file(store, key)
    digest = _digests.pop((path, job.fingerprint), None)
    known = None if digest is None else digest.hexdigest()
    if known is None:
        return digest_file(path)
    with naming_os_errors(path, "read"):
        return os.stat(path).st_size, known


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


def _write_rows(
    handle: int, offset: int, shape_zyx: ShapeZYX, box: Box, voxels: NDArray[Any]
) -> None:
    """Write `voxels`, as wide as the volume: whole planes as one run of bytes, else each as one."""
    if box.shape_zyx[2] != shape_zyx[2]:
        raise IntegrityError(f"a unit of an npy volume must be as wide as the volume, not {box}")
    row = shape_zyx[2] * voxels.dtype.itemsize
    runs = voxels[np.newaxis] if box.shape_zyx[1] == shape_zyx[1] else voxels
    for z, run in enumerate(runs, start=box.start_zyx[0]):
        view = memoryview(run.reshape(-1).view("u1"))
        at = offset + (z * shape_zyx[1] + box.start_zyx[1]) * row
        while view:
            written = os.pwrite(handle, view, at)
            view, at = view[written:], at + written


def digest_file(path: str) -> tuple[int, str]:
    """Size and sha256 of a file, read in blocks."""
    digest, size = hashlib.sha256(), 0
    buffer = bytearray(_BLOCK)
    with naming_os_errors(path, "read"), open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            stopping.check()
            digest.update(memoryview(buffer)[:count])
            size += count
    return size, digest.hexdigest()
