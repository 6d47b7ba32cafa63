"""The same work as ours in a script of its own: levels, histogram, SHA-256 of every file.

As good as we can write it on each library: the next shards are read while one is worked on, voxels
are counted and pooled in compiled loops, levels until 256, all of them sharded Zarr v3, every file
hashed while it is still in the page cache. The coarse levels lie in memory. It has no plan, no
proof by listing, no tries, limits or records, no preview, and cannot go on where it broke off.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers_tensorstore import boxes, open_s3, sharded_target
from lib.volumes import kernels

Box = tuple[slice, ...]
Target = Callable[[int, tuple[int, ...]], Callable[[Box, NDArray[Any]], Any]]
_COARSEST = 256
AHEAD = 2


def on_tensorstore(
    endpoint: str,
    bucket: str,
    key: str,
    output: str,
    shard: list[int],
    chunk: list[int],
    codec: dict[str, Any],
    concurrency: int = 32,
) -> None:
    """Read and written by tensorstore."""
    source = open_s3(endpoint, bucket, key, concurrency)
    make(
        source.shape,
        source.dtype.numpy_dtype,
        shard,
        lambda box: source[box].read(),
        tensorstore_target(output, source.dtype.name, shard, chunk, codec),
        Path(output),
    )


def on_zarrs(
    endpoint: str,
    bucket: str,
    key: str,
    output: str,
    shard: list[int],
    chunk: list[int],
    codec: dict[str, Any],
    concurrency: int = 32,
) -> None:
    """Read by zarr-python through obstore, written by the codec pipeline of zarrs.

    Of object stores the pipeline knows none of obstore's, so it reads no S3.
    """
    import zarr
    import zarrs  # noqa: F401  # registers its pipeline

    from benchmarks.peers_zarr import open_s3_array

    source = open_s3_array(endpoint, bucket, key, concurrency)
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    with ThreadPoolExecutor(AHEAD) as pool, ThreadPoolExecutor(AHEAD) as writers:
        make(
            source.shape,
            source.dtype,
            shard,
            lambda box: pool.submit(source.__getitem__, box),
            zarrs_target(output, source.dtype, shard, chunk, codec, writers),
            Path(output),
        )


def tensorstore_target(
    output: str, dtype: str, shard: list[int], chunk: list[int], codec: dict[str, Any]
) -> Target:
    """Makes the levels' arrays, each a call that writes a box of one."""

    def target(level: int, shape: tuple[int, ...]) -> Callable[[Box, NDArray[Any]], Any]:
        array = sharded_target(f"{output}/product.zarr/{level}/", shape, dtype, shard, chunk, codec)
        return lambda box, voxels: array[box].write(voxels)

    return target


def zarrs_target(
    output: str,
    dtype: np.dtype[Any],
    shard: list[int],
    chunk: list[int],
    codec: dict[str, Any],
    writers: ThreadPoolExecutor,
) -> Target:
    """The same by zarr-python."""
    from benchmarks.peers_zarr import sharded_array

    def target(level: int, shape: tuple[int, ...]) -> Callable[[Box, NDArray[Any]], Any]:
        path = f"{output}/product.zarr/{level}"
        array = sharded_array(path, shape, dtype, shard, chunk, codec)
        return lambda box, voxels: writers.submit(array.__setitem__, box, voxels)

    return target


def make(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    shard: list[int],
    read: Callable[[Box], Any],
    target: Target,
    output: Path,
) -> None:
    kernels.load_meanwhile(dtype.str, labels=False)
    group = output / "product.zarr" / "zarr.json"
    group.parent.mkdir()
    group.write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}))
    counts: Any = 0
    half = np.empty(kernels.pooled_shape(_zyx(shape), (2, 2, 2)), dtype)
    write, work = target(0, shape), deque(boxes(shape, tuple(shard)))
    written: deque[Any] = deque()
    coming = deque(
        (box, read(box)) for box in [work.popleft() for _ in range(min(AHEAD, len(work)))]
    )
    with ThreadPoolExecutor(AHEAD) as pool:
        done: list[Future[Any]] = []
        while coming:
            box, voxels = coming[0][0], np.ascontiguousarray(coming[0][1].result())
            coming.popleft()
            if work:
                following = work.popleft()
                coming.append((following, read(following)))
            while len(written) >= AHEAD:
                written.popleft().result()
            written.append(write(box, voxels))
            counted = pool.submit(kernels.count_values, voxels)
            part = half[tuple(slice(s.start // 2, (s.stop + 1) // 2) for s in box)]
            pooled = pool.submit(kernels.pool, voxels, (2, 2, 2), part, labels=None)
            counts = counts + counted.result()
            pooled.result()
        for write_future in written:
            write_future.result()
        level = 1
        while True:
            write = target(level, half.shape)
            written = deque(write(box, half[box]) for box in boxes(half.shape, tuple(shard)))
            for write_future in written:
                write_future.result()
            if max(half.shape) <= _COARSEST:
                break
            finer, level = half, level + 1
            half = np.empty(kernels.pooled_shape(_zyx(finer.shape), (2, 2, 2)), dtype)
            kernels.pool(finer, (2, 2, 2), half, labels=None)
        files = [path for path in output.rglob("*") if path.is_file()]
        done = [pool.submit(_sha256, path) for path in files]
        sums = {str(path): future.result() for path, future in zip(files, done, strict=True)}
    statement = {"sha256": sums, "histogram": counts.tolist()}
    (output / "product.json").write_text(json.dumps(statement))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _zyx(shape: tuple[int, ...]) -> tuple[int, int, int]:
    z, y, x = shape
    return z, y, x
