"""Neuroglancer precomputed, written by tensorstore: every encoding, unsharded and sharded."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from imagecodecs import brotli_encode, jpegxl_decode, jpegxl_encode
from numpy.typing import NDArray

from tests.formats.case import LISTED, Case
from tests.kit.volume_kit import random_voxels

SHAPE = (21, 45, 38)
CLOUDS = (*LISTED, "gs")
OFFSET = [5, -3, 100]  # x, y, z


def volume(
    path: Path,
    voxels: NDArray[Any],
    *,
    encoding: str = "raw",
    kind: str = "image",
    sharding: dict[str, Any] | None = None,
    chunk: tuple[int, int, int] = (16, 16, 8),
    resolution: tuple[float, float, float] = (4.0, 4.0, 40.0),
    offset: list[int] | None = None,
    key: str = "s0",
    **more: Any,
) -> None:
    """One scale; `voxels` are (c, z, y, x) or (z, y, x)."""
    if voxels.ndim == 3:
        voxels = voxels[None]
    scale: dict[str, Any] = {
        "key": key,
        "size": [*voxels.shape[:0:-1]],
        "resolution": [*resolution],
        "encoding": encoding,
        "chunk_size": [*chunk],
        "voxel_offset": OFFSET if offset is None else offset,
        **more,
    }
    if sharding:
        scale["sharding"] = {"@type": "neuroglancer_uint64_sharded_v1", **sharding}
    store = tensorstore.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": str(path)},
            "multiscale_metadata": {
                "data_type": voxels.dtype.name,
                "num_channels": voxels.shape[0],
                "type": kind,
            },
            "scale_metadata": scale,
            "create": True,
            "open": True,
        }
    ).result()
    store.write(voxels.transpose(3, 2, 1, 0)).result()


def read_back(path: Path) -> NDArray[Any]:
    """What tensorstore decodes: the truth of encodings with loss."""
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(path)},
    }
    store = tensorstore.open(spec).result()
    return np.ascontiguousarray(store.read().result().transpose(3, 2, 1, 0)[0])


def raw(dtype: str, folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, dtype, 3)
    volume(folder / "em", voxels)
    return voxels


def two_scales(folder: Path) -> NDArray[Any]:
    fine, coarse = random_voxels(SHAPE, "uint8", 4), random_voxels((21, 23, 19), "uint8", 5)
    volume(folder / "em", fine)
    volume(folder / "em", coarse, key="s1", resolution=(8.0, 8.0, 40.0), offset=[2, -2, 100])
    return coarse


def lossy(folder: Path) -> NDArray[Any]:
    volume(folder / "em", random_voxels(SHAPE, "uint8", 6), encoding="jpeg", jpeg_quality=80)
    return read_back(folder / "em")


def jxl(lossless: bool, container: bool, folder: Path) -> NDArray[Any]:
    """Chunks as cloud-volume encodes them; what comes out where they are not exact."""
    voxels = raw("uint8", folder).copy()
    for path in (folder / "em/s0").iterdir():
        spans = re.findall(r"(-?\d+)-(-?\d+)(?:_|$)", path.name)
        x, y, z = ((int(a), int(b)) for a, b in spans)
        shape = (z[1] - z[0], y[1] - y[0], x[1] - x[0])
        plain = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, shape[2])
        packed = jpegxl_encode(plain, lossless=lossless, usecontainer=container)
        path.write_bytes(packed)
        low = [a[0] - at for a, at in zip((z, y, x), OFFSET[::-1], strict=True)]
        part = tuple(slice(a, a + n) for a, n in zip(low, shape, strict=True))
        voxels[part] = jpegxl_decode(packed).reshape(shape)
    info = folder / "em/info"
    info.write_text(info.read_text().replace('"raw"', '"jxl"'))
    return voxels


def png(dtype: str, folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, dtype, 7)
    volume(folder / "em", voxels, encoding="png")
    return voxels


def ids(dtype: str, sharding: dict[str, Any] | None, folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, dtype, 8, labels=True)
    if dtype == "uint64":
        voxels[voxels > 0] += np.uint64(2**60)
    volume(
        folder / "seg",
        voxels,
        encoding="compressed_segmentation",
        kind="segmentation",
        compressed_segmentation_block_size=[8, 8, 8],
        sharding=sharding,
    )
    return voxels


def channels(folder: Path) -> NDArray[Any]:
    both = np.stack([random_voxels(SHAPE, "uint16", seed) for seed in (9, 10)])
    volume(folder / "em", both)
    return np.asarray(both[1])


def sharded(sharding: dict[str, Any], folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint16", 11)
    volume(folder / "em", voxels, sharding=sharding)
    return voxels


def holes(sharding: dict[str, Any] | None, folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint8", 12)
    voxels[:8, :16, :16] = 0  # tensorstore leaves it out
    volume(folder / "em", voxels, sharding=sharding)
    return voxels


def packed_names(pack: Callable[[bytes], bytes], suffix: str, folder: Path) -> NDArray[Any]:
    """A copy on disk as cloud-volume makes it: every chunk packed, which its name ends with."""
    voxels = raw("uint8", folder)
    for path in [*(folder / "em/s0").iterdir()]:
        path.with_name(path.name + suffix).write_bytes(pack(path.read_bytes()))
        path.unlink()
    return voxels


def packed_plainly(folder: Path) -> NDArray[Any]:
    """A copy made by a tool that dropped Content-Encoding."""
    voxels = ids("uint32", None, folder)
    for path in (folder / "seg/s0").iterdir():
        path.write_bytes(gzip.compress(path.read_bytes()))
    return voxels


def elsewhere(folder: Path) -> NDArray[Any]:
    """A scale whose key leads out of the volume's folder, but not out of the store."""
    voxels = raw("uint8", folder)
    (folder / "other").mkdir()
    (folder / "em/s0").rename(folder / "other/4_4_40")
    info = json.loads((folder / "em/info").read_text())
    info["scales"][0]["key"] = "../other/4_4_40"
    (folder / "em/info").write_text(json.dumps(info))
    return voxels


_IDENTITY = {
    "hash": "identity",
    "preshift_bits": 1,
    "minishard_bits": 1,
    "shard_bits": 2,
    "minishard_index_encoding": "gzip",
    "data_encoding": "gzip",
}
_MURMUR = {"hash": "murmurhash3_x86_128", "preshift_bits": 0, "minishard_bits": 2, "shard_bits": 1}
CASES = [
    Case(
        "neuroglancer-precomputed-raw",
        partial(raw, "uint16"),
        "em",
        transports=CLOUDS,
        expect={"voxel_nm_zyx": (40.0, 4.0, 4.0), "origin_nm_zyx": (4000.0, -12.0, 20.0)},
    ),
    *(
        Case(f"neuroglancer-precomputed-{dtype}", partial(raw, dtype), "em", transports=("file",))
        for dtype in ("int8", "int16", "uint32", "int32", "float32")
    ),
    Case(
        "neuroglancer-precomputed-second-scale",
        two_scales,
        "em|precomputed:",
        transports=("file",),
        settings={"scale_level": "1"},
        expect={"voxel_nm_zyx": (40.0, 8.0, 8.0), "origin_nm_zyx": (4000.0, -14.0, 18.0)},
    ),
    Case("neuroglancer-precomputed-jpeg", lossy, "em|neuroglancer-precomputed:", CLOUDS),
    *(
        Case(f"neuroglancer-precomputed-png-{dtype}", partial(png, dtype), "em", ("file",))
        for dtype in ("uint8", "uint16")
    ),
    Case(
        "neuroglancer-precomputed-ids",
        partial(ids, "uint64", None),
        "seg",
        transports=CLOUDS,
        expect={"kind": "labels"},
    ),
    Case("neuroglancer-precomputed-ids-32", partial(ids, "uint32", None), "seg", ("file",)),
    Case("neuroglancer-precomputed-ids-sharded", partial(ids, "uint64", _IDENTITY), "seg", CLOUDS),
    Case(
        "neuroglancer-precomputed-channels",
        channels,
        "em",
        transports=("file",),
        settings={"channel": 1},
        within=1.1,
    ),
    *(
        Case(f"neuroglancer-precomputed-sharded-{name}", partial(sharded, sharding), "em", CLOUDS)
        for name, sharding in {
            "identity": _IDENTITY,
            "murmur": _MURMUR,
            "one": {**_IDENTITY, "shard_bits": 0, "minishard_bits": 0, "data_encoding": "raw"},
        }.items()
    ),
    *(
        Case(
            f"neuroglancer-precomputed-absent-{name}",
            partial(holes, sharding),
            "em",
            transports=("file", "s3"),
            missing=1,
            notes=("1 of 27 chunks are absent, read as 0",),
        )
        for name, sharding in {"chunk": None, "in-shard": _IDENTITY}.items()
    ),
    *(
        Case(f"neuroglancer-precomputed-jxl-{name}", partial(jxl, *how), "em", ("file", "http"))
        for name, how in (("lossless", (True, False)), ("lossy", (False, True)))
    ),
    *(
        Case(
            f"neuroglancer-precomputed-{suffix}-names",
            partial(packed_names, pack, f".{suffix}"),
            "em",
            transports=("file",),
        )
        for suffix, pack in (("gz", gzip.compress), ("br", brotli_encode))
    ),
    Case("neuroglancer-precomputed-gz-bytes", packed_plainly, "seg", transports=("file", "http")),
    Case("neuroglancer-precomputed-elsewhere", elsewhere, "em", transports=("file", "s3")),
]
