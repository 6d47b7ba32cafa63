"""tensorstore: the fastest peer measured. A bare copy: one level, no digests, no statistics."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import deque
from typing import Any

import numpy as np
import tensorstore as ts


def open_s3(endpoint: str, bucket: str, key: str, concurrency: int) -> Any:
    context = ts.Context(
        {
            "s3_request_concurrency": {"limit": concurrency},
            "data_copy_concurrency": {"limit": 2},
            "cache_pool": {"total_bytes_limit": 0},
        }
    )
    spec = {
        "driver": "zarr",
        "kvstore": {
            "driver": "s3",
            "bucket": bucket,
            "path": key + "/",
            "endpoint": endpoint,
            "aws_region": "us-east-1",
            "aws_credentials": {"type": "anonymous"},
        },
    }
    return ts.open(spec, context=context, read=True, open=True).result()


def boxes(shape: tuple[int, ...], step: tuple[int, ...]) -> Any:
    for index in itertools.product(
        *(range(math.ceil(n / s)) for n, s in zip(shape, step, strict=True))
    ):
        yield tuple(
            slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(index, step, shape, strict=True)
        )


def sharded_target(
    path: str,
    shape: tuple[int, ...],
    data_type: str,
    shard: list[int],
    chunk: list[int],
    codec: dict[str, Any],
) -> Any:
    """A new sharded Zarr v3 array in a folder; nothing is forced to the disk."""
    inner = [{"name": "bytes", "configuration": {"endian": "little"}}, codec]
    return ts.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": path},
            "metadata": {
                "shape": list(shape),
                "data_type": data_type,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
                "codecs": [
                    {
                        "name": "sharding_indexed",
                        "configuration": {"chunk_shape": chunk, "codecs": inner},
                    }
                ],
            },
        },
        context=ts.Context({"file_io_sync": False}),
        create=True,
        open=True,
    ).result()


def copy(
    endpoint: str,
    bucket: str,
    key: str,
    output: str,
    shard: list[int],
    chunk: list[int],
    codec: dict[str, Any],
    concurrency: int = 32,
    at_once: int = 2,
) -> None:
    """Copy shard by shard into a sharded Zarr v3, `at_once` shards in flight."""
    source = open_s3(endpoint, bucket, key, concurrency)
    path = f"{output}/ts.zarr/"
    target = sharded_target(path, source.shape, source.dtype.name, shard, chunk, codec)
    running: deque[Any] = deque()
    for box in boxes(source.shape, tuple(shard)):
        if len(running) >= at_once:
            running.popleft().result()
        running.append(target[box].write(source[box]))
    for write in running:
        write.result()


def to_npy(endpoint: str, bucket: str, key: str, output: str, concurrency: int = 32) -> None:
    """Read slabs of one chunk layer, write them in order, with sha256 and mean on the way."""
    source = open_s3(endpoint, bucket, key, concurrency)
    depth = source.chunk_layout.read_chunk.shape[0]
    slabs = list(boxes(source.shape, (depth, *source.shape[1:])))
    digest, total = hashlib.sha256(), 0
    with open(f"{output}/ts.npy", "wb") as file:
        header = {"descr": source.dtype.numpy_dtype.str, "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, {**header, "shape": tuple(source.shape)})
        following = source[slabs[0]].read()
        for number in range(len(slabs)):
            voxels = following.result()
            if number + 1 < len(slabs):
                following = source[slabs[number + 1]].read()
            digest.update(voxels)
            total += int(voxels.sum(dtype=np.int64))
            file.write(voxels)
