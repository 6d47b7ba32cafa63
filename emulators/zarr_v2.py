"""Writer of Zarr v2 multiscales as OpenOrganelle publishes them.

Observed on ``jrc_mus-nacc-2``: chunks of 64^3 (also where the array is smaller), zstd level 1,
keys nested by ``/``, floor-halved levels, an NGFF 0.4 block on the group whose translation is
(scale - finest scale) / 2, and no attributes on the arrays. Files are laid down chunk by chunk, so
that arrays of many gigabytes need the memory of a few chunks.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
from numpy.typing import DTypeLike, NDArray

from lib.errors import ConfigError

TripleZYX = tuple[int, int, int]
Crop = Callable[[TripleZYX, TripleZYX], NDArray[Any]]
"""Voxels of (origin z, y, x; shape z, y, x)."""

_CODECS: dict[str, dict[str, Any] | None] = {
    "zstd": {"id": "zstd", "level": 1},
    "blosc": {"blocksize": 0, "clevel": 5, "cname": "lz4", "id": "blosc", "shuffle": 1},
    "gzip": {"id": "gzip", "level": 1},
    "none": None,
}
_UNIT_NM = {"nanometer": 1.0, "micrometer": 1000.0, "angstrom": 0.1}


@dataclass(frozen=True)
class ZarrV2Layout:
    """What differs from store to store.

    Parameters
    ----------
    codec
        ``zstd``, ``blosc``, ``gzip`` or ``none``.
    separator
        ``/`` or ``.`` between the indices of a chunk key.
    separator_key
        ``False`` leaves ``dimension_separator`` out of ``.zarray``, as some N5 exporters do even
        with nested keys; readers then assume ``.`` and find no chunk.
    unit
        Unit of all axes, or ``None`` to leave it out (the numbers are then nanometres).
    holes
        Chunks that are not written: (level, (z, y, x) chunk index).
    """

    codec: str = "zstd"
    chunks_zyx: TripleZYX = (64, 64, 64)
    separator: str = "/"
    separator_key: bool = True
    unit: str | None = "nanometer"
    holes: frozenset[tuple[int, TripleZYX]] = field(default_factory=frozenset)


def level_shape(shape_zyx: TripleZYX, level: int) -> TripleZYX:
    """Shape of a level: halved and rounded down once per level."""
    z, y, x = (n >> level for n in shape_zyx)
    return (z, y, x)


def level_crop(crop: Crop, level: int, *, corner: bool = False) -> Crop:
    """Make the voxels of a coarser level from those of the finest.

    Every level is made of 2 x 2 x 2 voxels of the level before: their mean, rounded down, or with
    ``corner`` their first voxel, which keeps label numbers intact.
    """
    if level == 0:
        return crop
    finer = level_crop(crop, level - 1, corner=corner)

    def coarse(origin_zyx: TripleZYX, shape_zyx: TripleZYX) -> NDArray[Any]:
        z, y, x = shape_zyx
        oz, oy, ox = origin_zyx
        block = finer((2 * oz, 2 * oy, 2 * ox), (2 * z, 2 * y, 2 * x))
        if corner:
            return np.ascontiguousarray(block[::2, ::2, ::2])
        wide = np.float64 if block.dtype.kind == "f" else np.int64
        total = block.reshape(z, 2, y, 2, x, 2).sum(axis=(1, 3, 5), dtype=wide)
        mean: NDArray[Any] = (total / 8 if block.dtype.kind == "f" else total >> 3).astype(
            block.dtype
        )
        return mean

    return coarse


def write_multiscale(
    group: Path,
    crop: Crop,
    *,
    shape_zyx: TripleZYX,
    dtype: DTypeLike,
    voxel_nm_zyx: tuple[float, float, float],
    levels: int = 1,
    offset_nm_zyx: tuple[float, float, float] = (0.0, 0.0, 0.0),
    layout: ZarrV2Layout | None = None,
    corner: bool = False,
) -> None:
    """Write ``s0`` to ``s{levels - 1}`` below a group, and the group's attributes last.

    Parameters
    ----------
    crop
        Gives the voxels of the finest level, one chunk (times ``8**level``) at a time.
    offset_nm_zyx
        Where the centre of the finest level's first voxel lies.
    corner
        As for :func:`level_crop`; for labels.

    Raises
    ------
    ConfigError
        The layout names an unknown codec, separator or unit.
    """
    layout = layout or ZarrV2Layout()
    if layout.codec not in _CODECS or layout.separator not in ("/", "."):
        raise ConfigError(f"no codec {layout.codec!r} or separator {layout.separator!r}")
    group.mkdir(parents=True, exist_ok=True)
    write_json(group / ".zgroup", {"zarr_format": 2})
    for level in range(levels):
        source = level_crop(crop, level, corner=corner)
        shape = level_shape(shape_zyx, level)
        _write_array(group / f"s{level}", source, shape, np.dtype(dtype), level, layout)
    attributes = multiscale_attributes(voxel_nm_zyx, offset_nm_zyx, levels, layout.unit)
    write_json(group / ".zattrs", attributes)


def multiscale_attributes(
    voxel_nm_zyx: tuple[float, float, float],
    offset_nm_zyx: tuple[float, float, float],
    levels: int,
    unit: str | None,
) -> dict[str, Any]:
    """The NGFF 0.4 block, with an outer transformation of 1 and ``null`` type and metadata."""
    if unit is not None and unit not in _UNIT_NM:
        raise ConfigError(f"no unit {unit!r}")
    per_nm = 1.0 / _UNIT_NM[unit] if unit else 1.0
    named = {"unit": unit} if unit else {}
    datasets = []
    for level in range(levels):
        scale = [nm * 2**level * per_nm for nm in voxel_nm_zyx]
        shift = [
            (offset + nm * (2**level - 1) / 2) * per_nm
            for nm, offset in zip(voxel_nm_zyx, offset_nm_zyx, strict=True)
        ]
        transformations = [
            {"scale": scale, "type": "scale"},
            {"translation": shift, "type": "translation"},
        ]
        datasets.append({"coordinateTransformations": transformations, "path": f"s{level}"})
    block = {
        "axes": [{"name": axis, "type": "space"} | named for axis in "zyx"],
        "coordinateTransformations": [{"scale": [1.0, 1.0, 1.0], "type": "scale"}],
        "datasets": datasets,
        "metadata": None,
        "name": "",
        "type": None,
        "version": "0.4",
    }
    return {"multiscales": [block]}


def _write_array(
    array: Path,
    crop: Crop,
    shape_zyx: TripleZYX,
    dtype: np.dtype[Any],
    level: int,
    layout: ZarrV2Layout,
) -> None:
    description: dict[str, Any] = {
        "chunks": layout.chunks_zyx,
        "compressor": _CODECS[layout.codec],
        "dtype": dtype.newbyteorder("<").str,
        "fill_value": 0,
        "filters": None,
        "order": "C",
        "shape": shape_zyx,
        "zarr_format": 2,
    }
    if layout.separator_key:
        description["dimension_separator"] = layout.separator
    array.mkdir(parents=True, exist_ok=True)
    write_json(array / ".zarray", description)
    write_json(array / ".zattrs", {})
    encode = _encoder(layout.codec)
    grid = [range(-(-n // c)) for n, c in zip(shape_zyx, layout.chunks_zyx, strict=True)]
    for index in itertools.product(*grid):
        if (level, index) in layout.holes:
            continue
        path = array / layout.separator.join(str(n) for n in index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(_chunk(crop, index, shape_zyx, dtype, layout)))


def _encoder(codec: str) -> Callable[[NDArray[Any]], bytes]:
    """Compress a chunk, to the same bytes every time."""
    if codec == "none":
        return lambda voxels: voxels.tobytes()
    if codec == "gzip":  # numcodecs stamps the moment of writing
        return lambda voxels: gzip.compress(voxels.tobytes(), compresslevel=1, mtime=0)
    made = numcodecs.get_codec(_CODECS[codec])

    def encode(voxels: NDArray[Any]) -> bytes:
        # blosc's threads lay their blocks down in the order in which they finish
        threads, numcodecs.blosc.use_threads = numcodecs.blosc.use_threads, False
        try:
            return bytes(made.encode(voxels))
        finally:
            numcodecs.blosc.use_threads = threads

    return encode


def _chunk(
    crop: Crop,
    index_zyx: tuple[int, ...],
    shape_zyx: TripleZYX,
    dtype: np.dtype[Any],
    layout: ZarrV2Layout,
) -> NDArray[Any]:
    """A whole chunk; beyond the array's edge it holds the fill value, 0."""
    oz, oy, ox = (n * c for n, c in zip(index_zyx, layout.chunks_zyx, strict=True))
    z, y, x = (
        min(chunk, size - first)
        for chunk, size, first in zip(layout.chunks_zyx, shape_zyx, (oz, oy, ox), strict=True)
    )
    voxels = np.zeros(layout.chunks_zyx, dtype.newbyteorder("<"))
    voxels[:z, :y, :x] = crop((oz, oy, ox), (z, y, x))
    return voxels


def write_json(path: Path, content: Any) -> None:
    """Write JSON as zarr-python 2 did: sorted keys, four spaces."""
    path.write_text(json.dumps(content, indent=4, sort_keys=True, ensure_ascii=True))


def mark_groups(root: Path, group: Path) -> None:
    """Put ``.zgroup`` into the root of a store and every folder between it and a group."""
    write_json(root / ".zgroup", {"zarr_format": 2})
    for parent in group.relative_to(root).parents:
        write_json(root / parent / ".zgroup", {"zarr_format": 2})


def consolidate(root: Path) -> None:
    """Write ``.zmetadata``: a copy of every metadata file of a store, by its key."""
    names = (".zgroup", ".zattrs", ".zarray")
    files = sorted(path for path in root.rglob(".z*") if path.name in names)
    metadata = {path.relative_to(root).as_posix(): json.loads(path.read_text()) for path in files}
    write_json(root / ".zmetadata", {"metadata": metadata, "zarr_consolidated_format": 1})
