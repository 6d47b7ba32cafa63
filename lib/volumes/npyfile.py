"""Streaming into one ``.npy`` file without ever holding the array.

The file has its full size from the start, under its staging name; units are row ranges as wide as
the volume, so each of their planes is one contiguous write.
"""

from __future__ import annotations

import hashlib
import io
import os
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
from lib.volumes.blockpass import Buffers, gather, run_all
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
    buffers = Buffers(job.grid.shard_zyx, job.dtype)
    with naming_os_errors(path, "write"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
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
    """Write each plane of `voxels` (as wide as the volume) as one run of bytes."""
    if box.shape_zyx[2] != shape_zyx[2]:
        raise IntegrityError(f"a unit of an npy volume must be as wide as the volume, not {box}")
    row = shape_zyx[2] * voxels.dtype.itemsize
    for z, plane in enumerate(voxels, start=box.start_zyx[0]):
        view = memoryview(plane.reshape(-1).view("u1"))
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
