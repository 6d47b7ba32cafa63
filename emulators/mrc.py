"""Writer of the MRC family: .mrc, .map, .rec, .st and .ali are one container.

Written through the mrcfile library (MRC2014, cell lengths in ångström), so that what we read was
not laid out by us.
"""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray

from lib.errors import UnsupportedFormatError

_NM_TO_ANGSTROM = 10.0
# int8 is mode 0, int16 mode 1, float32 mode 2, uint16 mode 6, float16 mode 12
_DTYPES = {"int8", "int16", "uint16", "float16", "float32"}


def write_mrc(
    path: Path,
    volume_zyx: NDArray[Any],
    *,
    voxel_nm_zyx: tuple[float, float, float] | None,
    permuted: bool = False,
) -> None:
    """Write a volume; ``.gz`` and ``.bz2`` at the end of the name compress the file.

    Parameters
    ----------
    volume_zyx
        3-D array of int8, int16, uint16, float16 or float32.
    voxel_nm_zyx
        Voxel size; ``None`` leaves the cell lengths at 0, as raw tilt series do.
    permuted
        Store columns along z, rows along x and sections along y (``mapc, mapr, maps`` = 3, 1, 2, as
        EMD-3001 does): the same volume, but the stored array has the axes y, x, z.

    Raises
    ------
    UnsupportedFormatError
        A dtype that the container lacks (mrcfile would widen it without a word).
    """
    if volume_zyx.dtype.name not in _DTYPES or volume_zyx.ndim != 3:
        raise UnsupportedFormatError(f"no MRC of {volume_zyx.dtype.name}", location=str(path))
    packed = path.suffix in (".gz", ".bz2")
    plain = path.with_name(path.name + ".plain") if packed else path
    stored = volume_zyx.transpose(1, 2, 0) if permuted else volume_zyx
    with mrcfile.new(plain, overwrite=True) as file:
        file.set_data(np.ascontiguousarray(stored))
        if permuted:
            file.header.mapc, file.header.mapr, file.header.maps = 3, 1, 2
            # the grid counts follow x, y, z, not the order of storage
            file.header.mx, file.header.my, file.header.mz = volume_zyx.shape[::-1]
        _set_cell(file, volume_zyx.shape, voxel_nm_zyx)
        # mrcfile stamps the moment of writing; the same volume has to give the same bytes
        file.header.label[0] = b"macroscope sample"
    if packed:
        _compress(plain, path)


def _set_cell(
    file: Any, shape_zyx: tuple[int, ...], voxel_nm_zyx: tuple[float, float, float] | None
) -> None:
    cell = file.header.cella
    for axis, count, nm in zip("zyx", shape_zyx, voxel_nm_zyx or (0.0, 0.0, 0.0), strict=True):
        cell[axis] = count * nm * _NM_TO_ANGSTROM


def _compress(plain: Path, path: Path) -> None:
    content = plain.read_bytes()
    packed = gzip.compress(content, mtime=0) if path.suffix == ".gz" else bz2.compress(content)
    path.write_bytes(packed)
    plain.unlink()
