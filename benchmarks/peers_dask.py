"""dask with s3fs: ``from_zarr().to_zarr()``, as the tutorials have it; one level, no digests."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import zarr
from s3fs.core import S3FileSystem

from benchmarks.peers_zarr import sharded_array


def copy(
    endpoint: str,
    bucket: str,
    key: str,
    output: str,
    shard: list[int],
    chunk: list[int],
    codec: dict[str, Any],
) -> None:
    """Chunks of the graph are shards, as they must be for a sharded target."""
    files = S3FileSystem(anon=True, endpoint_url=endpoint, asynchronous=True)
    store = zarr.storage.FsspecStore(files, path=f"{bucket}/{key}", read_only=True)
    source = zarr.open_array(store, mode="r", zarr_format=2)
    path = f"{output}/dask.zarr"
    target = sharded_array(path, source.shape, source.dtype, shard, chunk, codec)
    with dask.config.set(scheduler="threads", num_workers=2):
        da.from_zarr(source, chunks=tuple(shard)).to_zarr(target)
