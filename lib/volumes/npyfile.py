"""Streaming into one ``.npy`` file without ever holding the array.

The file has its full size from the start, under its staging name; units are row ranges as wide as
the volume, so each of their planes is one contiguous write.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import DestinationError, IntegrityError
from lib.formats.base import VolumeReader
from lib.geometry import Box, ShapeZYX
from lib.storage.base import Store
from lib.storage.digests import digest_of
from lib.storage.ordered_hash import OrderedHasher
from lib.storage.os_errors import naming_os_errors
from lib.storage.uncached import pwrite_all
from lib.volumes.blockpass import Buffers, Line, gather, run_all
from lib.volumes.effort import Effort
from lib.volumes.job import VolumeJob
from lib.volumes.ledger import Entry, StoredFile
from lib.volumes.tally import Tally


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
    buffers, line = Buffers(job.grid.shard_zyx, job.dtype), Line(units)
    first = len(header) + _bytes_before(job, job.box_of(units[0]))
    digest = _running_digest(job, path, header, first)
    with naming_os_errors(path, "write"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with naming_os_errors(path, "write"):
            # every worker does this alike: it changes nothing that is already there
            pwrite_all(handle, memoryview(header), 0)
            os.ftruncate(handle, size)

        def make(unit: ShapeZYX) -> None:
            box = job.box_of(unit)
            with buffers.lend(box.shape_zyx) as voxels:
                missing = gather(reader, box, voxels)
                runs = _runs(job, len(header), box, voxels)
                with naming_os_errors(path, "write"):
                    for at, view in runs:
                        pwrite_all(handle, view, at)
                tally = Tally(job.dtype)
                tally.add(0, voxels)
                with line.turn(unit):
                    for at, view in runs:
                        digest.write(at, view)
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


def digest_npy(job: VolumeJob, store: Store, key: str) -> tuple[int, str]:
    """Size and sha256 of a finished file, read again unless this process wrote all of it in order.

    Raises
    ------
    NotFoundError, DestinationError, StoppedError
    """
    path = local_file(store, key)
    with naming_os_errors(path, "read"):
        size = os.stat(path).st_size
    digest = _digests.pop((path, job.fingerprint), None)
    known = None if digest is None else digest.hexdigest(size)
    return digest_of(store, key) if known is None else (size, known)


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


def _bytes_before(job: VolumeJob, box: Box) -> int:
    """Bytes of the array before the first voxel of `box`, which is as wide as the volume."""
    _, ny, nx = job.plan.shape_zyx
    return (box.start_zyx[0] * ny + box.start_zyx[1]) * nx * job.dtype.itemsize


def _runs(
    job: VolumeJob, offset: int, box: Box, voxels: NDArray[Any]
) -> list[tuple[int, memoryview]]:
    """Where in the file which bytes of `voxels` lie: whole planes in one run, else each in one."""
    _, ny, nx = job.plan.shape_zyx
    if box.shape_zyx[2] != nx:
        raise IntegrityError(f"a unit of an npy volume must be as wide as the volume, not {box}")
    start, plane = offset + _bytes_before(job, box), ny * nx * voxels.dtype.itemsize
    runs = voxels[np.newaxis] if box.shape_zyx[1] == ny else voxels
    return [
        (start + z * plane, memoryview(run.reshape(-1).view("u1"))) for z, run in enumerate(runs)
    ]
