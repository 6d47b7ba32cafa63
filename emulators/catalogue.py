"""What the stand-in archives hold: one register, from which files and truth both come.

:func:`build` lays the trees down; :func:`truth` makes the voxels of any volume again from
coordinates, without reading a file. Names, folders and kinds follow the public archives; sizes are
small. Ids from 99001 (EMPIAR) and 99000001 (IDR) on, and the data sets ``jrc_sample-*``, are
invented.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulators.catalogue_empiar import empiar_samples, lay_companions
from emulators.catalogue_idr import epfl_samples, idr_samples
from emulators.catalogue_openorganelle import finish_stores, openorganelle_samples
from emulators.dvid_documents import DVID_SIZE_XYZ
from emulators.empiar_entries import lay_entries
from emulators.sample import Sample
from emulators.tissue import tissue
from lib.errors import NotFoundError

# part of the marker of a finished build; raise it when the bytes of any file change
_VERSION = 2
_DVID_SEED = 6

DVID_EXTENTS = DVID_SIZE_XYZ
"""Voxels of the virtual hemibrain along x, y, z."""


def samples() -> dict[str, Sample]:
    """Every volume by its key, such as ``ebi/EMPIAR-11759`` or ``idr/9846137``."""
    found = [*empiar_samples(), *epfl_samples(), *idr_samples(), *openorganelle_samples()]
    return {sample.key: sample for sample in found}


_MODIFIED = 1_705_320_000  # 2024-01-15T12:00:00Z, the release of EMPIAR-11759


def build(root: Path) -> None:
    """Lay down ``root/ftp``, ``root/epfl`` and ``root/s3``.

    The bytes are the same in every build. A finished build is not repeated; an unfinished one is
    written over.
    """
    marker = root / f".built-{_VERSION}"
    if marker.exists():
        return
    root.mkdir(parents=True, exist_ok=True)
    for sample in samples().values():
        if sample.write is not None:
            for path in sample.paths:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
            sample.write(root)
    lay_companions(root)
    lay_entries(root)
    finish_stores(root)
    for entry in root.rglob("*"):  # archives' files are old; a rebuilt sample is no changed source
        os.utime(entry, (_MODIFIED, _MODIFIED))
    marker.touch()


def truth(key: str) -> NDArray[Any]:
    """Voxels of a volume, z, y, x, from the generators.

    Raises
    ------
    NotFoundError
        No sample has this key.
    """
    known = samples()
    if key not in known:
        raise NotFoundError(f"no sample {key!r}", advice=f"Known: {', '.join(sorted(known))}")
    return known[key].truth()


def dvid_voxels(origin_zyx: tuple[int, int, int], shape_zyx: tuple[int, int, int]) -> NDArray[Any]:
    """Voxels (uint8, z, y, x) of the virtual hemibrain; 0 outside its extents, as DVID answers.

    Inside the extents no voxel is 0.
    """
    size_zyx = DVID_SIZE_XYZ[::-1]
    start = [min(max(o, 0), n) for o, n in zip(origin_zyx, size_zyx, strict=True)]
    stop = [min(max(o + s, 0), n) for o, s, n in zip(origin_zyx, shape_zyx, size_zyx, strict=True)]
    inside = (stop[0] - start[0], stop[1] - start[1], stop[2] - start[2])
    first = (start[0], start[1], start[2])
    if inside == tuple(shape_zyx):
        return tissue(first, inside, seed=_DVID_SEED)
    voxels = np.zeros(shape_zyx, np.uint8)
    if min(inside) > 0:
        where = tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, origin_zyx, strict=True))
        voxels[where] = tissue(first, inside, seed=_DVID_SEED)
    return voxels
