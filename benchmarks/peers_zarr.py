"""zarr-python with obstore, without dask: one level, no digests, no statistics."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import zarr
from obstore.store import S3Store
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import ObjectStore


def compressor(codec: dict[str, Any]) -> Any:
    """zarr-python's codec for ours."""
    if codec["name"] == "zstd":
        return ZstdCodec(level=codec["configuration"]["level"])
    return BloscCodec(**codec["configuration"])


def open_s3_array(endpoint: str, bucket: str, key: str, concurrency: int) -> Any:
    """A Zarr v2 array in a bucket."""
    zarr.config.set({"async.concurrency": concurrency})
    store = ObjectStore(
        S3Store(
            bucket,
            prefix=key,
            endpoint=endpoint,
            skip_signature=True,
            region="us-east-1",
            client_options={"allow_http": True},
        ),
        read_only=True,
    )
    return zarr.open_array(store, mode="r", zarr_format=2)


def sharded_array(
    path: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    shard: list[int],
    chunk: list[int],
    codec: dict[str, Any],
) -> Any:
    """A new sharded Zarr v3 array."""
    return zarr.create_array(
        path,
        shape=shape,
        dtype=dtype,
        chunks=tuple(chunk),
        shards=tuple(shard),
        compressors=[compressor(codec)],
        fill_value=0,
    )


def copy(
    endpoint: str,
    bucket: str,
    key: str,
    output: str,
    shard: list[int],
    chunk: list[int],
    codec: dict[str, Any],
    concurrency: int = 32,
) -> None:
    """Copy shard by shard, two at a time."""
    source = open_s3_array(endpoint, bucket, key, concurrency)
    path = f"{output}/zarr.zarr"
    target = sharded_array(path, source.shape, source.dtype, shard, chunk, codec)
    starts = (range(math.ceil(n / s)) for n, s in zip(source.shape, shard, strict=True))

    def one(index: tuple[int, ...]) -> None:
        box = tuple(slice(i * s, (i + 1) * s) for i, s in zip(index, shard, strict=True))
        target[box] = source[box]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, itertools.product(*starts)))
