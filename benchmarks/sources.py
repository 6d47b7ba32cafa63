"""Building the sources once, into a cache folder and a bucket.

A source is complete when its marker is there; another size is another source.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import obstore
from numpy.typing import NDArray

from benchmarks.truth import TILE, shape_for, volume
from emulators.dm import Section, write_dm
from emulators.s3 import S3Server
from emulators.tiff import write_itk_tiff
from emulators.tissue import TripleZYX
from emulators.zarr_v2 import multiscale_attributes

VOXEL_NM = (8.0, 8.0, 8.0)
BUCKET = "benchmarks"
SECTIONS = 16
_RETINA = "empiar/world_availability/11759/data"

Zarr = dict[str, Any]
ZARRS: dict[str, Zarr] = {
    "u8": {"dtype": "uint8", "chunk": 64, "compressor": {"id": "zstd", "level": 1}},
    "i16": {
        "dtype": "int16",
        "chunk": 128,
        "compressor": {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 1, "blocksize": 0},
    },
    "gzip": {"dtype": "uint8", "chunk": 64, "compressor": {"id": "gzip", "level": 1}},
    "i8": {"dtype": "int8", "chunk": 64, "compressor": {"id": "zstd", "level": 1}},
    "u64": {"dtype": "uint64", "chunk": 64, "compressor": {"id": "zstd", "level": 1}},
}


def dataset(kind: str, megabytes: float) -> str:
    """The data set's name in the bucket."""
    return f"bench-{kind}-{megabytes:g}"


def array_key(kind: str, megabytes: float) -> str:
    """Where the finest level lies in the bucket."""
    name = dataset(kind, megabytes)
    return f"{name}/{name}.zarr/recon-1/em/fibsem-{ZARRS[kind]['dtype']}/s0"


def zarr_shape(kind: str, megabytes: float) -> TripleZYX:
    """Voxels of a Zarr source."""
    return shape_for(megabytes, np.dtype(ZARRS[kind]["dtype"]).itemsize)


def put_zarr(server: S3Server, kind: str, megabytes: float, cache: Path) -> None:
    """Put a multiscale of one level into the bucket, as OpenOrganelle lays them out."""
    marker = cache / f"{dataset(kind, megabytes)}.built"
    if marker.exists():
        return
    source, key = ZARRS[kind], array_key(kind, megabytes)
    shape, chunk = zarr_shape(kind, megabytes), source["chunk"]
    store = server.store(BUCKET)
    encode = _encoder(source["compressor"])
    voxels = volume(source["dtype"])
    period = TILE // chunk
    different = {
        (z, y, x): encode(voxels((z * chunk, y * chunk, x * chunk), (chunk, chunk, chunk)))
        for z, y, x in itertools.product(range(period), repeat=3)
    }

    def put(index: TripleZYX) -> None:
        name = "/".join(str(i) for i in index)
        z, y, x = index
        obstore.put(store, f"{key}/{name}", different[z % period, y % period, x % period])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, itertools.product(*(range(math.ceil(n / chunk)) for n in shape))))
    for name, document in _documents(source, shape, key).items():
        obstore.put(store, name, json.dumps(document).encode())
    marker.touch()


def _encoder(compressor: dict[str, Any]) -> Callable[[NDArray[Any]], bytes]:
    if compressor["id"] == "gzip":
        return lambda voxels: gzip.compress(voxels.tobytes(), compresslevel=1, mtime=0)
    codec = numcodecs.get_codec(dict(compressor))
    return lambda voxels: bytes(codec.encode(np.ascontiguousarray(voxels)))


def _documents(source: Zarr, shape: TripleZYX, key: str) -> dict[str, Any]:
    group = {"zarr_format": 2}
    parts = key.split("/")
    found: dict[str, Any] = {"/".join(parts[:n]) + "/.zgroup": group for n in (2, 3, 4, 5)}
    found[f"{key.rpartition('/')[0]}/.zattrs"] = multiscale_attributes(
        VOXEL_NM, (0.0, 0.0, 0.0), 1, "nanometer"
    )
    found[f"{key}/.zattrs"] = {}
    found[f"{key}/.zarray"] = {
        "chunks": [source["chunk"]] * 3,
        "compressor": source["compressor"],
        "dimension_separator": "/",
        "dtype": np.dtype(source["dtype"]).str,
        "fill_value": 0,
        "filters": None,
        "order": "C",
        "shape": shape,
        "zarr_format": 2,
    }
    return found


def tiff_shape(megabytes: float) -> TripleZYX:
    """Pages of the size of EPFL's, fewer voxels for small files."""
    height, width = (1536, 2048) if megabytes >= 32 else (192, 256)
    return (max(2, round(megabytes * 1e6 / (height * width))), height, width)


def lay_tiff(cache: Path, megabytes: float) -> Path:
    """A multi-page TIFF whose directories lie between its pages; the path below ``http``."""
    path = cache / "http" / f"volume-{megabytes:g}.tif"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shape, voxels = tiff_shape(megabytes), volume("uint8")
        pages = (voxels((z, 0, 0), (1, *shape[1:]))[0] for z in range(shape[0]))
        half = path.with_suffix(".half")
        write_itk_tiff(half, shape, pages)
        half.rename(path)
    return path


def section_shape(megabytes: float) -> tuple[int, int]:
    """5500 x 5496, as recorded, where 16 of them come near the size; smaller for small sizes."""
    return (5500, 5496) if megabytes >= 400 else (512, 384)


def lay_sections(cache: Path, megabytes: float) -> Path:
    """Sixteen DM3 sections in EMPIAR's tree; returns the root of the FTP server."""
    root = cache / f"ftp-{section_shape(megabytes)[0]}"
    marker = root / ".built"
    if marker.exists():
        return root
    (root / _RETINA).mkdir(parents=True, exist_ok=True)
    voxels, (height, width) = volume("uint8"), section_shape(megabytes)
    for number in range(SECTIONS):
        plane = voxels((number, 0, 0), (1, height, width))[0]
        path = root / _RETINA / f"F57-8_test1_3VBSED_slice_{number:04d}.dm3"
        scale = 0.007998250424861908
        write_dm(path, plane, pixel_size_zyx=(scale, scale), section=Section(number))
    marker.touch()
    return root


def sections_folder() -> str:
    """Where the sections lie on the FTP server."""
    return f"/{_RETINA}"
