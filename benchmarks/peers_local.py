"""Peers that read what lies on this disk, into the same product as ours: see `peers_product`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorstore as ts

from benchmarks.peers_product import AHEAD, make, tensorstore_target, zarrs_target


def on_tensorstore(
    path: str, driver: str, output: str, shard: list[int], chunk: list[int], codec: dict[str, Any]
) -> None:
    """Read and written by tensorstore; axes of n5 and precomputed are turned to z, y, x."""
    source = open_local(path, driver)
    make(
        source.shape,
        source.dtype.numpy_dtype,
        shard,
        lambda box: source[box].read(),
        tensorstore_target(output, source.dtype.name, shard, chunk, codec),
        Path(output),
    )


def open_local(path: str, driver: str) -> Any:
    """An array of a folder, axes z, y, x."""
    context = ts.Context(
        {"data_copy_concurrency": {"limit": 2}, "cache_pool": {"total_bytes_limit": 0}}
    )
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}}
    array = ts.open(spec, context=context, read=True, open=True).result()
    if driver == "neuroglancer_precomputed":
        array = array[ts.d["channel"][0]]
    if driver in ("n5", "neuroglancer_precomputed"):
        array = array.T
    return array[ts.d[:].translate_to[0]]


def on_zarrs(
    path: str, zarr_format: int, output: str, shard: list[int], chunk: list[int],
    codec: dict[str, Any],
) -> None:  # fmt: skip
    """Read and written by zarr-python with the codec pipeline of zarrs."""
    import zarr
    import zarrs  # noqa: F401  # registers its pipeline

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    source = zarr.open_array(path, mode="r", zarr_format=zarr_format)
    with ThreadPoolExecutor(AHEAD) as pool, ThreadPoolExecutor(AHEAD) as writers:
        make(
            source.shape,
            source.dtype,
            shard,
            lambda box: pool.submit(source.__getitem__, box),
            zarrs_target(output, source.dtype, shard, chunk, codec, writers),
            Path(output),
        )


def on_h5py(
    path: str, dataset: str, output: str, shard: list[int], chunk: list[int], codec: dict[str, Any]
) -> None:
    """Read by h5py, whose library takes one call at a time, and written by tensorstore."""
    import h5py

    with h5py.File(path) as file, ThreadPoolExecutor(1) as pool:
        source = file[dataset]
        make(
            source.shape,
            source.dtype,
            shard,
            lambda box: pool.submit(source.__getitem__, box),
            tensorstore_target(output, source.dtype.name, shard, chunk, codec),
            Path(output),
        )
