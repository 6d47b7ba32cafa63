"""Label volumes of which the archive holds no chunk are an error by name, not a finished volume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import google_crc32c
import pytest
import zarr

from emulators.s3 import S3Server
from emulators.serving import Samples
from lib.errors import MissingChunksError
from tests.faults.bench import Bench

ARRAY = {
    "zarr_format": 2,
    "shape": [8, 8, 8],
    "chunks": [4, 4, 4],
    "dtype": "<u4",
    "compressor": None,
    "filters": None,
    "order": "C",
    "fill_value": 0,
    "dimension_separator": "/",
}
ATTRIBUTES = {
    "multiscales": [
        {
            "version": "0.4",
            "axes": [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"],
            "datasets": [
                {
                    "path": "s0",
                    "coordinateTransformations": [{"type": "scale", "scale": [4.0, 4.0, 4.0]}],
                }
            ],
        }
    ],
    "image-label": {"version": "0.4"},
}


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Server]:
    """A label multiscale: documents, and not one chunk."""
    with S3Server("absent-labels") as server:
        store = server.store()
        group = "set/set.zarr/labels/cells"
        store.put(f"{group}/.zgroup", json.dumps({"zarr_format": 2}).encode())
        store.put(f"{group}/.zattrs", json.dumps(ATTRIBUTES).encode())
        store.put(f"{group}/s0/.zarray", json.dumps(ARRAY).encode())
        yield server


def shard_of_nothing(chunks: int) -> bytes:
    """A Zarr v3 shard that is there, and whose index says of every chunk that it is not."""
    table = b"\xff" * 16 * chunks
    return table + google_crc32c.value(table).to_bytes(4, "little")


@pytest.mark.parametrize("kind", ["labels", "image"])
def test_shards_that_hold_no_chunk_are_an_archive_that_holds_none(
    tmp_path: Path, kind: str
) -> None:
    """The listing is complete; only the shards' own indices tell that nothing is there."""
    path = tmp_path / "cells.zarr"
    array = zarr.create_array(
        store=path, shape=(8, 8, 8), shards=(4, 8, 8), chunks=(4, 4, 4), dtype="uint32"
    )
    assert array.nchunks == 8 and array.read_only is False
    for index in range(2):
        shard = path / "c" / str(index) / "0" / "0"
        shard.parent.mkdir(parents=True)
        shard.write_bytes(shard_of_nothing(4))
    anywhere: Any = SimpleNamespace(endpoints={"ADDRESS": {}})
    one = Bench(anywhere, tmp_path, "address", addresses=[f"{path}|zarr3:"], kind=kind)
    ended = one.run()
    assert isinstance(ended.error, MissingChunksError), ended.error
    assert one.published() == []


def bench(samples: Samples, bucket: S3Server, folder: Path, **settings: Any) -> Bench:
    place = {"s3_uri": f"s3://{bucket.bucket}", "s3_endpoint_url": bucket.endpoint_url}
    chosen = {"dataset_id": "set", "zarr_path": "labels/cells", "scale_level": "s0"}
    return Bench(samples, folder, "openorganelle", **place, **chosen, **settings)


def test_labels_of_which_no_chunk_is_there_are_refused(
    samples: Samples, bucket: S3Server, tmp_path: Path
) -> None:
    one = bench(samples, bucket, tmp_path)
    ended = one.run()
    assert isinstance(ended.error, MissingChunksError)
    assert "none of the 8 chunks" in str(ended.error)
    assert "max_missing_fraction" in str(ended.error)
    assert one.published() == []
    assert one.record(ended.plans[0])["status"] == "failed"


@pytest.mark.parametrize("allowed", [{"max_missing_fraction": 1.0}, {"allow_empty": True}])
def test_they_are_made_where_that_is_allowed(
    samples: Samples, bucket: S3Server, tmp_path: Path, allowed: dict[str, Any]
) -> None:
    one = bench(samples, bucket, tmp_path, **allowed)
    ended = one.run()
    assert ended.complete, ended.errors
    (plan,) = ended.plans
    assert one.record(plan)["metadata"]["quality"]["completeness_score"] == 0.0
    assert one.problems(plan) == []
