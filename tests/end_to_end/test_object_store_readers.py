"""Other people's libraries open the volume straight from the bucket, for a handful of requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

import dask.array
import numpy as np
import pytest
import s3fs
import tensorstore
import zarr
from numpy.typing import NDArray

from lib.geometry import ShapeZYX
from lib.present.viewer import serve
from lib.storage.keys import contents
from lib.storage.s3 import S3Store
from tests.end_to_end.bucket import KEY, SECRET, Bucket
from tests.kit.volume_kit import ArrayReader, a_job, a_plan, make

SHAPE = (64, 96, 96)
CHUNK = (16, 16, 16)


@dataclass
class Made:
    """A volume of 2 x 3 x 3 shards of 32 voxels an axis, and its truth."""

    bucket: Bucket
    key: str
    voxels: NDArray[Any]
    levels: int

    @property
    def address(self) -> str:
        return f"{self.bucket.uri}/{self.key}"


def bring(bucket: Bucket, shape: ShapeZYX, name: str = "volume") -> tuple[S3Store, Any, Any]:
    voxels = np.random.default_rng(7).integers(0, 250, shape, np.uint8)
    store = bucket.store()
    reader = ArrayReader(voxels, CHUNK)
    job = a_job(a_plan(shape, name=name), reader, chunk_zyx=CHUNK, shard_mb=0.034)
    make(job, reader, store)
    return store, job, voxels


@pytest.fixture
def made(bucket: Bucket) -> Made:
    _, job, voxels = bring(bucket, SHAPE)
    assert job.shard_zyx == (32, 32, 32)
    bucket.forget()
    return Made(bucket, job.final_key, voxels, len(job.levels))


@pytest.fixture
def opened(made: Made) -> Iterator[zarr.Group]:
    """The volume as zarr-python opens it over s3fs; the requests of opening it are counted."""
    yield zarr.open_group(mapped(made), mode="r", zarr_format=3)
    s3fs.S3FileSystem.clear_instance_cache()


def mapped(made: Made) -> zarr.storage.FsspecStore:
    files = s3fs.S3FileSystem(
        key=KEY,
        secret=SECRET,
        endpoint_url=made.bucket.endpoint_url,
        asynchronous=True,
        skip_instance_cache=True,
    )
    path = made.address.removeprefix("s3://")
    return zarr.storage.FsspecStore(files, read_only=True, path=path)


def test_zarr_over_s3fs_opens_it_with_two_requests_and_views_a_slice_with_at_most_one_a_chunk(
    made: Made, opened: zarr.Group
) -> None:
    levels = sorted(opened.array_keys())
    arrays = [opened[level] for level in levels]
    assert len(arrays) == made.levels
    # s3fs asks for the size first; the group's document holds those of all its levels
    assert made.bucket.asked() == {"HEAD": 1, "GET": 1}

    made.bucket.forget()
    np.testing.assert_array_equal(arrays[0][5, :32, :32], made.voxels[5, :32, :32])
    # the index of one shard, and its 2 x 2 chunks, which zarr 3.4 reads by one request
    assert made.bucket.asked() in ({"GET": 1 + 4}, {"GET": 1 + 1})
    made.bucket.forget()
    np.testing.assert_array_equal(arrays[0][5], made.voxels[5])
    assert list(made.bucket.asked()) == ["GET"]
    assert made.bucket.asked()["GET"] <= 9 * (1 + 4)
    np.testing.assert_array_equal(arrays[0][:], made.voxels)


def test_without_being_told_the_format_zarr_asks_for_older_ones_too(made: Made) -> None:
    zarr.open_group(mapped(made), mode="r")
    asked = made.bucket.asked()
    assert asked["GET"] == 1
    assert sum(asked.values()) <= 8


def test_tensorstore_opens_it_and_views_a_slice(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    array = tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {
                "driver": "s3",
                "bucket": made.bucket.server.bucket,
                "endpoint": made.bucket.endpoint_url,
                "aws_region": "us-east-1",
                "path": f"{made.bucket.prefix}/{made.key}/0/",
            },
        },
        open=True,
        read=True,
    ).result()
    assert sum(made.bucket.asked().values()) <= 3
    made.bucket.forget()
    np.testing.assert_array_equal(array[5, :32, :32].read().result(), made.voxels[5, :32, :32])
    assert sum(made.bucket.asked().values()) <= 1 + 4 + 1
    np.testing.assert_array_equal(array.read().result(), made.voxels)


def test_dask_opens_it_as_an_array_of_shards(made: Made, opened: zarr.Group) -> None:
    array = opened["0"]
    lazy = dask.array.from_zarr(array, chunks=array.shards)
    assert lazy.numblocks == (2, 3, 3)
    assert made.bucket.asked() == {"HEAD": 1, "GET": 1}  # opening the group, as without dask
    made.bucket.forget()
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(lazy[5].compute(), made.voxels[5])
        # of each of 9 shards, what a plane needs of it, and never more than the whole of it
        assert sum(made.bucket.asked().values()) <= 9 * (1 + 4)
        np.testing.assert_array_equal(lazy.compute(), made.voxels)


def test_dask_opens_it_by_its_address(made: Made) -> None:
    options = {"key": KEY, "secret": SECRET, "endpoint_url": made.bucket.endpoint_url}
    lazy = dask.array.from_zarr(made.address, component="0", storage_options=options)
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(lazy[5].compute(), made.voxels[5])
    s3fs.S3FileSystem.clear_instance_cache()


def test_the_viewer_serves_it_from_the_bucket_without_giving_away_keys(made: Made) -> None:
    store = made.bucket.store()
    assert [*contents(store).volumes] == [made.key]
    with serve(store, [made.key]) as viewer:
        root = viewer.address
        with urlopen(f"{root}/store/{made.key}/zarr.json", timeout=120) as answer:
            assert SECRET not in answer.read().decode() + str(answer.headers)
        ask = Request(f"{root}/store/{made.key}/0/c/0/0/0", headers={"Range": "bytes=0-9"})
        with urlopen(ask, timeout=120) as answer:
            assert answer.status == 206
            assert answer.read() == store.get_range(f"{made.key}/0/c/0/0/0", 0, 10)


def test_requests_grow_with_shards_and_listings_do_not(bucket: Bucket) -> None:
    """Below a thousand objects every listing is one request, however many shards there are."""
    counts = []
    for shape, name in (((32, 32, 64), "small"), ((64, 64, 96), "large")):
        bucket.forget()
        store, job, _ = bring(bucket, shape, name)
        counts.append((len(job.grid), store.counts(), bucket.asked(), job))
    (few, small, _, one), (many, large, asked, other) = counts
    assert (few, many) == (2, 12)
    assert large["LIST"] - small["LIST"] <= 2 * (len(other.levels) - len(one.levels))
    assert large["LIST"] <= 12
    assert large["PUT"] == asked["PUT"]
    assert large["LIST"] == asked["LIST"]
    # a shard costs its own PUT, one for each level that is made with it, and one ledger entry
    shards = sum(len(level.grid) for level in other.levels)
    entries = sum(
        len(level.grid) for level in other.levels if level.index == 0 or not level.in_pass
    )
    documents = len(other.levels) + 1
    assert large["PUT"] == shards + entries + documents + 1 + 1  # list of digests, job
    assert large["GET"] <= 2 * entries + 8 * shards
