"""Samples of EMPIAR: the zebrafish retina (11759) and one entry of the container formats."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from emulators.dm import Section, write_dm
from emulators.mrc import write_mrc
from emulators.sample import Sample, VoxelNM, tissue_crop

_WORLD = "ftp/empiar/world_availability"
_RETINA = f"{_WORLD}/11759/data"
_FORMATS = f"{_WORLD}/99001/data"
_RETINA_SHAPE = (16, 48, 64)
_RETINA_VOXEL = (50.0, 7.99825, 7.99825)
_NESTED = "trakem2.1528909664283.981147357.856576865"
_FORMATS_SHAPE = (12, 40, 56)
Write = Callable[[Path, NDArray[Any]], None]


def empiar_samples() -> list[Sample]:
    """The assembled retina, and one volume per file of entry 99001."""
    return [_retina(), *_formats()]


def lay_companions(root: Path) -> None:
    """Write what lies beside the sections of 11759 and is no volume."""
    folder = root / _RETINA
    xml = b'<?xml version="1.0" encoding="ISO-8859-1"?>\n<trakem2></trakem2>\n'
    (folder / "F57-8_test1.xml.gz").write_bytes(gzip.compress(xml, mtime=0))
    nested = folder / _NESTED / "trakem2.mipmaps" / "0"
    nested.mkdir(parents=True, exist_ok=True)
    (nested / "1.jpg").write_bytes(b"\xff\xd8\xff\xd9")


def _retina() -> Sample:
    paths = tuple(f"{_RETINA}/F57-8_test1_3VBSED_slice_{n:04d}.dm3" for n in range(16))
    crop = tissue_crop(1, "uint8", _RETINA_VOXEL)

    def write(root: Path) -> None:
        for number, plane in enumerate(crop((0, 0, 0), _RETINA_SHAPE)):
            # the scale that the public files carry, in micrometres
            scale = 0.007998250424861908
            section = Section(number)
            path = root / paths[number]
            write_dm(path, plane, pixel_size_zyx=(scale, scale), section=section)

    key = "ebi/EMPIAR-11759"
    return Sample(key, paths, _RETINA_SHAPE, "uint8", _RETINA_VOXEL, crop, write)


def _file(number: int, name: str, dtype: str, voxel: VoxelNM | None, writer: Write) -> Sample:
    path = f"{_FORMATS}/{name}"
    crop = tissue_crop(20 + number, dtype, voxel)

    def write(root: Path) -> None:
        writer(root / path, crop((0, 0, 0), _FORMATS_SHAPE))

    key = f"ebi/EMPIAR-99001/{name}"
    return Sample(key, (path,), _FORMATS_SHAPE, dtype, voxel, crop, write)


def _formats() -> list[Sample]:
    voxel = (10.0, 8.0, 8.0)
    block = (10.0, 5.0, 5.0)
    dm4 = partial(write_dm, version=4, pixel_size_zyx=block, unit="nm")
    mrc = partial(write_mrc, voxel_nm_zyx=voxel)
    permuted = partial(write_mrc, voxel_nm_zyx=voxel, permuted=True)
    uncalibrated = partial(write_mrc, voxel_nm_zyx=None)
    return [
        _file(0, "block.dm4", "int16", block, dm4),
        _file(1, "volume.mrc", "int8", voxel, mrc),
        _file(2, "permuted.mrc", "int16", voxel, permuted),
        _file(3, "reconstruction.rec", "float32", voxel, mrc),
        _file(4, "tilts.st", "int16", None, uncalibrated),
        _file(5, "aligned.ali", "uint16", voxel, mrc),
        _file(6, "packed.mrc.gz", "int8", voxel, mrc),
        _file(7, "packed.rec.bz2", "float32", voxel, mrc),
    ]
