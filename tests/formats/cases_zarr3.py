"""Zarr v3: multiscales, shards, transposed and many-axed arrays, holes; written by zarr-python."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
    numcodecs,
)

from tests.formats.case import LISTED, Case
from tests.kit.volume_kit import random_voxels

SHAPE = (21, 45, 38)


def array(
    path: Path, voxels: NDArray[Any], chunks: tuple[int, ...], codecs: list[Any], **more: Any
) -> None:
    """Write an array with exactly these codecs."""
    node = zarr.create(
        store=str(path),
        shape=voxels.shape,
        chunks=chunks,
        dtype=voxels.dtype,
        zarr_format=3,
        codecs=codecs,
        **more,
    )
    node[...] = voxels


def multiscale(root: Path, names: str, scales: dict[str, list[float]], **more: Any) -> None:
    """Write a group with an NGFF 0.5 multiscale of levels that lie below it."""
    axes = [
        {"name": name, "type": "space", "unit": "nanometer"} if name in "zyx" else {"name": name}
        for name in names
    ]
    datasets = [
        {"path": level, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for level, scale in scales.items()
    ]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}], **more}
    root.mkdir(parents=True, exist_ok=True)
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
    (root / "zarr.json").write_text(json.dumps(document))


def two_levels(folder: Path) -> NDArray[Any]:
    fine, coarse = random_voxels(SHAPE, "uint8", 3), random_voxels((21, 23, 19), "uint8", 4)
    em = folder / "x.zarr" / "em"
    zarr.create_group(str(folder / "x.zarr"), zarr_format=3)
    multiscale(em, "zyx", {"s0": [30.0, 4.0, 4.0], "s1": [30.0, 8.0, 8.0]})
    for level, voxels in (("s0", fine), ("s1", coarse)):
        array(em / level, voxels, (8, 16, 16), [BytesCodec(), ZstdCodec(level=1)])
    return fine


def sharded(dtype: str, location: str, *inner: Any, folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, dtype, 5)
    codec = ShardingCodec(chunk_shape=(8, 16, 16), codecs=[*inner], index_location=location)
    array(folder / "bare", voxels, (16, 32, 32), [codec])
    return voxels


def nested_shards(outer: str, inner: str, folder: Path) -> NDArray[Any]:
    """Shards of shards, some of their chunks and one whole inner shard left out."""
    voxels = random_voxels(SHAPE, "uint16", 5)
    voxels[: SHAPE[0] // 21 * 8, :16, :16], voxels[:4, 16:24, :8] = 7, 7
    codec = ShardingCodec(chunk_shape=(4, 8, 8), codecs=[*_ZSTD], index_location=inner)
    codec = ShardingCodec(chunk_shape=(8, 16, 16), codecs=[codec], index_location=outer)
    array(folder / "bare", voxels, (16, 32, 32), [codec], fill_value=7)
    return voxels


def inner_holes(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint16", 6)
    voxels[:8, :16, :16] = 7  # fill value: zarr-python leaves this inner chunk out
    codec = ShardingCodec(chunk_shape=(8, 16, 16), codecs=[BytesCodec(), ZstdCodec()])
    array(folder / "bare", voxels, (16, 32, 32), [codec], fill_value=7)
    (folder / "bare/c/1/1/1").unlink()
    voxels[16:, 32:, 32:] = 7
    return voxels


def surrounded(folder: Path) -> NDArray[Any]:
    """Data within black: zarr-python leaves out inner chunks, and shards."""
    voxels = random_voxels(SHAPE, "uint16", 5)
    voxels[:, 27:], voxels[:, :, 27:] = 0, 0
    codec = ShardingCodec(chunk_shape=(8, 16, 16), codecs=[BytesCodec(), ZstdCodec()])
    array(folder / "bare", voxels, (8, 32, 32), [codec], fill_value=0)
    return voxels


def transposed(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "int16", 7)
    codecs = [TransposeCodec(order=(2, 0, 1)), BytesCodec(endian="big"), GzipCodec(), Crc32cCodec()]
    array(folder / "bare", voxels, (8, 16, 16), codecs)
    return voxels


def five_axes(folder: Path) -> NDArray[Any]:
    whole = np.stack([random_voxels(SHAPE, "uint16", seed) for seed in (8, 9)])[None]
    multiscale(folder / "x.zarr", "tczyx", {"0": [1.0, 1.0, 5.0, 5.0, 5.0]})
    codec = ShardingCodec(
        chunk_shape=(1, 1, 8, 16, 16),
        codecs=[BytesCodec(), BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=2)],
    )
    array(folder / "x.zarr/0", whole, (1, 1, 16, 32, 32), [codec])
    return np.asarray(whole[0, 1])


def x_first(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint8", 10)
    multiscale(folder / "x.zarr", "xyz", {"0": [4.0, 5.0, 30.0]})
    array(folder / "x.zarr/0", voxels.transpose(), (16, 16, 8), [BytesCodec(), ZstdCodec()])
    return voxels


def of_numcodecs(codec: Any, folder: Path) -> NDArray[Any]:
    """Compressed by a codec of Zarr v2, under the name that zarr-python gives it."""
    voxels = random_voxels(SHAPE, "uint16", 9)
    array(folder / "bare", voxels, (8, 16, 16), [BytesCodec(), codec])
    return voxels


def plane(folder: Path) -> NDArray[Any]:
    voxels = random_voxels((1, 45, 38), "uint8", 11)
    multiscale(folder / "x.zarr", "yx", {"0": [4.0, 4.0]})
    array(folder / "x.zarr/0", voxels[0], (16, 16), [BytesCodec(), ZstdCodec()])
    return voxels


def labels(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint64", 12, labels=True)
    root = folder / "x.zarr/labels/cells"
    zarr.create_group(str(folder / "x.zarr"), zarr_format=3)
    multiscale(root, "zyx", {"0": [8.0, 8.0, 8.0]}, **{"image-label": {}})
    array(root / "0", voxels, (8, 16, 16), [BytesCodec(), ZstdCodec()])
    return voxels


def keys(encoding: dict[str, str], folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "float32", 13)
    array(
        folder / "bare",
        voxels,
        (8, 16, 16),
        [BytesCodec(), ZstdCodec()],
        chunk_key_encoding=encoding,
        fill_value=2.5,
    )
    return voxels


_ZSTD = (BytesCodec(), ZstdCodec(level=1))
_BLOSC = (BytesCodec(), BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=2))
CASES = [
    Case(
        "zarr3-multiscale",
        two_levels,
        "x.zarr",
        transports=LISTED,
        expect={"voxel_nm_zyx": (30.0, 4.0, 4.0), "scale_level": "s0"},
    ),
    Case("zarr3-shards-zstd", lambda f: sharded("uint8", "end", *_ZSTD, folder=f), "bare"),
    Case("zarr3-shards-blosc", lambda f: sharded("int16", "start", *_BLOSC, folder=f), "bare"),
    Case(
        "zarr3-shards-crc32c",
        lambda f: sharded("uint32", "end", *_ZSTD, Crc32cCodec(), folder=f),
        "bare",
        transports=("file", "s3"),
    ),
    *(
        Case(
            f"zarr3-nested-shards-{outer}-{inner}",
            partial(nested_shards, outer, inner),
            "bare",
            transports=transports,
            settings={"max_missing_fraction": 0.5},
            missing=9,
        )
        for outer, inner, transports in (("end", "start", LISTED), ("start", "end", ("file",)))
    ),
    Case(
        "zarr3-inner-holes",
        inner_holes,
        "bare|zarr3:",
        transports=LISTED,
        settings={"max_missing_fraction": 0.5},
        missing=2,
    ),
    Case(
        "zarr3-black-left-out",
        surrounded,
        "bare|zarr3:",
        transports=LISTED,
        missing=15,
        notes=("15 of 27 chunks are absent, read as 0",),
    ),
    Case("zarr3-transposed", transposed, "bare|zarr:", transports=("file", "http")),
    Case(
        "zarr3-five-axes",
        five_axes,
        "x.zarr",
        transports=("file", "s3"),
        settings={"channel": 1},
        expect={"voxel_nm_zyx": (5.0, 5.0, 5.0)},
    ),
    Case(
        "zarr3-x-first",
        x_first,
        "x.zarr",
        transports=("file",),
        expect={"voxel_nm_zyx": (30.0, 5.0, 4.0)},
    ),
    *(
        Case(
            f"zarr3-numcodecs-{name}",
            partial(of_numcodecs, codec),
            "bare",
            transports=("file",),
            settings={"codec": "source"},
        )
        for name, codec in {
            "zlib": numcodecs.Zlib(level=3),
            "blosc": numcodecs.Blosc(cname="zstd"),
            "lz4": numcodecs.LZ4(),
            "bz2": numcodecs.BZ2(),
        }.items()
    ),
    Case("zarr3-plane", plane, "x.zarr", transports=("file",)),
    Case("zarr3-labels", labels, "x.zarr", transports=("file",), expect={"kind": "labels"}),
    *(
        Case(f"zarr3-keys-{name}", partial(keys, encoding), "bare", transports=("file", "http"))
        for name, encoding in {
            "dots": {"name": "default", "separator": "."},
            "v2": {"name": "v2", "separator": "."},
            "v2-nested": {"name": "v2", "separator": "/"},
        }.items()
    ),
]
