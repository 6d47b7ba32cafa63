"""Digital Micrograph files as a file format of the registry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from lib.bytesource.base import ByteSource, LocalBytes
from lib.formats.dm.reader import DmImage, DmReader, open_dm
from lib.formats.format import FileFormatBase, Handle, Options, VolumeDescription, only_path
from lib.geometry import to_nm

_BYTE_ORDERS = (b"\0\0\0\1", b"\0\0\0\0")


class DmFormat(FileFormatBase):
    """The image that a file displays. DM3 and DM4 are told apart by their content."""

    name: ClassVar[str] = "dm"
    title: ClassVar[str] = "Gatan DM3 and DM4"
    suffixes: ClassVar[tuple[str, ...]] = (".dm3", ".dm4")
    sections: ClassVar[bool] = True

    def fits(self, head: bytes, name: str) -> bool:
        # version, length of the root (4 bytes or 8), byte order of the tags
        dm3 = head[:4] == b"\0\0\0\3" and head[8:12] in _BYTE_ORDERS
        dm4 = head[:4] == b"\0\0\0\4" and head[12:16] in _BYTE_ORDERS
        return dm3 or dm4

    def describe(self, source: ByteSource, path: str, options: Options) -> list[VolumeDescription]:
        only_path(path, source)
        image = open_dm(source)
        return [
            VolumeDescription(
                path="",
                handle={},
                shape_zyx=image.shape_zyx,
                dtype=image.dtype.name,
                voxel=image.voxel,
                origin=image.origin,
                acquired=image.acquired,
                notes=image.notes,
                extra={"microscope": image.facts} if image.facts else {},
            )
        ]

    def open(self, source: ByteSource, handle: Handle, scratch: Path | None = None) -> DmReader:
        return DmReader(open_dm(source))

    def check_whole(self, path: Path, handle: Handle, name: str) -> tuple[str, ...]:
        with closing(LocalBytes(path, name=name)) as source:
            return second_opinion(path, open_dm(source))


def second_opinion(path: Path, image: DmImage) -> tuple[str, ...]:
    """Where ncempy disagrees with `image` about shape, dtype or pixel size; empty if it agrees.

    ncempy gathers pixel sizes by scanning tag names, and some valid files mislead it; so a
    disagreement is a note for the record and no error. Only tags are read.
    """
    try:
        dm = _ncempy_dm()
    except ImportError:
        return ("second opinion: ncempy is not installed",)
    try:
        opener: Any = dm.fileDM
        with opener(str(path)) as other:
            other.parseHeader()
            index = image.index
            shape_zyx = tuple(int(n[index]) for n in (other.zSize, other.ySize, other.xSize))
            dtype = _dtype(other, index)
            before = sum(int(n) for n in other.dataShape[:index])
            axes = slice(before, before + int(other.dataShape[index]))
            sizes, units = list(other.scale[axes]), list(other.scaleUnit[axes])
    except Exception as error:
        return (f"second opinion: ncempy cannot read the file ({type(error).__name__})",)
    notes = []
    if shape_zyx != image.shape_zyx:
        notes.append(f"second opinion: ncempy reads {shape_zyx}, the tags say {image.shape_zyx}")
    if dtype != image.dtype:
        notes.append(f"second opinion: ncempy reads {dtype}, the tags say {image.dtype}")
    return (*notes, *_size_notes(image, sizes, units))


@cache
def _ncempy_dm() -> ModuleType:
    """The module ``ncempy.io.dm`` alone: its package imports all of scipy's and matplotlib's
    plotting, two seconds of CPU, and the module needs none of it.
    """
    package = find_spec("ncempy")
    if package is None or not package.submodule_search_locations:
        raise ImportError("ncempy")
    path = Path(package.submodule_search_locations[0]) / "io" / "dm.py"
    spec = spec_from_file_location("ncempy_io_dm", path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        raise ImportError(str(path)) from error
    return module


def _dtype(other: Any, index: int) -> Any:
    """The numpy dtype that ncempy gives image `index`."""
    return np.dtype(other._DM2NPDataType(other.dataType[index]))


def _size_notes(image: DmImage, sizes: Sequence[float], units: Sequence[str]) -> list[str]:
    notes = []
    own_xyz = (image.voxel.x_nm, image.voxel.y_nm, image.voxel.z_nm)
    for axis, ours, size, unit in zip("xyz", own_xyz, sizes, units, strict=False):
        theirs = to_nm(float(size), str(unit))
        if ours is not None and theirs is not None and not math.isclose(ours, theirs, rel_tol=1e-5):
            notes.append(
                f"second opinion: ncempy reads {theirs:g} nm along {axis}, the tags say {ours:g} nm"
            )
    return notes
