"""Zarr v2: multiscales and bare arrays, with holes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numcodecs
import zarr
from numpy.typing import NDArray

from tests.formats.case import LISTED, Case
from tests.kit.volume_kit import random_voxels

SHAPE = (21, 45, 38)


def _array(path: Path, voxels: NDArray[Any], **more: Any) -> None:
    array = zarr.create_array(
        str(path),
        shape=voxels.shape,
        chunks=(8, 16, 16),
        dtype=voxels.dtype,
        zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "/"},
        **more,
    )
    array[:] = voxels


def multiscale(folder: Path) -> NDArray[Any]:
    fine, coarse = random_voxels(SHAPE, "uint8", 3), random_voxels((21, 23, 19), "uint8", 4)
    root = folder / "x.zarr"
    for name, voxels in (("s0", fine), ("s1", coarse)):
        _array(root / "em" / name, voxels)
    for group in (root, root / "em"):
        (group / ".zgroup").write_text('{"zarr_format": 2}')
    datasets = [
        {
            "path": name,
            "coordinateTransformations": [
                {"type": "scale", "scale": scale},
                {"type": "translation", "translation": [0.0, shift, shift]},
            ],
        }
        for name, scale, shift in (("s0", [30.0, 4.0, 4.0], 0.0), ("s1", [30.0, 8.0, 8.0], 2.0))
    ]
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    block = {"version": "0.4", "axes": axes, "datasets": datasets}
    (root / "em" / ".zattrs").write_text(json.dumps({"multiscales": [block]}))
    return fine


def second_level(folder: Path) -> NDArray[Any]:
    multiscale(folder)
    return random_voxels((21, 23, 19), "uint8", 4)


def holes(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint16", 5)
    _array(folder / "bare", voxels, fill_value=7)
    (folder / "bare/1/2/0").unlink()
    (folder / "bare/0/0/2").unlink()
    voxels[8:16, 32:45, 0:16] = 7
    voxels[0:8, 0:16, 32:38] = 7
    return voxels


def surrounded(folder: Path, **more: Any) -> NDArray[Any]:
    """Data within black, of which zarr-python leaves out the chunks: 15 of 27."""
    voxels = random_voxels(SHAPE, "uint16", 5)
    voxels[:, 27:], voxels[:, :, 27:] = 0, 0
    _array(folder / "bare", voxels, **({"fill_value": 0} | more))
    return voxels


def coded(dtype: str, more: dict[str, Any], folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, dtype, 6)
    _array(folder / "bare", voxels, **more)
    return voxels


CASES = [
    Case(
        "zarr2-multiscale",
        multiscale,
        "x.zarr",
        transports=LISTED,
        expect={"voxel_nm_zyx": (30.0, 4.0, 4.0), "scale_level": "s0"},
    ),
    Case(
        "zarr2-second-level",
        second_level,
        "x.zarr|zarr2:em",
        transports=LISTED,
        settings={"scale_level": "1"},
        expect={"voxel_nm_zyx": (30.0, 8.0, 8.0), "origin_nm_zyx": (0.0, 2.0, 2.0)},
    ),
    Case(
        "zarr2-bare-with-holes",
        holes,
        "bare|zarr:",
        settings={"max_missing_fraction": 0.2},
        transports=LISTED,
        missing=2,
        notes=("2 of 27 chunks are absent, read as 7",),
    ),
    Case(
        "zarr2-black-left-out",
        surrounded,
        "bare|zarr:",
        transports=LISTED,
        missing=15,
        notes=("15 of 27 chunks are absent, read as 0",),
    ),
    *(
        Case(f"zarr2-{name}", partial(coded, dtype, more), "bare", transports=("file",))
        for name, dtype, more in (
            ("bz2", "uint8", {"compressors": numcodecs.BZ2()}),
            ("lzma", "uint16", {"compressors": numcodecs.LZMA()}),
            ("delta", "uint16", {"filters": [numcodecs.Delta("<u2")], "order": "F"}),
            ("shuffle", "int32", {"filters": [numcodecs.Shuffle(4)]}),
        )
    ),
]
